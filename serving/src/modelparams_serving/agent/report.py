"""From what is to what `kubectl get mpa` shows. Pure."""

from __future__ import annotations

from datetime import datetime

from modelparams.api.assignment import AssignmentStatus, HeldRelease, PodState, ReleaseFailure
from modelparams.digest import Digest
from modelparams.errors import EngineUnavailable
from modelparams.failure import classify
from modelparams.protocol import EngineState, SlotState
from modelparams_serving.agent.memory import Memory, Setback
from modelparams_serving.agent.order import Order


def report(
    order: Order | None, engine: EngineState | None, memory: Memory, *, pod_uid: str, generation: int
) -> AssignmentStatus:
    """The pod's answer. While the engine does not answer, nothing is live: that is what clients see, too."""
    return AssignmentStatus(
        observed_generation=generation,
        pod_uid=pod_uid,
        term=memory.term,
        state=_state(order, engine, memory),
        live=_live(engine),
        staged=_staged(engine),
        progress=_progress(memory),
        pause_microseconds=memory.pause_microseconds,
        fetched_bytes=memory.fetched_bytes,
        last_failure=_last_failure(order, engine, memory),
        swapped_at=memory.swapped_at,
    )


def _state(order: Order | None, engine: EngineState | None, memory: Memory) -> PodState:
    if order is None or engine is None:
        return PodState.WAITING
    activate = order.activate
    current = engine.current.manifest_digest if engine.current else None
    if activate and activate != current:
        if _is_final(memory, activate, order.attempt):
            return PodState.FAILED
        if engine.slot_of(activate):
            return PodState.SWAPPING
    if memory.underway and not memory.underway.is_cancelled:
        return PodState.STAGING
    missing = [r.manifest_digest for r in order.releases if not engine.slot_of(r.manifest_digest)]
    if any(_is_final(memory, digest, order.attempt) for digest in missing):
        return PodState.FAILED
    if missing:
        return PodState.STAGING
    return PodState.LIVE if activate and activate == current else PodState.STAGED


def _progress(memory: Memory) -> str:
    underway = memory.underway
    return f"{underway.percent}%" if underway and not underway.is_cancelled else ""


def _is_final(memory: Memory, digest: Digest, attempt: str) -> bool:
    setback = memory.setback_of(digest)
    return setback is not None and setback.retry_at is None and setback.attempt == attempt


def _held(state: SlotState) -> HeldRelease | None:
    if state.resident is None:
        return None
    resident = state.resident
    return HeldRelease(
        version_name=resident.version_name,
        version=resident.version,
        manifest_digest=resident.manifest_digest,
        tensors_digest=state.tensors_digest,
    )


def _live(engine: EngineState | None) -> HeldRelease | None:
    if engine is None or engine.current is None:
        return None
    return next(held for held in _staged(engine) if held.manifest_digest == engine.current.manifest_digest)


def _staged(engine: EngineState | None) -> tuple[HeldRelease, ...]:
    if engine is None:
        return ()
    return tuple(held for _, state in sorted(engine.slots.items()) if (held := _held(state)))


def _last_failure(order: Order | None, engine: EngineState | None, memory: Memory) -> ReleaseFailure | None:
    if order is None or not order.releases:
        return None
    for release in order.by_preference:
        setback = memory.setback_of(release.manifest_digest)
        is_held = engine is not None and engine.slot_of(release.manifest_digest)
        if setback and (setback.retry_at is None or not is_held):
            return _failure(setback)
    if engine is None and memory.engine_gone_at:
        return _engine_gone(order, memory.engine_gone_at)
    return _given_up(order, memory)


def _given_up(order: Order, memory: Memory) -> ReleaseFailure | None:
    """Say what was given up last at this attempt, though the order names it no more; until another version is live.

    Nothing else tells that: who ordered another release instead would take it for possible again, and send the pod to
    and fro.
    """
    last_swap = memory.swapped_at
    final = [one for one in memory.setbacks if one.retry_at is None and one.attempt == order.attempt]
    since = [one for one in final if last_swap is None or one.at >= last_swap]
    return _failure(max(since, key=lambda one: one.at)) if since else None


def _failure(setback: Setback) -> ReleaseFailure:
    return ReleaseFailure(
        version_name=setback.version_name,
        manifest_digest=setback.digest,
        reason=setback.failure.reason,
        message=setback.failure.message,
        attempt=setback.attempt,
        final=setback.retry_at is None,
        time=setback.at,
    )


def _engine_gone(order: Order, since: datetime) -> ReleaseFailure:
    failure = classify(EngineUnavailable("the engine does not answer on its socket"))
    wanted = order.by_preference[0]
    return ReleaseFailure(
        version_name=wanted.version_name,
        manifest_digest=wanted.manifest_digest,
        reason=failure.reason,
        message=failure.message,
        attempt=order.attempt,
        final=False,
        time=since,
    )
