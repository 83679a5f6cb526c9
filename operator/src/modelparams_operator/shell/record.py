"""Every write of the operator, each of them only while the lease is held."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from modelparams import errors
from modelparams.api import MODEL_LABEL
from modelparams.api.base import Wire
from modelparams.api.conditions import Condition, ConditionStatus, ConditionType, carried_over
from modelparams.api.rollout import RolloutSpec
from modelparams.reasons import Reason
from modelparams_operator.core.default_rollout import default_name
from modelparams_operator.core.model import Assign
from modelparams_operator.shell.lease import LeaseLost
from modelparams_operator.shell.observe import Broken
from modelparams_operator.shell.ports import ASSIGNMENTS, JSON, ROLLOUTS, KubernetesAPI, ModelKey, ObjectKey, Resource
from modelparams_operator.shell.views import DEFAULT_LABELS, Assignment, RolloutObject, VersionObject


class Recorder:
    """Writes orders and statuses.

    Args:
        is_held: whether the lease is ours at this moment.
    """

    def __init__(self, api: KubernetesAPI, is_held: Callable[[], bool]) -> None:
        self._api, self._is_held = api, is_held

    def _require_lease(self) -> None:
        if not self._is_held():
            raise LeaseLost("the lease ran out during a pass")

    async def status(self, resource: Resource, known: VersionObject | RolloutObject, status: Wire) -> None:
        """Write a status over exactly the one that was read.

        Raises:
            APIConflict: the object has changed since: decide anew.
        """
        self._require_lease()
        await self._api.write_status(resource, known.key, known.resource_version, status.wire())

    async def refuse(self, broken: Broken) -> bool:
        """Say on an object that it cannot be used; nothing else in its status changes. False: it is said already."""
        status = refused_status(broken, datetime.now(UTC).replace(microsecond=0))
        if status == (broken.subject.get("status") or {}):
            return False
        self._require_lease()
        read_at = broken.subject["metadata"]["resourceVersion"]
        await self._api.write_status(broken.resource, broken.key, read_at, status)
        return True

    async def order(self, model: ModelKey, action: Assign, known: Assignment | None) -> JSON:
        """Create or replace a pod's order, owned by the pod so that it goes with it."""
        self._require_lease()
        key = ObjectKey(model.namespace, action.pod_name)
        if known is not None and known.spec.pod_uid != action.pod_uid:  # of a namesake's earlier life, answer and all
            await self._api.delete(ASSIGNMENTS, key, uid=known.uid)
        owner = {"apiVersion": "v1", "kind": "Pod", "name": action.pod_name, "uid": action.pod_uid}
        metadata = {"labels": {MODEL_LABEL: model.model}, "ownerReferences": [owner]}
        return await self._api.apply(ASSIGNMENTS, key, {"metadata": metadata, "spec": action.order.wire()})

    async def withdraw(self, namespace: str, pod_name: str, known: Assignment) -> None:
        """Delete the order of a pod that is gone or no longer opts in."""
        self._require_lease()
        await self._api.delete(ASSIGNMENTS, ObjectKey(namespace, pod_name), uid=known.uid)

    async def make_default(self, model: ModelKey, spec: RolloutSpec) -> bool:
        """Make the model's default rollout; False: one of that name is there, which names another model."""
        self._require_lease()
        metadata = {"name": default_name(spec.model_name), "namespace": model.namespace, "labels": DEFAULT_LABELS}
        body = {
            "apiVersion": ROLLOUTS.api_version,
            "kind": ROLLOUTS.kind,
            "metadata": metadata,
            "spec": spec.declared(),
        }
        try:
            await self._api.create(ROLLOUTS, model.namespace, body)
        except errors.APIConflict:
            return False
        return True

    async def delete_default(self, rollout: RolloutObject) -> None:
        """Make way for a user's rollout, or go with the model's last version."""
        self._require_lease()
        await self._api.delete(ROLLOUTS, rollout.key, uid=rollout.uid)


def refused_status(broken: Broken, now: datetime) -> JSON:
    """The object's status with the conditions of a spec that cannot be used."""
    metadata, status = broken.subject["metadata"], broken.subject.get("status") or {}
    generation = metadata.get("generation", 1)

    def condition(kind: ConditionType, value: ConditionStatus) -> Condition:
        return Condition(
            type=kind,
            status=value,
            reason=Reason.INVALID_SPEC,
            message=str(broken.problem)[:1024],
            observed_generation=generation,
            last_transition_time=now,
        )

    new = (
        condition(ConditionType.READY, ConditionStatus.FALSE),
        condition(ConditionType.STALLED, ConditionStatus.TRUE),
    )
    conditions = [c.wire() for c in carried_over(new, _readable(status.get("conditions") or []))]
    return {**status, "observedGeneration": generation, "conditions": conditions}


def _readable(conditions: list[JSON]) -> list[Condition]:
    try:
        return [Condition.parse(condition) for condition in conditions]
    except errors.InvalidSpec:  # another release's; its times are lost
        return []
