"""One pass over one model: read, plan, record, act, tell. No rule is in here.

A model in a namespace is the unit: its versions' statuses depend on all of its rollouts, and its rollouts may claim the
same pods. Versions and rollouts are read afresh in each pass, since a status is the planner's memory and must be
the one last written; pods and orders, of which there are many, come from mirrors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from modelparams.names import ModelName
from modelparams_operator.core import events as told
from modelparams_operator.core.claims import claims, unclaimed
from modelparams_operator.core.default_rollout import (
    RolloutOrigin,
    default_spec,
    forlorn_defaults,
    handed_over,
    superseded_defaults,
)
from modelparams_operator.core.model import Assign, Plan, Verify, VersionView
from modelparams_operator.core.plan import plan
from modelparams_operator.core.predecessors import inherited
from modelparams_operator.core.version_status import RolloutUse, judge
from modelparams_operator.shell import metrics, observe
from modelparams_operator.shell.at_once import each
from modelparams_operator.shell.events import EventRecorder, Happened, Regarding
from modelparams_operator.shell.lease import Lease
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.observe import Model
from modelparams_operator.shell.order_writer import OrderWriter
from modelparams_operator.shell.ports import (
    ROLLOUTS,
    VERSIONS,
    KubernetesAPI,
    ModelKey,
    ObjectKey,
    Resource,
)
from modelparams_operator.shell.record import Recorder
from modelparams_operator.shell.verifier import Verifier, subject_of
from modelparams_operator.shell.views import Assignment, Pod, RolloutObject, VersionObject
from modelparams_operator.shell.watch import Mirror, Mirrors

_WRITES_AT_ONCE = 16


@dataclass
class Reconciler:
    """What a pass needs of the world."""

    api: KubernetesAPI
    pods: Mirrors[Pod]
    assignments: Mirrors[Assignment]
    verifier: Verifier
    record: Recorder
    events: EventRecorder
    lease: Lease

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(_WRITES_AT_ONCE)
        self._orders = OrderWriter(self.api, self.assignments, self.record, self._places)
        self._shown: dict[ModelKey, set[str]] = {}

    async def reconcile(self, key: ModelKey, is_quiet: bool) -> float | None:
        """Do one pass; seconds until time changes something, None when nothing is left of the model.

        Args:
            key: the model.
            is_quiet: nothing woke this pass: there is time to tidy up.

        Raises:
            LeaseLost, APIError: the first trouble, after all else was done.
        """
        now = datetime.now(UTC).replace(microsecond=0)  # as the wire has it: what is read back equals what was written
        model = await self._read(key)
        self._forget(model)
        if model.is_empty:
            self._orders.forget(key)
            return None
        if self._blind_since(key) is None and await self._see_to_default(model):
            return 0
        seen = observe.version_views(model, self.verifier.outcome)
        trouble = list[BaseException]()
        plans = [await _kept(self._roll(model, rollout, seen, now, trouble), trouble) for rollout in _standing(model)]
        trouble += await self._sum_up(model, plans, seen, now)
        if is_quiet and self._blind_since(key) is None:
            trouble += await each((self._withdraw(key, name, known) for name, known in _orphans(model)), self._places)
        if trouble:
            raise trouble[0]
        return _until(now, plans)

    async def _read(self, key: ModelKey) -> Model:
        pods = self.pods.in_namespace(key.namespace)
        orders = self.assignments.in_namespace(key.namespace)
        await self._orders.clear_up(key)
        model = await observe.read(self.api, key)
        # joined after the reading, without an await between: the newest there is
        return observe.joined(model, pods.values(key.namespace), orders.values(key.namespace))

    def _forget(self, model: Model) -> None:
        """Drop what is remembered about objects that are gone."""
        current = {subject_of(*known.key, known.uid, known.spec) for known in model.versions}
        self.verifier.keep_only(model.key, current)
        refused = {broken.key.name for broken in model.broken if broken.resource is ROLLOUTS}
        names = {rollout.key.name for rollout in _standing(model)} | refused
        for gone in self._shown.pop(model.key, set()) - names:
            metrics.forget_rollout(model.key.namespace, gone)
        if names:
            self._shown[model.key] = names

    async def _see_to_default(self, model: Model) -> bool:
        """Make the default rollout, or let it give way; whether anything changed."""
        if any(broken.resource is ROLLOUTS for broken in model.broken):
            return False  # somebody wrote one and is told what is wrong with it
        if not model.rollouts:
            versions = [known.spec.version for known in model.versions if not known.deleting]
            spec = default_spec(ModelName(model.key.model), versions, _ordered_by(model))
            return spec is not None and await self.record.make_default(model.key, spec)
        standing = _standing(model)
        origins = [RolloutOrigin(rollout.key.name, rollout.is_default, rollout.status) for rollout in standing]
        superseded = superseded_defaults(origins)
        forlorn = forlorn_defaults(
            origins, has_versions=bool(model.versions or model.broken), has_pods=bool(model.pods)
        )
        gone = [rollout for rollout in standing if rollout.key.name in {*superseded, *forlorn}]
        leaving, heirs = [r for r in gone if r.key.name in superseded], [r for r in standing if not r.is_default]
        await self._bequeath(leaving, heirs)
        await self._hand_over(model, leaving, heirs)
        for rollout in gone:
            why = "a user's rollout names the model" if rollout.key.name in superseded else "its model is gone"
            logger.info("Default rollout goes", namespace=rollout.key.namespace, name=rollout.key.name, why=why)
            await self.record.delete_default(rollout)
        return bool(gone)

    async def _bequeath(self, leaving: Sequence[RolloutObject], heirs: Sequence[RolloutObject]) -> None:
        """Hand on what a rollout knows before it goes; a kill in between does it again."""
        for heir in heirs:
            status = heir.status
            for rollout in leaving:
                status = inherited(status, rollout.status)
            if status != heir.status:
                await self.record.status(ROLLOUTS, heir, status)

    async def _hand_over(self, model: Model, leaving: Sequence[RolloutObject], heirs: Sequence[RolloutObject]) -> None:
        claimed = claims({heir.key.name: heir.spec for heir in heirs}, {pod.name: pod.labels for pod in model.pods})
        orders = handed_over(observe.pod_views(model), claimed, {r.key.name for r in leaving})
        if trouble := await self._orders.write(model, orders):
            raise trouble[0]

    async def _roll(
        self,
        model: Model,
        rollout: RolloutObject,
        seen: tuple[VersionView, ...],
        now: datetime,
        trouble: list[BaseException],
    ) -> Plan:
        await asyncio.sleep(0)  # nobody bounds the rollouts of a namespace: the lease is renewed between two of them
        since = {"watching_since": self._watching_since(model.key), "blind_since": self._blind_since(model.key)}
        observed = observe.observed(model, rollout, seen, now=now, term=self.lease.term, **since)
        result = plan(observe.desired(rollout), observed)
        if result.status.wire() != rollout.status.wire():
            logger.info("Rollout", namespace=rollout.key.namespace, name=rollout.key.name, why=result.why)
            await self.record.status(ROLLOUTS, rollout, result.status)  # first: a decision is on record before it shows
            await self._tell(ROLLOUTS, rollout.key, rollout.uid, told.of_rollout(rollout.status, result.status))
        metrics.show_rollout(*rollout.key, result.status)
        problems = await self._act(model, result)
        await self._tell(ROLLOUTS, rollout.key, rollout.uid, told.of_orders(result, problems))
        trouble += problems  # what is decided is on record: one order that cannot be written hides no state
        return result

    async def _act(self, model: Model, result: Plan) -> list[BaseException]:
        """Begin checks and write orders, each of them; give what failed."""
        versions, orders = {known.key.name: known for known in model.versions}, list[Assign]()
        for action in result.actions:
            match action:
                case Verify(name):
                    self.verifier.request(model.key.namespace, name, versions[name].uid, versions[name].spec)
                case Assign():
                    orders.append(action)
        return await self._orders.write(model, orders)

    async def _sum_up(
        self, model: Model, plans: Sequence[Plan | None], seen: tuple[VersionView, ...], now: datetime
    ) -> list[BaseException]:
        """Say on versions, on objects that cannot be used and of pods without a rollout how it is; give what failed."""
        work: list[Awaitable[None]] = [self._refuse(broken) for broken in model.broken]
        if all(plans):  # a version's status names its users: not before all of them are known
            uses = [use async for use in _uses(model, plans, seen, now)]
            work += [self._judge(v, s, uses, now) for v, s in zip(model.versions, seen, strict=True)]
        for rollout in _standing(model)[:1]:  # on one of them is enough
            nobodys = told.of_unclaimed(model.key.model, unclaimed(model.claims))
            await self._tell(ROLLOUTS, rollout.key, rollout.uid, nobodys)
        return await each(work, self._places)

    async def _judge(
        self,
        known: VersionObject,
        view: VersionView,
        uses: Sequence[RolloutUse],
        now: datetime,
    ) -> None:
        status = judge(view, uses, known.status, now)
        if status.wire() == known.status.wire():
            return
        await self.record.status(VERSIONS, known, status)
        await self._tell(VERSIONS, known.key, known.uid, told.of_version(known.status, status))

    async def _refuse(self, broken: observe.Broken) -> None:
        if broken.resource is ROLLOUTS:
            metrics.show_refused(*broken.key, broken.problem.reason)
        if await self.record.refuse(broken):
            event = told.Event("Warning", broken.problem.reason, str(broken.problem))
            await self._tell(broken.resource, broken.key, broken.subject["metadata"]["uid"], (event,))

    async def _withdraw(self, key: ModelKey, pod_name: str, known: Assignment) -> None:
        logger.info("Order withdrawn: no such pod opts in", namespace=key.namespace, pod=pod_name)
        await self.record.withdraw(key.namespace, pod_name, known)

    async def _tell(self, resource: Resource, key: ObjectKey, uid: str, happened: Iterable[told.Event]) -> None:
        for event in happened:
            happening = Happened(event.type, event.reason, event.message)
            if not await self.events.record(Regarding(resource, key, uid), happening):
                continue
            level = logger.warning if event.type == "Warning" else logger.info
            level(
                "Event",
                kind=resource.kind,
                namespace=key.namespace,
                name=key.name,
                reason=event.reason,
                note=event.message,
            )

    def _watching_since(self, key: ModelKey) -> datetime | None:
        return max((one.watching_since for one in self._mirrors(key) if one.watching_since), default=None)

    def _blind_since(self, key: ModelKey) -> datetime | None:
        return min((one.blind_since for one in self._mirrors(key) if one.blind_since), default=None)

    def _mirrors(self, key: ModelKey) -> tuple[Mirror[Pod] | Mirror[Assignment], ...]:
        return self.pods.in_namespace(key.namespace), self.assignments.in_namespace(key.namespace)


async def _uses(
    model: Model, plans: Sequence[Plan | None], seen: tuple[VersionView, ...], now: datetime
) -> AsyncIterator[RolloutUse]:
    for rollout, made in zip(_standing(model), plans, strict=True):
        await asyncio.sleep(0)  # each looks at all versions
        if made is not None:
            yield RolloutUse.of(observe.desired(rollout), made.status, seen, now)


async def _kept(work: Awaitable[Plan], trouble: list[BaseException]) -> Plan | None:
    """The plan, or None when it could not be carried out: other rollouts go on."""
    try:
        return await work
    except Exception as error:  # raised again when all else is done
        trouble.append(error)
        return None


def _standing(model: Model) -> tuple[RolloutObject, ...]:
    return tuple(rollout for rollout in model.rollouts if not rollout.deleting)


def _ordered_by(model: Model) -> set[str]:
    """Names of the rollouts whose orders the pods have."""
    orders = ((pod, model.assignments.get(pod.name)) for pod in model.pods)
    return {known.spec.rollout_name for pod, known in orders if known and known.spec.pod_uid == pod.uid}


def _orphans(model: Model) -> list[tuple[str, Assignment]]:
    """Orders to pods that are gone (the garbage collector is slower at times) or took their label off."""
    there = {pod.name for pod in model.pods}
    return [
        (name, known)
        for name, known in model.assignments.items()
        if known.model == model.key.model and name not in there
    ]


def _until(now: datetime, plans: Iterable[Plan | None]) -> float:
    """Seconds until the first plan changes by time alone; for ever, if none does: the loop looks anyway."""
    times = [result.wake_at for result in plans if result and result.wake_at]
    return max((min(times) - now).total_seconds(), 0.2) if times else float("inf")
