"""A small world in memory that obeys orders late, badly or never, and checks each one it is given.

Time goes in ticks. In each one a person may change something, the operator makes a pass (and may be killed between any
two of its writes), and the pods do some of what they were told. `Promise` holds what must be true at every write.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from builders.rollouts import NOW, approval, desired, digest, facts, hurry, version_spec
from modelparams.api.assignment import AssignmentSpec, AssignmentStatus, HeldRelease, PodState, ReleaseFailure
from modelparams.api.conditions import ConditionStatus, ConditionType, find
from modelparams.api.rollout import Pause, RolloutSpec, RolloutStatus, Step, VersionPolicy
from modelparams.digest import Digest
from modelparams.failure import Failure
from modelparams.names import Version
from modelparams.reasons import Reason
from modelparams_operator.core.events import of_rollout
from modelparams_operator.core.memory import attempt_of
from modelparams_operator.core.model import Assign, Desired, Observed, Plan, PodView, Verify, VersionView
from modelparams_operator.core.plan import plan
from modelparams_operator.core.steps import allowance, wanted

NUMBERS = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")
NAME_OF = {digest(number): number for number in NUMBERS}


@dataclass
class SimVersion:
    """A version's object, and what its bytes do to pods."""

    number: str
    sequence: int
    floor: int = 0
    is_tampered: bool = False
    breaks: str = ""
    """`stage`, `swap` or `ready`: where a pod that takes it fails."""
    exists: bool = True
    is_withdrawn: bool = False
    is_suspended: bool = False
    is_verified: bool = False
    is_refused: bool = False
    checks_left: int = 2

    def view(self) -> VersionView:
        spec = version_spec(
            self.number, lifecycle="Withdrawn" if self.is_withdrawn else None, suspend=self.is_suspended
        )
        known = facts(self.number, sequence=self.sequence, floor=self.floor) if self.is_verified else None
        failure = Failure(Reason.BLOB_DIGEST_MISMATCH, "blob 1 differs", None) if self.is_refused else None
        return VersionView(f"chat-{self.number}", spec, verified=known, failure=failure)


@dataclass
class SimPod:
    """A pod with its agent and engine."""

    name: str
    uid: str
    ready: bool = False
    serves: Digest | None = None
    holds: set[Digest] = field(default_factory=set)
    order: AssignmentSpec | None = None
    failure: ReleaseFailure | None = None
    is_sick: bool = False
    """Its engine is down until it heals."""
    settling: int = 0
    """Ticks until it is ready after a swap."""
    percent: int = 0
    taken_at: datetime | None = None
    """When an order took it from serving; None once it is back."""
    ghost: AssignmentStatus | None = None
    """What an earlier pod of the same name said last; it stands until this one speaks."""
    well_on: Digest | None = None
    well_since: datetime | None = None
    """Since when it is ready on that; None while it is not."""
    was_late: bool = False
    """It came back from being sick on a version that the others had left."""

    @property
    def was_taken(self) -> bool:
        """From serving, by its order: one that served nobody is not waited for."""
        return self.order is not None and self.order.moved_in is not None

    def view(self) -> PodView:
        def held(one: Digest) -> HeldRelease:
            number = NAME_OF[one]
            return HeldRelease.model_construct(
                version_name=f"chat-{number}", version=Version(number), manifest_digest=one, tensors_digest=""
            )

        answer = AssignmentStatus.model_construct(
            observed_generation=1,
            pod_uid=self.uid,
            term=1,
            state=PodState.STAGING,
            live=held(self.serves) if self.serves else None,
            staged=tuple(held(one) for one in sorted(self.holds)),
            progress=f"{self.percent}%" if self.percent else "",
            last_failure=self.failure,
        )
        is_new = self.order is None or self.order.pod_uid != self.uid
        said = self.ghost if self.ghost is not None and is_new else answer
        return PodView(self.name, self.uid, ready=self.ready, order=self.order, answer=said)


