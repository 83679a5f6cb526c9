"""The agent's rules, one row each, and that they come to rest from every state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.agent_pod import NOW, digest_of, engine, filled, order, release, resident, slot
from modelparams.api.assignment import AssignmentStatus, PodState, ReleaseFailure
from modelparams.failure import Failure
from modelparams.protocol import EngineState, Slot, SlotPhase, SlotState
from modelparams.reasons import Reason
from modelparams_serving.agent.decide import CancelStaging, Commit, Discard, Prepare, Reserve, Stage, Step, Wait, decide
from modelparams_serving.agent.memory import Failed, Memory, Underway
from modelparams_serving.agent.order import Order
from modelparams_serving.agent.report import report
from modelparams_serving.engine.swap_state import slot_to_fill

CURRENT, RESIDENT, FILLING, DRAINING = SlotPhase.CURRENT, SlotPhase.RESIDENT, SlotPhase.FILLING, SlotPhase.DRAINING
SOON, FOREVER = timedelta(seconds=2), None
NEW = order("1.1.0", "1.0.0", activate="1.1.0", term=3)


def failed(version: str, retry_after: timedelta | None, attempt: str = "", memory: Memory | None = None) -> Memory:
    what = Failed(f"tiny-{version}", digest_of(version), Failure(Reason.NOT_FINITE, "it is bad", retry_after), attempt)
    return (memory or Memory()).having_failed(what, NOW)


def starting(state: EngineState) -> EngineState:
    return state.model_copy(update={"starting": True})


@pytest.mark.parametrize(
    ("wanted", "state", "memory", "step"),
    [
        pytest.param(order("1.0.0"), engine(), Memory(), Stage(release("1.0.0")), id="an-empty-pod-stages"),
        pytest.param(
            order("1.0.0", "1.1.0", activate="1.1.0"),
            engine(),
            Memory(),
            Stage(release("1.1.0")),
            id="what-is-to-be-served-is-staged-first",
        ),
        pytest.param(
            order("1.0.0"),
            engine(slot(FILLING, "1.0.0")),
            Memory(filled=(filled("1.0.0"),)),
            Prepare(filled("1.0.0")),
            id="what-is-filled-is-prepared",
        ),
        pytest.param(
            order("1.0.0"),
            starting(engine(slot(FILLING, "1.0.0"))),
            Memory(filled=(filled("1.0.0"),)),
            Wait(NOW + timedelta(milliseconds=200)),
            id="an-engine-that-starts-is-not-asked-to-prepare",
        ),
        pytest.param(
            order("1.0.0"),
            starting(engine()),
            Memory(),
            Stage(release("1.0.0")),
            id="while-the-engine-starts-its-first-version-is-fetched",
        ),
        pytest.param(
            NEW,
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "1.1.0")),
            Memory(),
            Commit(resident("1.1.0"), 3),
            id="a-resident-is-committed-when-ordered",
        ),
        pytest.param(
            order("1.1.0", "1.0.0", activate="1.0.0", term=3),
            engine(slot(DRAINING, "1.0.0", requests=9), slot(CURRENT, "1.1.0")),
            Memory(),
            Commit(resident("1.0.0"), 3),
            id="going-back-does-not-wait-for-requests",
        ),
        pytest.param(
            order("1.1.0", "1.0.0"),
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "1.1.0")),
            Memory(),
            Wait(NOW + timedelta(seconds=5)),
            id="nothing-is-activated-without-an-order",
        ),
        pytest.param(
            NEW,
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "0.9.0")),
            Memory(),
            Stage(release("1.1.0")),
            id="an-unwanted-resident-gives-way",
        ),
        pytest.param(
            order("1.1.0", "1.2.0"),
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "1.1.0")),
            Memory(),
            Wait(NOW + timedelta(seconds=5)),
            id="a-preferred-resident-does-not-give-way-nor-does-the-current",
        ),
        pytest.param(
            NEW,
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "0.9.0")),
            Memory(underway=Underway(release("1.1.0"), asks=9)),
            Reserve(digest_of("1.1.0"), 9),
            id="a-staging-that-asks-is-given-an-arena",
        ),
        pytest.param(
            order("1.1.0", "1.2.0"),
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "1.1.0")),
            Memory(underway=Underway(release("1.2.0"), asks=9)),
            Wait(NOW + timedelta(seconds=5)),
            id="but-not-that-of-what-became-preferred-since-it-began",
        ),
        pytest.param(
            order("1.1.0", "1.2.0", activate="1.1.0", term=3),
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "1.1.0")),
            Memory(underway=Underway(release("1.2.0"), asks=9)),
            Commit(resident("1.1.0"), 3),
            id="nor-before-what-is-to-be-served",
        ),
        pytest.param(
            order("1.2.0", activate="1.2.0"),
            engine(slot(DRAINING, "1.0.0", requests=1), slot(CURRENT, "1.1.0")),
            Memory(),
            Wait(NOW + timedelta(milliseconds=500)),
            id="a-busy-slot-is-waited-for",
        ),
        pytest.param(
            order("1.0.0"),
            engine(slot(FILLING, "1.1.0")),
            Memory(underway=Underway(release("1.1.0"))),
            CancelStaging(),
            id="what-is-no-longer-wanted-is-not-staged-on",
        ),
        pytest.param(
            order("1.0.0"),
            engine(slot(FILLING, "1.1.0")),
            Memory(),
            Discard(digest_of("1.1.0")),
            id="a-filling-that-nobody-wants-is-dropped",
        ),
        pytest.param(
            order("1.1.0"),
            engine(slot(FILLING, "1.1.0")),
            Memory(),
            Stage(release("1.1.0")),
            id="a-filling-whose-agent-died-is-begun-again",
        ),
        pytest.param(
            order("1.1.0"),
            engine(slot(FILLING, "1.1.0")),
            failed("1.1.0", SOON),
            Discard(digest_of("1.1.0")),
            id="a-failed-filling-is-dropped",
        ),
        pytest.param(
            order("1.1.0"),
            engine(slot(FILLING, "1.1.0")),
            failed("1.1.0", SOON, memory=Memory(filled=(filled("1.1.0"),))),
            Wait(NOW + SOON),
            id="but-not-one-that-is-filled-and-may-be-building-still",
        ),
        pytest.param(
            order("1.1.0"),
            engine(slot(FILLING, "1.1.0")),
            failed("1.1.0", FOREVER, memory=Memory(filled=(filled("1.1.0"),))),
            Discard(digest_of("1.1.0")),
            id="unless-it-was-given-up",
        ),
        pytest.param(
            order("1.1.0", "1.2.0"),
            engine(slot(CURRENT, "1.0.0"), slot(FILLING, "1.1.0")),
            failed("1.1.0", SOON, memory=Memory(filled=(filled("1.1.0", Slot.B),))),
            Wait(NOW + SOON),
            id="and-it-gives-way-to-nothing-that-is-preferred-less",
        ),
        pytest.param(
            order("1.1.0"), engine(), failed("1.1.0", SOON), Wait(NOW + SOON), id="a-passing-failure-is-tried-later"
        ),
        pytest.param(
            order("1.1.0"),
            engine(),
            failed("1.1.0", FOREVER),
            Wait(NOW + timedelta(seconds=5)),
            id="a-final-failure-is-not-tried-again",
        ),
        pytest.param(
            order("1.1.0", attempt="2"),
            engine(),
            failed("1.1.0", FOREVER),
            Stage(release("1.1.0")),
            id="a-final-failure-is-tried-again-for-another-attempt",
        ),
        pytest.param(
            NEW,
            engine(),
            Memory(live=digest_of("1.0.0"), filled=(filled("1.0.0"),)),
            Prepare(filled("1.0.0")),
            id="an-engine-that-came-back-empty-gets-what-it-served",
        ),
        pytest.param(
            NEW,
            engine(),
            Memory(live=digest_of("1.0.0"), filled=(filled("1.0.0"), filled("1.1.0", Slot.B))),
            Prepare(filled("1.1.0", Slot.B)),
            id="or-at-once-what-it-was-to-serve",
        ),
        pytest.param(
            None,
            engine(slot(RESIDENT, "1.0.0")),
            Memory(live=digest_of("1.0.0"), term=4),
            Commit(resident("1.0.0"), 4),
            id="it-is-served-again-without-any-order",
        ),
        pytest.param(
            order("1.1.0", activate="1.1.0", is_fallback=True),
            engine(slot(CURRENT, "1.0.0")),
            Memory(),
            Wait(NOW + timedelta(seconds=5)),
            id="a-fallback-moves-no-serving-pod",
        ),
        pytest.param(
            order("1.1.0", activate="1.1.0", is_fallback=True),
            engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "1.1.0")),
            Memory(),
            Wait(NOW + timedelta(seconds=5)),
            id="not-even-to-what-it-holds",
        ),
        pytest.param(
            order("1.1.0", activate="1.1.0", is_fallback=True),
            engine(slot(RESIDENT, "1.1.0"), term=7),
            Memory(),
            Commit(resident("1.1.0"), 7),
            id="a-fallback-makes-an-idle-pod-useful",
        ),
        pytest.param(NEW, None, Memory(), Wait(NOW + timedelta(milliseconds=200)), id="a-lost-engine-is-waited-for"),
    ],
)
def test_next_step(wanted: Order | None, state: EngineState | None, memory: Memory, step: Step) -> None:
    assert decide(wanted, state, memory, NOW) == step


def test_a_failure_of_a_clock_that_was_ahead_holds_nothing_back_once_the_clock_is_set() -> None:
    memory, wanted = failed("1.0.0", SOON), order("1.0.0")
    assert decide(wanted, engine(), memory, NOW + timedelta(seconds=1)) == Wait(NOW + timedelta(seconds=2))
    assert decide(wanted, engine(), memory, NOW - timedelta(hours=1)) == Stage(release("1.0.0"))


def test_while_a_cancelled_staging_has_not_ended_no_other_begins_to_write() -> None:
    hanging = Memory(underway=Underway(release("1.2.0"), is_cancelled=True))
    state = engine(slot(CURRENT, "1.0.0"), slot(FILLING, "1.2.0"))
    assert not isinstance(decide(order("1.1.0", "1.0.0"), state, hanging, NOW), Stage)


def test_a_staging_that_nobody_orders_any_more_is_cancelled() -> None:
    memory = Memory(underway=Underway(release("1.1.0")))
    assert decide(None, engine(slot(FILLING, "1.1.0")), memory, NOW) == CancelStaging()


@pytest.mark.parametrize(("is_final", "attempts"), [(True, {"1"}), (False, set())])
def test_of_an_earlier_life_s_failures_those_are_kept_that_were_final(is_final: bool, attempts: set[str]) -> None:
    failure = ReleaseFailure(
        version_name="tiny-1.0.0",
        manifest_digest=digest_of("1.0.0"),
        reason=Reason.SOURCE_UNAVAILABLE,
        message="the store is away",
        attempt="1",
        final=is_final,
        time=NOW,
    )
    adopted = Memory().adopting(AssignmentStatus(pod_uid="uid", last_failure=failure))
    assert {setback.attempt for setback in adopted.setbacks} == attempts


def test_a_cancelled_staging_that_hangs_holds_up_no_rollback() -> None:
    hanging = Memory(underway=Underway(release("1.2.0"), is_cancelled=True))
    state = engine(slot(CURRENT, "1.1.0"), slot(RESIDENT, "1.0.0"))
    assert decide(order("1.0.0", activate="1.0.0"), state, hanging, NOW) == Commit(resident("1.0.0"), 0)


def test_a_version_whose_commit_failed_is_not_committed_again() -> None:
    state = engine(slot(CURRENT, "1.0.0"), slot(RESIDENT, "1.1.0"))
    assert isinstance(decide(NEW, state, failed("1.1.0", FOREVER), NOW), Wait)


def test_waits_double_up_to_a_bound_and_begin_anew_for_another_attempt() -> None:
    memory, waits = Memory(), []
    for _ in range(12):
        memory = failed("1.0.0", SOON, memory=memory)
        setback = memory.setback_of(digest_of("1.0.0"))
        assert setback
        assert setback.retry_at
        waits.append((setback.retry_at - NOW).total_seconds())
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == 120
    again = failed("1.0.0", SOON, attempt="2", memory=memory).setback_of(digest_of("1.0.0"))
    assert again
    assert again.retry_at == NOW + SOON


def loss(version: str) -> Failed:
    failure = Failure(Reason.ENGINE_UNAVAILABLE, "gone", SOON)
    return Failed(f"tiny-{version}", digest_of(version), failure, "", took_engine_down=True)


def test_a_version_that_kills_the_engine_three_times_is_given_up() -> None:
    memory = Memory()
    for _ in range(3):
        memory = memory.having_failed(loss("1.1.0"), NOW)
    setback = memory.setback_of(digest_of("1.1.0"))
    assert setback
    assert setback.retry_at is None
    assert setback.failure.reason is Reason.SWAP_FAILED


def test_but_what_the_pod_served_before_is_never_given_up() -> None:
    memory = Memory(live=digest_of("1.0.0"))
    for _ in range(9):
        memory = memory.having_failed(loss("1.0.0"), NOW)
    setback = memory.setback_of(digest_of("1.0.0"))
    assert setback
    assert setback.retry_at is not None


VERSIONS = ["1.0.0", "1.1.0", "1.2.0"]


@st.composite
def _slots(draw: st.DrawFn) -> tuple[SlotState, SlotState]:
    first, second = draw(st.permutations(VERSIONS))[:2]
    phases = draw(
        st.tuples(st.sampled_from(SlotPhase), st.sampled_from(SlotPhase)).filter(lambda p: p != (CURRENT, CURRENT))
    )
    return tuple(  # type: ignore[return-value]  # two of them
        slot() if phase is SlotPhase.EMPTY else slot(phase, version)
        for phase, version in zip(phases, (first, second), strict=True)
    )


@given(
    slots=_slots(),
    held=st.lists(st.sampled_from(VERSIONS), min_size=1, max_size=2, unique=True),
    serve=st.booleans(),
    live=st.sampled_from([None, *VERSIONS]),
    asking=st.sampled_from([None, *VERSIONS]),
)
@settings(max_examples=400, deadline=None)
def test_every_state_comes_to_rest_with_what_was_ordered(
    slots: tuple[SlotState, SlotState], held: list[str], serve: bool, live: str | None, asking: str | None
) -> None:
    """Play the steps on a perfect engine: few are enough, what is current stays until another is, what was ordered
    first and is held stays held, and then all is as ordered."""
    state = engine(*slots)
    asked = Underway(release(asking), asks=9) if asking and not state.slot_of(digest_of(asking)) else None
    memory = Memory(live=digest_of(live) if live else None, underway=asked)
    wanted = order(*held, activate=held[0] if serve else None)
    for _ in range(20):
        step = decide(wanted, state, memory, NOW)
        if isinstance(step, Wait):
            break
        before, had_first = state.current, state.slot_of(digest_of(held[0]))
        state, memory = play(step, state, memory)
        assert before is None or state.current is not None
        if not isinstance(step, Commit):
            assert state.current == before
        assert state.slot_of(digest_of(held[0])) or not had_first
    else:
        pytest.fail(f"no rest: {step}")
    if serve:
        assert state.current == resident(held[0])
    room = 1 if state.current and state.current.version.text not in held else 2
    assert all(state.slot_of(digest_of(version)) for version in held[:room])


@pytest.mark.parametrize(("known", "said"), [(5, 3), (3, 5)])
def test_floor_and_term_only_rise(known: int, said: int) -> None:
    """Whether a staging tells of them, or what an earlier life of the agent reported."""
    assert Memory(floor=known).having_filled(filled("1.0.0"), said).floor == 5
    status = AssignmentStatus(observed_generation=1, pod_uid="u", term=said, state=PodState.STAGING)
    assert Memory(term=known).adopting(status).term == 5


def contents(state: SlotState) -> tuple[object, ...]:
    return state.filling, state.resident and state.resident.manifest_digest


def without_requests(state: SlotState) -> SlotState:
    return state.model_copy(update={"phase": RESIDENT}) if state.phase is DRAINING else state


def play(step: Step, state: EngineState, memory: Memory) -> tuple[EngineState, Memory]:
    slots = dict(state.slots)
    match step:
        case Stage(wanted):
            memory = replace(memory, underway=Underway(wanted, asks=9))
        case CancelStaging():
            memory = replace(memory, underway=None)
        case Reserve(digest, _):
            where = slot_to_fill({s: without_requests(one) for s, one in slots.items()}, digest)
            slots[where] = SlotState(phase=FILLING, filling=digest)
            assert memory.underway
            memory = memory.having_filled(filled(memory.underway.release.version.text, where), 0)
        case Prepare(what):
            slots[what.slot] = slot(RESIDENT, what.release.version.text)
        case Commit(what, _):
            for s, one in slots.items():
                if one.resident == what:
                    slots[s] = one.model_copy(update={"phase": CURRENT})
                elif one.phase is CURRENT:
                    slots[s] = one.model_copy(update={"phase": RESIDENT})
            memory = replace(memory, live=what.manifest_digest)
        case Discard(digest):
            slots = {s: slot() if digest in contents(one) else one for s, one in slots.items()}
        case _:
            raise AssertionError(step)
    return state.model_copy(update={"slots": slots}), memory


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        pytest.param(failed("1.0.0", FOREVER), "1.0.0", id="given-up-though-it-is-ordered-no-more"),
        pytest.param(failed("1.0.0", SOON), None, id="what-is-tried-again-is-of-no-account-then"),
        pytest.param(failed("1.0.0", FOREVER, attempt="1"), None, id="nor-what-was-given-up-at-another-attempt"),
        pytest.param(
            failed("1.1.0", FOREVER, memory=failed("1.0.0", FOREVER)), "1.1.0", id="what-is-ordered-goes-first"
        ),
        pytest.param(replace(failed("1.0.0", FOREVER), swapped_at=NOW), "1.0.0", id="given-up-after-the-last-swap"),
        pytest.param(
            replace(failed("1.0.0", FOREVER), swapped_at=NOW + timedelta(seconds=1)), None, id="and-not-after-the-next"
        ),
    ],
)
def test_what_was_given_up_is_told_until_there_is_another_attempt(memory: Memory, told: str | None) -> None:
    """Else who orders another release instead, since it was given up, would not see that in the next moment."""
    answer = report(order("1.1.0"), engine(), memory, pod_uid="uid", generation=1).last_failure
    assert (answer and answer.manifest_digest) == (digest_of(told) if told else None)
