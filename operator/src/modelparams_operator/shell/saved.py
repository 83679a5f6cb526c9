"""Objects saved by `kubectl get -o json` as the planner's input, so that an incident can be replayed anywhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.failure import Failure
from modelparams_operator.core.explain import Snapshot, from_json
from modelparams_operator.shell import observe, views
from modelparams_operator.shell.ports import ASSIGNMENTS, JSON, PODS, ROLLOUTS, VERSIONS, ModelKey, Resource


def snapshots(text: str) -> tuple[Snapshot, ...]:
    """Read one snapshot, or a Kubernetes List: one for each rollout in it.

    Raises:
        ValueError: it is neither.
        InvalidSpec: an object in it cannot be used.
    """
    try:
        return _read(text)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("it holds neither a snapshot nor objects as an API server gives them") from None


def _read(text: str) -> tuple[Snapshot, ...]:
    saved = json.loads(text)
    if not (isinstance(saved, dict) and "items" in saved):
        return (from_json(text),)
    items: list[JSON] = saved["items"]
    rollouts = _of(ROLLOUTS, items)
    keys = sorted({ModelKey(r["metadata"]["namespace"], r["spec"]["modelName"]) for r in rollouts})
    return tuple(snapshot for key in keys for snapshot in _model(key, items))


def _model(key: ModelKey, items: list[JSON]) -> tuple[Snapshot, ...]:
    here = [item for item in items if item["metadata"].get("namespace") == key.namespace]
    versions, rollouts = (
        [item for item in _of(resource, here) if item["spec"].get("modelName") == key.model]
        for resource in (VERSIONS, ROLLOUTS)
    )
    return of_objects(key, versions=versions, rollouts=rollouts, pods=_of(PODS, here), orders=_of(ASSIGNMENTS, here))


def of_objects(
    key: ModelKey, *, versions: list[JSON], rollouts: list[JSON], pods: list[JSON], orders: list[JSON]
) -> tuple[Snapshot, ...]:
    """Make the planner's input of a model's objects and its namespace's pods and orders: one for each usable rollout.

    Nothing is known of a check that is under way, nor since when an operator watches.
    """
    known = {item["metadata"]["name"]: views.assignment(item) for item in orders}
    here = {item["metadata"]["name"]: views.pod(item) for item in pods}
    model = observe.joined(observe.assembled(key, versions, rollouts), here, known)
    seen, now = observe.version_views(model, _nothing_new), datetime.now(UTC).replace(microsecond=0)
    term = max((order.spec.term for order in known.values()), default=0)
    return tuple(
        Snapshot(observe.desired(r), observe.observed(model, r, seen, now=now, term=term, watching_since=None))
        for r in model.rollouts
    )


def _of(resource: Resource, items: list[JSON]) -> list[JSON]:
    return [i for i in items if i["kind"] == resource.kind and i["apiVersion"] == resource.api_version]


def _nothing_new(
    _namespace: str, _name: str, _uid: str, _spec: VersionSpec
) -> tuple[VerifiedFacts | None, Failure | None]:
    return None, None
