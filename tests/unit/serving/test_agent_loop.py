"""An agent and an engine as in one pod, with everything that can die, dying."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from builders.agent_pod import MODEL, POD_UID, Pod, digest_of, release, running_pod
from modelparams import errors
from modelparams.api.assignment import AssignmentStatus, PodState
from modelparams.api.rollout import RolloutSpec, RolloutStatus, VersionPolicy
from modelparams.protocol import Region, Slot
from modelparams.reasons import Reason
from modelparams_serving.agent import arena, memory
from modelparams_serving.agent.order import Rollout

Play = Callable[[Pod], Awaitable[None]]


def play(directory: Path, scene: Play) -> None:
    """Run one scene in a pod."""

    async def whole() -> None:
        async with running_pod(directory) as pod:
            await scene(pod)

    asyncio.run(whole())


async def served(pod: Pod, version: str) -> None:
    # Both: after a crash, what was last said is older than what the engine holds.
    await pod.until(lambda: pod.live == version and pod.sink.last.live and pod.sink.last.live.version.text == version)


def test_a_new_pod_stages_and_serves_and_says_so(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0", term=3)
        await pod.until(lambda: pod.sink.last.state is PodState.LIVE)
        status = pod.sink.last
        assert status.live
        assert status.live.manifest_digest == digest_of("1.0.0")
        assert (status.observed_generation, status.term, status.pause_microseconds) == (1, 3, 7)
        assert status.fetched_bytes == 100
        assert status.last_failure is None
        assert pod.engine.heard == ["reserve", "prepare", "commit"]

    play(tmp_path, scene)


def test_an_update_is_held_ready_until_it_is_ordered_and_going_back_fetches_nothing(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.assign("1.1.0", "1.0.0", activate="1.0.0")
        await pod.until(lambda: len(pod.sink.last.staged) == 2)
        assert pod.live == "1.0.0"
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await served(pod, "1.1.0")
        pod.assign("1.1.0", "1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        assert pod.stages.staged == ["1.0.0", "1.1.0"]

    play(tmp_path, scene)


def test_a_bad_version_is_reported_once_and_tried_again_only_for_another_attempt(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.stages.failures["1.1.0"] = [errors.SealBroken("blob 3 does not open")]
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await pod.until(lambda: pod.sink.last.state is PodState.FAILED)
        failure = pod.sink.last.last_failure
        assert failure
        assert (failure.reason, failure.final, failure.version_name) == (Reason.SEAL_BROKEN, True, "tiny-1.1.0")
        assert "blob 3" in failure.message
        assert "publish the directory under a new number" in failure.message.lower()
        assert pod.live == "1.0.0"
        pod.orders.changed.set()
        await asyncio.sleep(0.05)
        assert pod.stages.staged == ["1.0.0", "1.1.0"]
        pod.assign("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
        await served(pod, "1.1.0")
        assert pod.sink.last.last_failure is None

    play(tmp_path, scene)


@pytest.mark.parametrize("op", ["prepare", "commit"])
def test_a_version_that_the_engine_refuses_leaves_the_old_one_live(tmp_path: Path, op: str) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.refusals[op] = [errors.LayoutMismatch("norm.weight is F32[9]")]
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await pod.until(lambda: pod.sink.last.state is PodState.FAILED)
        assert pod.sink.last.last_failure
        assert pod.sink.last.last_failure.reason is Reason.LAYOUT_MISMATCH
        assert pod.sink.last.live
        assert pod.live == "1.0.0"

    play(tmp_path, scene)


def test_what_the_engine_called_bad_is_fetched_anew_when_it_is_ordered_again(tmp_path: Path) -> None:
    """What is wrong may be the arena, which others can write, and not the version: the same bytes would fail again."""

    def spoiled(_arena: memoryview, _index: Region) -> str:
        raise errors.IndexInvalid("the tensors in memory are not those that were published")

    async def scene(pod: Pod) -> None:
        sound, pod.engine.look = pod.engine.look, spoiled
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.state is PodState.FAILED)
        pod.engine.look = sound
        pod.assign("1.0.0", activate="1.0.0", attempt="1")
        await served(pod, "1.0.0")
        assert pod.stages.staged == ["1.0.0", "1.0.0"]

    play(tmp_path, scene)


@pytest.mark.parametrize(
    "error",
    [errors.StoreUnavailable("cut"), errors.StoreDenied("no"), errors.KeyUnavailable("kek"), RuntimeError("bug")],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_is_reported_as_passing(tmp_path: Path, error: Exception) -> None:
    async def scene(pod: Pod) -> None:
        pod.stages.failures["1.0.0"] = [error]
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.last_failure)
        failure = pod.sink.last.last_failure
        assert failure
        assert not failure.final
        assert pod.sink.last.state is PodState.STAGING
        assert "discard" in pod.engine.heard or await discarded(pod)

    play(tmp_path, scene)


async def discarded(pod: Pod) -> bool:
    await pod.until(lambda: "discard" in pod.engine.heard)
    return True


def test_a_lost_engine_gets_back_what_it_served_without_a_fetch(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.assign("1.1.0", "1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.held == {"1.0.0", "1.1.0"})
        pod.engine.kill()
        await pod.until(lambda: pod.sink.last.live is None)
        failure = pod.sink.last.last_failure
        assert failure
        assert (failure.reason, failure.final) == (Reason.ENGINE_UNAVAILABLE, False)
        await pod.engine.start()
        await served(pod, "1.0.0")
        await pod.until(lambda: pod.held == {"1.0.0", "1.1.0"})
        assert pod.stages.staged == ["1.0.0", "1.1.0"]

    play(tmp_path, scene)


SPOIL: dict[str, Callable[[Pod], None]] = {
    "index": lambda pod: rewrite(pod, b"another index"),
    "tensors": lambda pod: refuse(pod, errors.IndexInvalid("the tensors in memory are not those that were published")),
}


def rewrite(pod: Pod, what: bytes) -> None:
    with (pod.directory / Slot.A.file_name).open("r+b") as arena:
        arena.write(what)


def refuse(pod: Pod, error: errors.ModelParamsError) -> None:
    pod.engine.refusals["prepare"] = [error]


@pytest.mark.parametrize("spoil", SPOIL.values(), ids=SPOIL)
def test_an_arena_that_a_lost_engine_has_rewritten_is_not_given_back_but_filled_anew(
    tmp_path: Path, spoil: Callable[[Pod], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SOON", timedelta(seconds=0.1))

    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.kill()
        await pod.until(lambda: pod.sink.last.live is None)
        spoil(pod)
        await pod.engine.start()
        await served(pod, "1.0.0")
        assert pod.stages.staged == ["1.0.0", "1.0.0"]
        told = [status.last_failure for status in pod.sink.statuses if status.last_failure]
        assert (told[-1].reason, told[-1].final) == (Reason.INDEX_INVALID, False)
        assert "arena-a no longer holds what was verified there" in told[-1].message
        assert pod.engine.heard.count("commit") == 2

    play(tmp_path, scene)


def test_what_an_engine_took_once_is_not_called_spoilt_because_the_next_one_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_SOON", timedelta(seconds=0.1))

    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.kill()
        await pod.until(lambda: pod.sink.last.live is None)
        refuse(pod, errors.LayoutMismatch("the model of tiny-llama-1.0.0 did not run: it took too long"))
        await pod.engine.start()
        await served(pod, "1.0.0")
        assert pod.stages.staged == ["1.0.0"], "nothing is fetched again"
        told = [status.last_failure for status in pod.sink.statuses if status.last_failure]
        assert (told[-1].reason, told[-1].final) == (Reason.LAYOUT_MISMATCH, False)
        assert "did not run: it took too long" in told[-1].message

    play(tmp_path, scene)


@pytest.mark.parametrize(("grace", "reason"), [(3600, None), (0, Reason.ENGINE_UNAVAILABLE)])
def test_an_engine_that_was_never_seen_is_waited_for_before_it_is_called_away(
    tmp_path: Path, grace: int, reason: Reason | None
) -> None:
    async def scene(pod: Pod) -> None:
        await pod.kill_agent()
        pod.engine.kill()
        pod.start_agent(engine_grace=timedelta(seconds=grace))
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.statuses)
        failure = pod.sink.last.last_failure
        assert (pod.sink.last.state, failure.reason if failure else None) == (PodState.WAITING, reason)
        await pod.engine.start()
        await served(pod, "1.0.0")

    play(tmp_path, scene)


def test_a_new_agent_knows_from_its_earlier_life_that_there_was_an_engine(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        await pod.kill_agent()
        pod.engine.kill()
        pod.start_agent()
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.last_failure)
        assert pod.sink.last.last_failure
        assert pod.sink.last.last_failure.reason is Reason.ENGINE_UNAVAILABLE

    play(tmp_path, scene)


def test_an_arena_file_that_was_made_anew_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.kill()
        await pod.until(lambda: pod.sink.last.live is None)
        (tmp_path / "another").write_bytes(bytes(9000))
        (tmp_path / "another").rename(tmp_path / Slot.A.file_name)
        await pod.engine.start()
        await served(pod, "1.0.0")
        assert pod.stages.staged == ["1.0.0", "1.0.0"]

    play(tmp_path, scene)


def test_a_new_agent_adopts_what_the_engine_holds(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        heard = list(pod.engine.heard)
        await pod.kill_agent()
        pod.start_agent()
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.observed_generation == 2)
        assert pod.sink.last.state is PodState.LIVE
        assert pod.sink.last.pause_microseconds == 7
        assert (pod.engine.heard, pod.stages.staged) == (heard, ["1.0.0"])

    play(tmp_path, scene)


def test_a_new_agent_does_not_try_again_what_failed_for_good(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.stages.failures["1.0.0"] = [errors.NotFinite("tensor 3")]
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.state is PodState.FAILED)
        await pod.kill_agent()
        pod.start_agent()
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.observed_generation == 2)
        assert pod.sink.last.state is PodState.FAILED
        assert pod.stages.staged == ["1.0.0"]

    play(tmp_path, scene)


def test_an_agent_that_died_while_staging_begins_again(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.stages.gate = asyncio.Event()
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: "reserve" in pod.engine.heard)
        await pod.kill_agent()
        pod.stages.gate.set()
        pod.start_agent()
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")

    play(tmp_path, scene)


def test_both_lost_means_to_fetch_again(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        await pod.kill_agent()
        pod.engine.kill()
        await pod.engine.start()
        pod.start_agent()
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.live == "1.0.0")
        assert pod.stages.staged == ["1.0.0", "1.0.0"]

    play(tmp_path, scene)


@pytest.mark.parametrize("op", ["reserve", "prepare", "commit"])
def test_an_engine_that_dies_once_at_any_order_takes_the_version_in_the_end(tmp_path: Path, op: str) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.dies_at[op] = 1
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await pod.until(lambda: not pod.engine.is_up)
        await pod.engine.start()
        await served(pod, "1.0.0")
        await pod.until(lambda: pod.live == "1.1.0", seconds=8)

    play(tmp_path, scene)


def always_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BACKOFF_MAX", timedelta(seconds=0.01))


def test_what_is_filled_is_not_thrown_away_over_a_prepare_that_nobody_heard_the_end_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine may be building it still; thrown away, it would be fetched, built and thrown away again for ever."""
    always_soon(monkeypatch)

    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.heard.clear()
        refuse(pod, errors.EngineUnavailable("no answer to 'prepare' (TimeoutError)"))
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await served(pod, "1.1.0")
        assert pod.engine.heard == ["reserve", "prepare", "prepare", "commit"]
        assert pod.stages.staged == ["1.0.0", "1.1.0"]

    play(tmp_path, scene)


