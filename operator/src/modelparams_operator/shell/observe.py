"""From objects to what the planner sees. Pure but for the reading; `explain` uses the same on saved objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.errors import InvalidSpec
from modelparams.failure import Failure
from modelparams_operator.core.claims import Claims, claims, other_claims, selects
from modelparams_operator.core.model import Desired, Lessons, Observed, PodView, VersionView
from modelparams_operator.core.predecessors import lessons
from modelparams_operator.shell import views
from modelparams_operator.shell.ports import (
    JSON,
    ROLLOUTS,
    VERSIONS,
    KubernetesAPI,
    ModelKey,
    ObjectKey,
    Resource,
    pages,
)
from modelparams_operator.shell.views import Assignment, Pod, RolloutObject, VersionObject

T = TypeVar("T")
Outcome = Callable[[str, str, str, VersionSpec], tuple[VerifiedFacts | None, Failure | None]]
"""(namespace, name, uid, spec) → what the last check found, or why it failed."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An object that cannot be used, as it is on the server."""

    resource: Resource
    subject: JSON
    problem: InvalidSpec

    @property
    def key(self) -> ObjectKey:
        """Its place."""
        return views.key_of(self.subject)


@dataclass(frozen=True, slots=True)
class Model:
    """All that is there of one model in one namespace."""

    key: ModelKey
    versions: tuple[VersionObject, ...]
    rollouts: tuple[RolloutObject, ...]
    lessons: Lessons = field(default_factory=Lessons)
    broken: tuple[Broken, ...] = ()
    pods: tuple[Pod, ...] = ()
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    claims: Claims = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Nobody wants anything of it."""
        return not (self.versions or self.rollouts or self.broken)


async def read(api: KubernetesAPI, key: ModelKey) -> Model:
    """Read the model's versions and rollouts from the server."""
    fields = f"spec.modelName={key.model}"
    versions, rollouts = await asyncio.gather(
        _listed(api, VERSIONS, key.namespace, fields), _listed(api, ROLLOUTS, key.namespace, fields)
    )
    return assembled(key, versions, rollouts)


async def _listed(api: KubernetesAPI, resource: Resource, namespace: str, fields: str) -> list[JSON]:
    """All of them, without the annotations, which no rule reads: their users may write 256 KiB into each."""
    return [_lean(one) async for page in pages(api, resource, namespace, fields=fields) for one in page.items]


def _lean(subject: JSON) -> JSON:
    metadata = {name: value for name, value in subject["metadata"].items() if name != "annotations"}
    return {**subject, "metadata": metadata}


def assembled(key: ModelKey, versions: Sequence[JSON], rollouts: Sequence[JSON]) -> Model:
    """Parse, and set apart what cannot be used, so that it stops nothing else."""
    usable, broken = _sorted(VERSIONS, versions, views.version)
    plans, unusable = _sorted(ROLLOUTS, rollouts, views.rollout)
    return Model(key, usable, plans, lessons([plan.status for plan in plans]), broken + unusable)


def joined(model: Model, pods: Mapping[str, Pod], assignments: Mapping[str, Assignment]) -> Model:
    """With the pods and the orders of its namespace. A rollout that is going, held by a finalizer, claims no pod."""
    mine = tuple(pod for pod in pods.values() if pod.model == model.key.model and not pod.finished)
    specs = {rollout.key.name: rollout.spec for rollout in model.rollouts if not rollout.deleting}
    claimed = claims(specs, {pod.name: pod.labels for pod in mine})
    return replace(model, pods=mine, assignments=assignments, claims=claimed)


def _sorted(
    resource: Resource, subjects: Sequence[JSON], parse: Callable[[JSON], T]
) -> tuple[tuple[T, ...], tuple[Broken, ...]]:
    good, bad = list[T](), list[Broken]()
    for subject in subjects:
        try:
            good.append(parse(subject))
        except InvalidSpec as problem:
            bad.append(Broken(resource, subject, problem))
    return tuple(good), tuple(bad)


def version_views(model: Model, outcome: Outcome) -> tuple[VersionView, ...]:
    """What is known of each version: remembered in its status, or just found by the check."""
    return tuple(_version_view(known, outcome) for known in model.versions)


def _version_view(known: VersionObject, outcome: Outcome) -> VersionView:
    found, failure = outcome(known.key.namespace, known.key.name, known.uid, known.spec)
    remembered = known.status.verified
    if remembered is not None and remembered.manifest_digest == known.spec.manifest_digest:
        found, failure = remembered, None
    return VersionView(known.key.name, known.spec, known.generation, found, failure, known.deleting)


def desired(rollout: RolloutObject) -> Desired:
    """What its users want."""
    return Desired(rollout.key.name, rollout.spec, rollout.generation)


def observed(
    model: Model,
    rollout: RolloutObject,
    versions: tuple[VersionView, ...],
    *,
    now: datetime,
    term: int,
    watching_since: datetime | None,
    blind_since: datetime | None = None,
) -> Observed:
    """What a decision about `rollout` depends on."""
    mine = tuple(
        _pod_view(pod, model.assignments.get(pod.name)) for pod in model.pods if selects(rollout.spec, pod.labels)
    )
    others = other_claims(rollout.key.name, model.claims, (pod.name for pod in mine))
    named = {name for names in others.values() for name in names}
    return Observed(
        now=now,
        status=rollout.status,
        versions=versions,
        pods=tuple(sorted(mine, key=lambda pod: pod.name)),
        other_claims=others,
        predecessors=tuple(other.status for other in model.rollouts if other.key.name in named),
        lessons=model.lessons,
        term=term,
        watching_since=watching_since,
        blind_since=blind_since,
    )


def pod_views(model: Model) -> tuple[PodView, ...]:
    """All pods of the model, whoever selects them."""
    return tuple(_pod_view(pod, model.assignments.get(pod.name)) for pod in model.pods)


def _pod_view(pod: Pod, known: Assignment | None) -> PodView:
    order, answer = (known.spec, known.status) if known else (None, None)
    return PodView(pod.name, pod.uid, pod.ready, pod.deleting, pod.labels, order, answer, pod.ready_since)