class World:
    """Everything around the planner. `trace` tells what happened, for a failed run and for golden files."""

    def __init__(self, seed: int, *, calm: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = NOW
        self.status = RolloutStatus()
        self.watching_since = NOW
        self.pods: dict[str, SimPod] = {}
        self.versions: dict[str, SimVersion] = {}
        self.ever_verified: set[Digest] = set()
        self.trace: list[str] = []
        self.approved_through: dict[Digest, int] = {}
        """The last step that anybody ever approved of a version."""
        self.seen_ready: dict[str, Digest | None] = {}
        """Pods that were ready where we took them when the last status was written, and on what."""
        self.desired = self._strategy() if not calm else desired()
        self._born = 0

    def _strategy(self) -> Desired:
        choose = self.random.choice
        canary = (Step(pods=1, pause=Pause(duration_seconds=60)), Step(pods="50%"))
        min_ready = choose([0, 0, 20])
        steps = choose([(), (Step(pods=1),), canary, (Step(pods=1, pause=Pause()), Step(pods="50%", pause=Pause()))])
        return desired(
            steps=steps,
            max_unavailable=choose([1, 1, 2, "50%"]),
            on_failure=choose(["Rollback", "Rollback", "Pause"]),
            window=choose([0, 3]),
            min_ready_seconds=min_ready,
            keep_previous_seconds=choose([None, None, 100]),
        )

    # What people and machines do.

    def tell(self, text: str) -> None:
        self.trace.append(f"{int((self.now - NOW).total_seconds()):>5}s {text}")

    def add_version(self, number: str, **fields: object) -> SimVersion:
        major, minor, _ = number.split(".")
        made = SimVersion(number, sequence=int(major) * 100 + int(minor) * 10)
        self.versions[number] = replace(made, **fields)  # type: ignore[arg-type]  # fields of SimVersion
        self.tell(f"version {number} is applied" + "".join(f" {k}={v}" for k, v in sorted(fields.items())))
        return self.versions[number]

    def add_pod(self, name: str = "") -> SimPod:
        self._born += 1
        name = name or f"p{self._born:02}"
        self.pods[name] = SimPod(name, uid=f"{name}-{self._born}")
        self.tell(f"pod {name} comes up")
        return self.pods[name]

    def remove_pod(self, name: str) -> None:
        del self.pods[name]
        self.tell(f"pod {name} is gone")

    def change(self, **fields: object) -> None:
        spec = RolloutSpec.model_validate({**dict(self.desired.spec), **fields})
        self.desired = replace(self.desired, spec=spec, generation=self.desired.generation + 1)
        self.tell("rollout: " + ", ".join(f"{name}={value}" for name, value in fields.items()))

    def disturb(self) -> None:
        """Let something happen, or not."""
        happenings: tuple[tuple[int, Callable[[], None]], ...] = (
            (24, lambda: None),
            (12, self._new_version),
            (4, self._withdraw),
            (3, self._delete_version),
            (3, self._pin),
            (2, self._retry),
            (2, self._toggle_paused),
            (3, self._approve),
            (1, self._expedite),
            (1, self._toggle_suspend),
            (3, lambda: self.add_pod() and None),
            (3, self._kill_pod),
            (4, self._sicken),
            (5, self._heal),
            (1, self._edit_steps),
        )
        weights = [weight for weight, _ in happenings]
        self.random.choices([happening for _, happening in happenings], weights)[0]()
        self._note_health()

    def _new_version(self) -> None:
        number = self.random.choice(NUMBERS)
        if number in self.versions and self.versions[number].exists:
            return
        if number in self.versions:
            self.versions[number].exists = True
            self.tell(f"version {number} is applied again")
            return
        kind = self.random.choice(["", "", "", "", "stage", "swap", "ready", "tampered", "low", "floor"])
        sequence = int(number.split(".")[1]) * 10 + 100
        self.add_version(
            number,
            breaks=kind if kind in ("stage", "swap", "ready") else "",
            is_tampered=kind == "tampered",
            sequence=sequence - 15 if kind == "low" else sequence,
            floor=sequence if kind == "floor" else 0,
        )

    def rot(self) -> None:
        """Let a version that made pods well make them unready from now on, or the other way round."""
        if found := self._any_version():
            found.breaks = "" if found.breaks else "ready"
            self.tell(f"version {found.number} {'makes its pods unready' if found.breaks else 'is good again'}")
            for pod in self.pods.values():
                if not pod.is_sick and pod.serves == digest(found.number):
                    pod.ready = not found.breaks

    def _any_version(self) -> SimVersion | None:
        there = [v for v in self.versions.values() if v.exists]
        return self.random.choice(there) if there else None

    def _withdraw(self) -> None:
        if found := self._any_version():
            found.is_withdrawn = not found.is_withdrawn
            self.tell(f"version {found.number} is {'withdrawn' if found.is_withdrawn else 'active again'}")

    def _delete_version(self) -> None:
        if found := self._any_version():
            found.exists = False
            self.tell(f"version {found.number} is deleted")

    def _pin(self) -> None:
        number = self.random.choice([*NUMBERS, None])
        pin = VersionPolicy(type="Pinned", version_name=f"chat-{number}")
        self.change(version_policy=pin if number else VersionPolicy(type="HighestSemver", range=">=1.0.0 <2.0.0"))

    def _retry(self) -> None:
        for version in self.versions.values():
            version.breaks = ""
        self.heal_all()
        self.change(retry_token=str(self.random.random()))

    def _toggle_paused(self) -> None:
        self.change(paused=not self.desired.spec.paused)

    def _toggle_suspend(self) -> None:
        self.change(suspend=not self.desired.spec.suspend)

    def _approve(self) -> None:
        one = approval(
            self.random.choice(NUMBERS),
            self.random.choice([1, 2]),
            self.random.choice(["alice", "bob"]),
            content=self.random.choice(["", "", "", "other bytes"]),
        )
        if self.random.random() < 0.5:
            one = one.model_copy(update={"steps_hash": self.status.steps_hash or "of no plan"})
        others = (
            a
            for a in self.desired.spec.approvals
            if (a.version_name, a.approved_by) != (one.version_name, one.approved_by)
        )
        self.change(approvals=(*others, one))

    def _expedite(self) -> None:
        number = self.random.choice([*NUMBERS, None])
        self.change(expedite=hurry(number, content=self.random.choice(["", "other bytes"])) if number else None)

    def _edit_steps(self) -> None:
        gated = (Step(pods=1), Step(pods=2, pause=Pause()))
        steps = self.random.choice([(), (Step(pods=2),), (Step(pods="34%"), Step(pods=2)), gated, gated[1:]])
        self.change(strategy=self.desired.spec.strategy.model_copy(update={"steps": steps}))

    def _kill_pod(self) -> None:
        if not self.pods:
            return
        name = self.random.choice(sorted(self.pods))
        before = self.pods[name].view()
        self.remove_pod(name)
        match self.random.choice(["gone", "namesake", "replaced"]):
            case "namesake":  # as a StatefulSet does: the old order and its answer may still be there
                again = self.add_pod(name)
                again.order, again.ghost = before.order, before.answer
            case "replaced":
                self.add_pod()
            case _:
                pass

    def _sicken(self) -> None:
        if self.pods:
            pod = self.pods[self.random.choice(sorted(self.pods))]
            pod.is_sick, pod.ready = True, False
            if self.random.random() < 0.5:
                pod.serves = None
            self.tell(f"pod {pod.name} falls sick{'' if pod.serves else ' and serves nothing'}")

    def _heal(self) -> None:
        for pod in self.pods.values():
            if pod.is_sick:
                pod.is_sick = False
                pod.was_late = pod.serves is not None and pod.serves not in self._wanted()
                self.tell(f"pod {pod.name} is well")
                return

    def heal_all(self) -> None:
        for pod in self.pods.values():
            pod.is_sick = False

    def _wanted(self) -> set[Digest]:
        return {r.manifest_digest for r in (self.status.live, self.status.target) if r is not None}

    def taken_down(self) -> list[str]:
        """Name the healthy pods that an order took from serving, and that are not ready where they were sent."""
        return [
            pod.name
            for pod in self.pods.values()
            if pod.taken_at is not None and not (pod.ready or pod.is_sick or pod.settling)
        ]

    # The operator.

    def observe(self) -> Observed:
        return Observed(
            now=self.now,
            status=self.status,
            versions=tuple(v.view() for v in self.versions.values() if v.exists),
            pods=tuple(pod.view() for pod in self.pods.values()),
            term=1,
            watching_since=self.watching_since,
        )

    def operate(self, *, kill_chance: float = 0.0) -> Plan:
        """Make a pass; write the status, then each action, or die before any of them."""
        made = plan(self.desired, self.observe())
        for one in self.desired.spec.approvals:
            before = self.approved_through.get(one.manifest_digest, 0)
            self.approved_through[one.manifest_digest] = max(before, one.through_step)
        for write in self._writes(made):
            if self.random.random() < kill_chance:
                self.tell("the operator is killed")
                self.watching_since = self.now
                break
            write()
        if self.status == made.status:
            self.seen_ready = {p.name: p.serves for p in self.pods.values() if p.ready and p.was_taken}
        return made

    def _writes(self, made: Plan) -> Iterator[Callable[[], None]]:
        if made.status != self.status:
            yield lambda: self._write_status(made.status)
        for action in made.actions:
            match action:
                case Verify(name):
                    yield lambda name=name: self._verify(name)  # type: ignore[misc]  # binds the loop's value
                case Assign():
                    yield lambda action=action: self._assign(action)  # type: ignore[misc]

    def _write_status(self, new: RolloutStatus) -> None:
        Promise(self).holds_for_status(self.status, new)
        for event in of_rollout(self.status, new):
            self.tell(f"event {event.type} {event.reason}: {event.message}")
        self.status = new

    def _verify(self, name: str) -> None:
        found = next((v for v in self.versions.values() if f"chat-{v.number}" == name and v.exists), None)
        if found is None or found.is_verified or found.is_refused:
            return
        found.checks_left -= 1
        if found.checks_left <= 0:
            found.is_verified, found.is_refused = not found.is_tampered, found.is_tampered
            self.tell(f"version {found.number} is {'refused' if found.is_refused else 'verified'}")
            if found.is_verified:
                self.ever_verified.add(digest(found.number))

    def _assign(self, action: Assign) -> None:
        pod = self.pods.get(action.pod_name)
        if pod is None:
            return
        assert pod.uid == action.pod_uid
        Promise(self).holds_for_order(pod, action.order)
        before = pod.order.activate if pod.order is not None and pod.order.pod_uid == pod.uid else None
        if action.order.activate != before and action.order.activate is not None:
            self.tell(f"order {pod.name}: serve {NAME_OF[action.order.activate]}")
            if pod.ready and pod.serves is not None and pod.serves != action.order.activate:
                pod.taken_at = self.now
        pod.order = action.order

    # The pods.

    def work(self, *, chance: float = 0.7) -> None:
        """Let pods do some of what they were told."""
        for pod in self.pods.values():
            if pod.order is not None and pod.order.pod_uid == pod.uid and self.random.random() < chance:
                self._obey(pod, pod.order)
        self._note_health()

    def _note_health(self) -> None:
        for pod in self.pods.values():
            if not pod.ready or pod.well_on != pod.serves:
                pod.well_on, pod.well_since = pod.serves, None
            if pod.ready and pod.well_since is None:
                pod.well_since = self.now

    def _obey(self, pod: SimPod, order: AssignmentSpec) -> None:
        if pod.settling:
            pod.settling -= 1
            pod.ready = pod.settling == 0 and not pod.is_sick and not self._spoils(pod)
            return
        wanted_digests = [release.manifest_digest for release in order.releases]
        pod.holds = {one for one in pod.holds if one in wanted_digests or one == pod.serves}
        if pod.is_sick:
            return
        missing = [d for d in wanted_digests if d not in pod.holds and not self.gave_up(pod, d, order.attempt)]
        has_given_up = self.gave_up(pod, order.activate, order.attempt)
        if order.activate in pod.holds and order.activate != pod.serves and not has_given_up:
            self._swap(pod, order.activate, order.attempt)
        elif missing and len(pod.holds) < 2:
            self._stage(pod, missing[0], order.attempt)
        if pod.serves is not None and not pod.settling:
            pod.ready = not self._spoils(pod)
        if pod.ready and pod.serves is not None and order.activate in (None, pod.serves):
            pod.taken_at, pod.was_late = None, False

    def gave_up(self, pod: SimPod, one: Digest | None, attempt: str) -> bool:
        known = pod.failure
        return known is not None and known.final and (known.manifest_digest, known.attempt) == (one, attempt)

    def _spoils(self, pod: SimPod) -> bool:
        version = self.versions.get(NAME_OF[pod.serves]) if pod.serves else None
        return version is not None and version.breaks == "ready"

    def _stage(self, pod: SimPod, one: Digest, attempt: str) -> None:
        version = self.versions[NAME_OF[one]]
        if version.breaks == "stage" and self.random.random() < 0.5:
            pod.failure = self._failed(pod, one, Reason.SEAL_BROKEN, attempt, is_final=True)
        elif self.random.random() < 0.1:
            pod.failure = self._failed(pod, one, Reason.SOURCE_UNAVAILABLE, attempt, is_final=False)
        else:
            pod.percent = min(100, pod.percent + self.random.choice([50, 100]))
            if pod.percent == 100:
                assert len(pod.holds) < 2, f"{pod.name} has no slot for a third version"
                pod.holds.add(one)
                pod.percent = 0
                if pod.failure is not None and not pod.failure.final and self.random.random() < 0.8:
                    pod.failure = None

    def _swap(self, pod: SimPod, one: Digest, attempt: str) -> None:
        if self.versions[NAME_OF[one]].breaks == "swap" and self.random.random() < 0.7:
            pod.failure = self._failed(pod, one, Reason.SWAP_FAILED, attempt, is_final=True)
            pod.taken_at = None  # it serves on
            return
        pod.serves, pod.failure = one, None
        pod.settling = self.random.choice([0, 0, 1, 3])
        pod.ready = pod.settling == 0 and not self._spoils(pod)
        self.tell(f"pod {pod.name} serves {NAME_OF[one]}")

    def _failed(self, pod: SimPod, one: Digest, reason: Reason, attempt: str, *, is_final: bool) -> ReleaseFailure:
        self.tell(f"pod {pod.name} cannot take {NAME_OF[one]}: {reason}")
        return ReleaseFailure(
            version_name=f"chat-{NAME_OF[one]}",
            manifest_digest=one,
            reason=reason,
            message="it did not work",
            attempt=attempt,
            final=is_final,
            time=self.now,
        )

    def tick(self, seconds: int = 5) -> None:
        self.now += timedelta(seconds=seconds)


class Promise:
    """What must hold at every single write, whatever happens around it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def holds_for_order(self, pod: SimPod, new: AssignmentSpec) -> None:
        world, status = self.world, self.world.status
        assert len(new.releases) <= 2
        for release in new.releases:
            assert release.manifest_digest in world.ever_verified, f"{pod.name} is ordered unverified bytes"
        assert not world.desired.spec.suspend, "a suspended rollout touches nothing"
        before = pod.order.activate if pod.order is not None and pod.order.pod_uid == pod.uid else pod.serves
        if new.activate is None or new.activate in (before, pod.serves):
            return
        number = NAME_OF[new.activate]
        assert new.activate in pod.holds, f"{pod.name} is ordered to serve {number}, which it does not hold"
        failed = {f.manifest_digest for f in status.failed_versions}
        assert new.activate not in failed, f"{pod.name} is ordered to serve {number}, which has failed"
        assert world.versions[number].sequence >= status.floor, f"{number} is below the floor"
        if pod.ready and pod.serves is not None and pod.serves != new.activate:
            self._holds_for_taking(pod, new.activate)

    def _holds_for_taking(self, pod: SimPod, to: Digest) -> None:
        world, status, total = self.world, self.world.status, len(self.world.pods)
        strategy = world.desired.spec.strategy
        version = world.versions[NAME_OF[to]]
        assert not (version.exists and version.is_withdrawn), f"{pod.name} is taken to a withdrawn version"
        away = [p for p in world.pods.values() if self._is_away(p) or p is pod]
        most = allowance(strategy.max_unavailable, total)
        assert len(away) <= most, f"{len(away)} pods are away because of us, {most} may be"
        served = {p.serves for p in world.pods.values() if p.ready and p.serves and not self._holds_nobody(p)}
        assert len(served | {to}) <= 3, "a fourth version would be live"
        leaves_home = status.live is not None and pod.serves == status.live.manifest_digest and not self._is_hurried()
        if leaves_home and status.live and status.target and status.target.version > status.live.version:
            assert len(served | {to}) <= 2, f"{pod.name} joins {NAME_OF[to]} while a third version is live"
            self._holds_for_joining(to, total)

    def _holds_nobody(self, pod: SimPod) -> bool:
        """On a version that was given up, and nobody waits for it: it came back late, or refused to go home."""
        home = self.world.status.live
        refused = home is not None and self.world.gave_up(pod, home.manifest_digest, attempt_of(self.world.status))
        return pod.was_late or refused

    def _holds_for_joining(self, to: Digest, total: int) -> None:
        status, spec = self.world.status, self.world.desired.spec
        there = [p for p in self.world.pods.values() if self._side(p) == to and (p.ready or p.taken_at)]
        count = wanted(spec.strategy.steps, status.step_index, total)
        assert len(there) + 1 <= count, f"step {status.step} is for {count} of {total} pods"
        through = self.world.approved_through.get(to, 0)
        for number, step in enumerate(spec.strategy.steps, 1):
            if step.pause == Pause() and through < number:
                count = wanted(spec.strategy.steps, number - 1, total)
                assert len(there) + 1 <= count, f"nobody ever approved more than {count} pods"
        self._holds_for_min_ready(to)

    def _holds_for_min_ready(self, to: Digest) -> None:
        """Nobody follows one that is not ready for long enough, but for the pass in which another one fell."""
        world = self.world
        taken = (p for p in world.pods.values() if p.ready and p.was_taken)
        there = {p.name: p for p in taken if p.serves == to == self._side(p)}
        if {name for name, on in world.seen_ready.items() if on == to} - there.keys():
            return
        limit = timedelta(seconds=world.desired.spec.strategy.min_ready_seconds)
        young = [name for name, pod in there.items() if pod.well_since and world.now - pod.well_since < limit]
        assert not young, f"{young} are not ready for {limit} yet"

    def _holds_for_gates(self, old: RolloutStatus, new: RolloutStatus) -> None:
        """Nobody passes a pause for a person but who is approved, hastened, or on a way without steps."""
        spec, target = self.world.desired.spec, new.target
        is_known = target is not None and any(r.manifest_digest == target.manifest_digest for r in new.history)
        if target is None or new.live is None or is_known or new.live == target:
            return
        if self._is_hurried():
            return
        mine = [a for a in spec.approvals if a.is_for(target) and a.steps_hash in (None, new.steps_hash)]
        through = [a.through_step for a in mine]
        for number, step in enumerate(spec.strategy.steps[old.step_index : new.step_index], old.step_index + 1):
            if step.pause is not None and step.pause.duration_seconds is None:
                assert max(through, default=0) >= number, f"step {number} was passed without an approval"

    def _is_hurried(self) -> bool:
        """It goes to all pods without steps, and waits for nobody."""
        wish, target = self.world.desired.spec.expedite, self.world.status.target
        return wish is not None and target is not None and wish.is_for(target)

    def _side(self, pod: SimPod) -> Digest | None:
        is_mine = pod.order is not None and pod.order.pod_uid == pod.uid
        return pod.order.activate if is_mine and pod.order is not None else None

    def _is_away(self, pod: SimPod) -> bool:
        """Ordered away from serving, and not back; one that did not come back in time is given up."""
        if pod.taken_at is None or (pod.ready and pod.serves is not None and self._side(pod) in (None, pod.serves)):
            return False  # back, or told to stay before it went
        limit = timedelta(seconds=self.world.desired.spec.strategy.progress_deadline_seconds)
        if pod.order is not None and pod.order.moved_in != self.world.status.revision:
            assert self.world.now - pod.taken_at >= limit, f"{pod.name} was given up too early"
            return False
        return True

    def holds_for_status(self, old: RolloutStatus, new: RolloutStatus) -> None:
        kinds = {condition.type for condition in new.conditions}
        assert ConditionType.READY in kinds
        assert not {ConditionType.RECONCILING, ConditionType.STALLED} <= kinds, "both Reconciling and Stalled"
        ready, stalled = find(new.conditions, ConditionType.READY), find(new.conditions, ConditionType.STALLED)
        assert ready is not None
        if ready.status is ConditionStatus.TRUE and ready.reason is not Reason.SUSPENDED:
            assert kinds.isdisjoint({ConditionType.RECONCILING, ConditionType.STALLED})
        assert stalled is None or stalled.reason is not Reason.SOURCE_UNAVAILABLE, "transient trouble never stalls"
        is_same_way = old.target is not None and (old.live, old.target) == (new.live, new.target)
        # An index of an edited plan says nothing in the new one.
        if is_same_way and old.steps_hash in ("", new.steps_hash):
            assert new.step_index >= old.step_index or not new.steps_hash, "the step went backward"
            self._holds_for_gates(old, new)
        assert new.floor >= old.floor
        live = {v.number for v in self.world.versions.values()}
        assert new.live is None or str(new.live.version) in live