def test_an_agent_that_has_no_file_left_to_look_with_says_of_no_engine_that_it_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    always_soon(monkeypatch)
    real, waiting = os.open, [errno.EMFILE] * (2 * memory.ENGINE_LOSSES_MAX)

    def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if waiting and str(path).endswith(Slot.B.file_name):
            raise OSError(waiting.pop(), "Too many open files")
        return real(path, flags, *rest, **named)

    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        monkeypatch.setattr(arena.os, "open", opened)
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await served(pod, "1.1.0")
        assert pod.stages.staged == ["1.0.0", "1.1.0"]

    play(tmp_path, scene)
    assert not waiting


@pytest.mark.parametrize("op", ["reserve", "prepare", "commit"])
def test_a_version_that_takes_the_engine_down_at_any_order_is_given_up_after_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op: str
) -> None:
    always_soon(monkeypatch)

    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.deadly = (op, digest_of("1.1.0"))
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        for _ in range(memory.ENGINE_LOSSES_MAX):
            await pod.until(lambda: not pod.engine.is_up)
            await pod.engine.start()
        await served(pod, "1.0.0")
        await pod.until(lambda: pod.sink.last.state is PodState.FAILED)
        failure = pod.sink.last.last_failure
        assert failure
        assert (failure.reason, failure.final, failure.version_name) == (Reason.SWAP_FAILED, True, "tiny-1.1.0")
        assert "the engine died 3 times while it took tiny-1.1.0" in failure.message

    play(tmp_path, scene)


