"""Every state in which the planner leaves a rollout or a version, as an object of the API server.

What Argo CD, Flux and kstatus make of an object is held to these: their statuses are written by plan() and judge().
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from builders.kstatus import KStatus
from builders.rollouts import (
    NOW,
    desired,
    failed,
    failure,
    final,
    observed,
    pod,
    pods,
    revision,
    status,
    step,
    transient,
    version,
    withdrawn,
)
from modelparams import errors
from modelparams.api import API_VERSION, GROUP
from modelparams.api.assignment import PodState
from modelparams.api.rollout import Pause, RolloutStatus, Step
from modelparams.api.version import VersionStatus
from modelparams.reasons import Reason
from modelparams_operator.core.model import Desired, Observed, PodView, VersionView
from modelparams_operator.core.plan import plan
from modelparams_operator.core.untouched import invalid, unseen
from modelparams_operator.core.version_status import RolloutUse, judge

Object = dict[str, Any]
OLD, NEW = "1.0.0", "1.1.0"
BOTH = (version(OLD), version(NEW))
CANARY = status(OLD, NEW, progressed_at=NOW)
STAGED = pods(4, OLD, staged=[NEW], holds=[OLD, NEW])
ON_ONE = (pod("a", NEW, staged=[OLD]), *STAGED)
REST = plan(desired(), observed(version(OLD), *pods(2, OLD), memory=status(OLD))).status
UNDER_WAY = plan(desired(), observed(*BOTH, *ON_ONE, memory=CANARY)).status
UNTIL_APPROVED = Step(pods=1, pause=Pause())
LATER = NOW + timedelta(seconds=601)
FAILURES = sorted({error.reason for error in vars(errors).values() if hasattr(error, "reason")})
"""The reasons of errors, which a check or a pod may give."""
IN_PROGRESS, CURRENT, FAILED = KStatus.IN_PROGRESS, KStatus.CURRENT, KStatus.FAILED
_WHAT = {"Healthy": CURRENT, "Degraded": FAILED, "Progressing": IN_PROGRESS, "Suspended": IN_PROGRESS}


@dataclass(frozen=True)
class State:
    """An object in one state, and what the tools are to make of it."""

    name: str
    argo: str
    kstatus: KStatus
    object: Object

    @property
    def kind(self) -> str:
        return str(self.object["kind"])

    @property
    def flux(self) -> KStatus:
        """By the expressions of gitops/flux: what waits for a person is applied, and nothing to wait for."""
        return CURRENT if self.argo == "Suspended" else _WHAT[self.argo]

    @property
    def ready(self) -> Object:
        """What Ready says; empty where nobody said anything yet."""
        told = self.object.get("status", {}).get("conditions", ())
        return next((condition for condition in told if condition["type"] == "Ready"), {})


def _object(kind: str, name: str, generation: int, spec: Object, told: Object) -> Object:
    metadata = {"name": name, "namespace": "serving", "generation": generation}
    return {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": kind, "metadata": metadata, "spec": spec, "status": told}


def rollout(name: str, argo: str, want: Desired, told: RolloutStatus | None, kstatus: KStatus | None = None) -> State:
    """A rollout; `told=None`: as the API server makes it, before the operator looks."""
    said = told.wire() if told is not None else {"observedGeneration": -1}
    made = _object("ModelParamRollout", want.name, want.generation, want.spec.wire(), said)
    return State(name, argo, kstatus or _WHAT[argo], made)


def planned(name: str, argo: str, want: Desired, seen: Observed, kstatus: KStatus | None = None) -> State:
    """A rollout as a pass leaves it."""
    return rollout(name, argo, want, plan(want, seen).status, kstatus)


def _overdue() -> RolloutStatus:
    """Pods that went back, of which one is never ready, past the deadline."""
    sick = [pod(name, OLD, ready=False, moved_in=0) for name in "ab"]
    seen = (*BOTH, *sick, pod("c", NEW, staged=[OLD]), pod("d", NEW, staged=[OLD]))
    memory = plan(desired(), observed(*seen, memory=status(OLD, failed_versions=(failed(NEW),)))).status
    return plan(desired(), observed(*seen, memory=memory, now=LATER)).status


def rollouts() -> Iterator[State]:
    """One for each row of the page of conditions, and the edges between them."""
    moving = observed(*BOTH, *STAGED, memory=CANARY)
    resting = observed(version(OLD), *pods(2, OLD), memory=status(OLD))
    yield rollout("not_seen_yet", "Progressing", desired(), None)
    yield rollout("changed_since", "Progressing", desired(generation=2), REST)
    yield planned("promoted", "Healthy", desired(), resting)
    yield planned("no_pods", "Healthy", desired(), observed(version(OLD), memory=status(OLD)))
    yield planned("paused_at_rest", "Healthy", desired(paused=True), resting)
    yield planned("verifying", "Progressing", desired(), observed(version(OLD, verified=False), *pods(2)))
    yield planned("staging", "Progressing", desired(), observed(version(OLD), *pods(2)))
    yield planned("swapping", "Progressing", desired(), moving)
    yield planned(
        "pods_not_serving", "Progressing", desired(),
        observed(version(OLD), pod("a", OLD), pod("b", OLD, ready=False), memory=status(OLD)),
    )  # fmt: skip
    on_one = observed(*BOTH, *ON_ONE, memory=CANARY)
    yield planned("step_pause", "Progressing", desired(steps=(step(1, pause=60),)), on_one)
    yield planned("awaiting_approval", "Suspended", desired(steps=(UNTIL_APPROVED,)), on_one)
    yield planned("paused", "Suspended", desired(paused=True), moving)
    yield planned("suspended", "Suspended", desired(suspend=True), replace(moving, status=UNDER_WAY))
    yield planned("suspended_at_rest", "Suspended", desired(suspend=True), replace(resting, status=REST), CURRENT)
    yield planned(
        "pinned_and_suspended", "Suspended", desired(pin=NEW),
        observed(version(OLD), version(NEW, suspend=True), *pods(2, OLD), memory=status(OLD)),
    )  # fmt: skip
    yield planned(
        "taken_back", "Progressing", desired(),
        observed(version(OLD), pod("a", NEW, staged=[OLD]), *pods(2, OLD), memory=CANARY),
    )  # fmt: skip
    sick = pod("b", OLD, staged=[NEW], ordered=NEW, failed=failure(NEW))
    yield planned(
        "rolling_back", "Progressing", desired(), observed(*BOTH, sick, pod("a", NEW, staged=[OLD]), memory=CANARY)
    )
    gave_up = status(OLD, failed_versions=(failed(NEW),))
    yield planned("failed", "Degraded", desired(), observed(*BOTH, *pods(2, OLD), memory=gave_up))
    yield rollout("progress_deadline_exceeded", "Degraded", desired(), _overdue())
    yield planned("refused", "Degraded", desired(), observed(version(OLD, failure=final())))
    yield planned("store_away", "Progressing", desired(), observed(version(OLD, failure=transient())))
    yield planned("no_version_selected", "Progressing", desired(), observed(*pods(2, OLD), memory=status(OLD)))
    yield planned(
        "pinned_version_missing", "Progressing", desired(pin="1.5.0"),
        observed(version(OLD), *pods(2, OLD), memory=status(OLD)),
    )  # fmt: skip
    yield planned(
        "pinned_version_withdrawn", "Degraded", desired(pin=NEW),
        observed(version(OLD), withdrawn(NEW), *pods(2, OLD), memory=status(OLD)),
    )  # fmt: skip
    raised = observed(version(OLD), *pods(2, NEW), memory=status(NEW, floor=105))
    yield planned("sequence_too_low", "Degraded", desired(pin=OLD), raised)
    yield planned("expired", "Degraded", desired(), observed(version(OLD, not_after=NOW - timedelta(days=1)), *pods(2)))
    yield planned(
        "pods_claimed_twice", "Degraded", desired(),
        observed(version(OLD), pod("a", ordered=None), memory=status(OLD), other_claims={"a": ("gpu",)}),
    )  # fmt: skip
    yield planned(
        "stale_term", "Degraded", desired(),
        observed(version(OLD), pod("a", OLD, obeyed=9), memory=status(OLD), term=3),
    )  # fmt: skip
    yield rollout("api_unavailable", "Progressing", desired(), unseen(desired(), REST, NOW, LATER))
    yield rollout("invalid_spec", "Degraded", desired(), invalid(desired(), REST, "spec.strategy: no", NOW))


def judged(name: str, argo: str, view: VersionView, *uses: RolloutUse, kstatus: KStatus | None = None) -> State:
    """A version as a pass leaves it."""
    told = judge(view, uses, VersionStatus(), NOW).wire()
    made = _object("ModelParamVersion", view.name, view.generation, view.spec.wire(), told)
    return State(name, argo, kstatus or _WHAT[argo], made)


def versions() -> Iterator[State]:
    """One for each row of the page of conditions."""

    def use(memory: RolloutStatus | None = None, *others: VersionView, **fields: Any) -> RolloutUse:
        return RolloutUse.of(desired(**fields), memory or RolloutStatus(), (*BOTH, *others), NOW)

    old, new, late = *BOTH, version(NEW, not_after=NOW - timedelta(days=1))
    first = judged("not_seen_yet", "Progressing", old)
    yield replace(first, object=first.object | {"status": {"observedGeneration": -1}})
    yield judged("verifying", "Progressing", version(NEW, verified=False), use())
    for name, argo, fields in (
        ("rolling_out", "Progressing", {}),
        ("awaiting_approval", "Suspended", {"steps": (UNTIL_APPROVED,)}),
        ("paused", "Suspended", {"paused": True}),
        ("rollout_suspended", "Suspended", {"suspend": True}),
    ):
        told = plan(desired(**fields), observed(*BOTH, *ON_ONE, memory=UNDER_WAY)).status
        yield judged(name, argo, new, use(told, **fields))
    yield judged("no_rollout", "Progressing", new)
    yield judged("live", "Healthy", new, use(status(NEW)))
    yield judged("standby", "Healthy", old, use(status(NEW)))
    yield judged("superseded", "Healthy", old, use(status(NEW, history=(revision(OLD),))))
    yield judged("no_pods", "Healthy", new, use(plan(desired(), observed(*BOTH, memory=status(OLD))).status))
    yield judged("expired_and_not_wanted", "Healthy", late, use(status("1.2.0"), version("1.2.0")))
    yield judged("expired", "Degraded", late, use(status(NEW)))
    yield judged("withdrawn", "Suspended", withdrawn(OLD), use(status(NEW)), kstatus=CURRENT)
    yield judged("suspended", "Suspended", version(NEW, verified=False, suspend=True), use())
    yield judged("store_away", "Progressing", version(NEW, failure=transient()), use())
    yield judged("refused", "Degraded", version(NEW, failure=final()), use())
    yield judged("failed_in_pods", "Degraded", new, use(status(OLD, failed_versions=(failed(NEW),))))
    late_pods = status(OLD, failed_versions=(failed(NEW, Reason.PROGRESS_DEADLINE_EXCEEDED),))
    yield judged("progress_deadline_exceeded", "Degraded", new, use(late_pods))
    yield judged("sequence_too_low", "Degraded", old, use(status(NEW, floor=105)))


def assignment(name: str, argo: str, view: PodView, **told: Any) -> State:
    """An order, and what its pod says besides."""
    assert view.order is not None
    said = view.answer.model_copy(update=told).wire() if view.answer is not None else {"observedGeneration": -1}
    made = _object("ModelParamAssignment", view.name, 1, view.order.wire(), said)
    return State(name, argo, CURRENT, made)  # kstatus finds no condition there, and asks for none


def assignments() -> Iterator[State]:
    """An order as its pod answers it: agent/report.py. It belongs to the pod, so no Git engine waits for it."""
    turning, fetching = pod("web-0", OLD, staged=[NEW], ordered=NEW), pod("web-0", OLD, holds=[OLD, NEW])
    yield assignment("not_answered_yet", "Progressing", pod("web-0", ordered=OLD, answers=False))
    yield assignment("answered_by_a_namesake", "Progressing", pod("web-0", OLD), pod_uid="uid-of-another-life")
    yield assignment("engine_away", "Progressing", pod("web-0", ordered=OLD), state=PodState.WAITING)
    yield assignment("staging", "Progressing", fetching, state=PodState.STAGING, progress="61%")
    yield assignment("staged", "Healthy", pod("web-0", staged=[OLD]), state=PodState.STAGED)
    yield assignment("swapping", "Progressing", turning, state=PodState.SWAPPING)
    yield assignment("live", "Healthy", pod("web-0", OLD))
    again = failure(NEW, Reason.SOURCE_UNAVAILABLE, is_final=False)
    yield assignment("trying_again", "Progressing", turning, state=PodState.STAGING, last_failure=again)
    yield assignment("failed", "Degraded", turning, state=PodState.FAILED, last_failure=failure(NEW))


def all_states() -> tuple[State, ...]:
    """Those that are kept as files."""
    return (*rollouts(), *versions(), *assignments())


def passed_through(reason: Reason) -> Iterator[State]:
    """What a check or a pod says, final and tried again, as it stands on both kinds."""
    for argo, found in (("Degraded", final(reason)), ("Progressing", transient(reason))):
        seen = observed(version(OLD, failure=found))
        yield planned(f"{reason}-{argo}", argo, desired(), seen)
        use = RolloutUse.of(desired(), RolloutStatus(), seen.versions, NOW)
        yield judged(f"{reason}-{argo}", argo, seen.versions[0], use)