def test_an_order_of_a_past_leader_is_ignored(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0", term=5)
        await served(pod, "1.0.0")
        pod.assign("1.1.0", "1.0.0", activate="1.1.0", term=4)
        pod.assign("0.9.0", activate="0.9.0", term=4)
        await asyncio.sleep(0.1)
        assert pod.live == "1.0.0"
        assert pod.sink.last.term == 5
        assert pod.sink.last.observed_generation == 1
        pod.assign("1.1.0", "1.0.0", activate="1.1.0", term=6)
        await served(pod, "1.1.0")

    play(tmp_path, scene)


def test_a_new_engine_without_a_term_does_not_make_a_past_leader_the_present_one(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0", term=5)
        await served(pod, "1.0.0")
        pod.engine.kill()
        await pod.until(lambda: pod.sink.last.live is None)
        pod.assign("1.1.0", activate="1.1.0", term=4)
        await pod.engine.start()
        await served(pod, "1.0.0")
        assert (pod.sink.last.term, pod.engine.term) == (5, 5)
        assert pod.sink.last.observed_generation == 1
        assert pod.stages.staged == ["1.0.0"]

    play(tmp_path, scene)


def test_an_agent_that_knows_nothing_any_more_learns_from_its_engine_which_leader_is_past(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0", term=5)
        await served(pod, "1.0.0")
        pod.assign("1.1.0", "1.0.0", activate="1.0.0", term=5)
        await pod.until(lambda: pod.held == {"1.0.0", "1.1.0"})
        await pod.kill_agent()
        pod.sink.statuses.clear()  # the assignment was deleted and made anew: no status tells of a term
        pod.start_agent()
        pod.assign("1.1.0", "1.0.0", activate="1.1.0", term=4)
        await pod.until(lambda: pod.sink.last.live)
        assert (pod.live, pod.sink.last.term) == ("1.0.0", 5)
        assert pod.sink.last.observed_generation == -1
        assert pod.engine.heard.count("commit") == 1
        pod.assign("1.1.0", "1.0.0", activate="1.1.0", term=5)
        await served(pod, "1.1.0")

    play(tmp_path, scene)


def test_an_order_for_a_namesake_of_another_life_is_ignored(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.orders.pod_uid = "another"
        pod.assign("1.0.0", activate="1.0.0")
        await asyncio.sleep(0.1)
        assert pod.engine.heard == []
        assert pod.sink.statuses == []

    play(tmp_path, scene)


def rollout_with(version: str) -> Rollout:
    policy = VersionPolicy(type="HighestSemver", range=">=1.0.0")
    return Rollout("tiny", RolloutSpec(model_name=MODEL, version_policy=policy), RolloutStatus(live=release(version)))


def test_without_an_order_a_new_pod_serves_what_is_live_in_its_rollout(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.rollouts.found = (rollout_with("1.0.0"),)
        pod.orders.assigned(None)
        await pod.until(lambda: pod.live == "1.0.0")
        pod.rollouts.found = (rollout_with("1.1.0"),)
        pod.assign("1.2.0", "1.0.0", activate="1.0.0", term=0)
        await pod.until(lambda: pod.held == {"1.0.0", "1.2.0"})
        assert pod.live == "1.0.0"

    play(tmp_path, scene)


def test_a_change_of_the_order_cancels_a_staging(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.stages.gate = asyncio.Event()
        pod.assign("1.1.0", "1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.progress == "61%", seconds=8)
        assert pod.sink.last.state is PodState.STAGING
        pod.assign("1.0.0", activate="1.0.0")
        await discarded(pod)
        await pod.until(lambda: pod.sink.last.state is PodState.LIVE)
        assert pod.live == "1.0.0"

    play(tmp_path, scene)


async def two_held_while_the_store_stalls_over_a_third(pod: Pod) -> asyncio.Event:
    pod.assign("1.0.0", activate="1.0.0")
    await served(pod, "1.0.0")
    pod.assign("1.1.0", "1.0.0", activate="1.1.0")
    await served(pod, "1.1.0")
    answers = pod.stages.answers = asyncio.Event()
    pod.assign("1.2.0", "1.1.0", activate="1.1.0")
    await pod.until(lambda: pod.stages.staged[-1] == "1.2.0")
    pod.engine.heard.clear()
    return answers


def test_a_staging_that_was_cancelled_while_the_store_stalled_takes_no_arena_any_more(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        answers = await two_held_while_the_store_stalls_over_a_third(pod)
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await pod.until(lambda: pod.sink.last.state is PodState.LIVE)
        answers.set()
        await pod.until(lambda: pod.agent and pod.agent._staging.underway is None)
        pod.assign("1.1.0", "1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        assert pod.engine.heard == ["commit"]

    play(tmp_path, scene)


def test_a_staging_takes_no_arena_of_what_is_preferred_by_the_order_that_came_meanwhile(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        answers = await two_held_while_the_store_stalls_over_a_third(pod)
        pod.assign("1.0.0", "1.2.0")
        await pod.until(lambda: pod.sink.last.observed_generation == pod.generation)
        answers.set()
        await pod.until(lambda: pod.agent and (underway := pod.agent._staging.underway) and underway.asks)
        pod.assign("1.0.0", "1.2.0", activate="1.0.0")
        await pod.until(lambda: pod.held == {"1.0.0", "1.2.0"})
        assert pod.live == "1.0.0"
        assert pod.engine.heard == ["commit", "reserve", "prepare"]
        assert pod.stages.staged == ["1.0.0", "1.1.0", "1.2.0"]

    play(tmp_path, scene)


def test_a_staging_that_waits_for_an_arena_is_cancelled_and_leaves_its_turn_to_another(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        answers = await two_held_while_the_store_stalls_over_a_third(pod)
        pod.assign("1.0.0", "1.2.0")  # and 1.1.0 is served: no arena is free for 1.2.0
        await pod.until(lambda: pod.sink.last.observed_generation == pod.generation)
        answers.set()
        await pod.until(lambda: pod.agent and (underway := pod.agent._staging.underway) and underway.asks)
        pod.assign("1.1.0", "1.3.0", activate="1.1.0")
        await pod.until(lambda: pod.held == {"1.1.0", "1.3.0"})

    play(tmp_path, scene)


def test_an_engine_that_will_not_discard_ends_no_agent(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.stages.failures["1.1.0"] = [errors.StoreDenied("no")]
        pod.engine.refusals["discard"] = [errors.SealBroken("an odd answer")]
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await pod.until(lambda: not pod.engine.refusals["discard"])
        pod.assign("1.2.0", "1.0.0", activate="1.2.0")
        await served(pod, "1.2.0")

    play(tmp_path, scene)


def test_a_passing_refusal_of_the_arena_is_tried_again(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.engine.memory = 9000
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await pod.until(lambda: pod.sink.last.last_failure)
        failure = pod.sink.last.last_failure
        assert failure
        assert (failure.reason, failure.final) == (Reason.ARENA_EXHAUSTED, False)
        assert "memory volume" in failure.message
        pod.engine.memory = 1 << 40
        pod.assign("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
        await served(pod, "1.1.0")

    play(tmp_path, scene)


def test_a_floor_that_was_verified_once_is_kept(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.stages.floor = 40
        pod.assign("1.0.0", activate="1.0.0")
        await served(pod, "1.0.0")
        pod.stages.floor = 0
        pod.assign("1.1.0", "1.0.0", activate="1.1.0")
        await served(pod, "1.1.0")
        assert pod.stages.floors == [0, 40]
        assert pod.agent
        assert pod.agent._memory.floor == 40

    play(tmp_path, scene)


def test_while_the_api_server_is_away_the_last_order_holds_and_the_status_follows(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.sink.failure = errors.APIUnavailable("away")
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.live == "1.0.0")
        pod.engine.kill()
        await pod.engine.start()
        await pod.until(lambda: pod.live == "1.0.0")
        assert pod.sink.statuses == []
        pod.sink.failure = None
        await served(pod, "1.0.0")

    play(tmp_path, scene)


def test_a_status_that_others_set_back_is_written_again(tmp_path: Path) -> None:
    """As a restored backup of the cluster does: the operator would wait for this pod until it failed the version."""

    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.state is PodState.LIVE)
        pod.sink.statuses.append(AssignmentStatus(pod_uid=POD_UID, state=PodState.STAGING))
        pod.tell()
        await pod.until(lambda: pod.sink.last.state is PodState.LIVE)

    play(tmp_path, scene)


def test_at_rest_nothing_is_written_or_ordered(tmp_path: Path) -> None:
    async def scene(pod: Pod) -> None:
        pod.assign("1.0.0", activate="1.0.0")
        await pod.until(lambda: pod.sink.last.state is PodState.LIVE)
        written, heard = len(pod.sink.statuses), len(pod.engine.heard)
        for _ in range(20):
            pod.tell()  # the watch says again what is there
            await asyncio.sleep(0.005)
        assert (len(pod.sink.statuses), len(pod.engine.heard)) == (written, heard)

    play(tmp_path, scene)
