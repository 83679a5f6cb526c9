"""The name "current" between two residents, with requests running."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from builders.arenas import SAMPLES, tiny
from builders.engines import put_live, stage, swapper, until
from modelparams.digest import Digest
from modelparams.errors import EngineUnavailable, IllegalTransition, SlotBusy, StaleTerm, SwapFailed
from modelparams.protocol import Commit, Discard, Rollback, Slot, SlotPhase
from modelparams_serving.engine.arena_files import ArenaFile
from modelparams_serving.engine.background import Background
from modelparams_serving.engine.generate import GenerationFailed, Prompt, TextGenerator
from modelparams_serving.engine.residents import ResidentVersion
from modelparams_serving.engine.swap import NoVersion, Swapper
from traffic.rescore import TEAR_NATS, Rescorer

pytestmark = pytest.mark.model
ONE, TWO, THREE = tiny("1.0.0"), tiny("1.1.0"), tiny("1.2.0")
PROMPT = [9, 8, 7]
TURNED = {"1.0.0": "1.1.0", "1.1.0": "1.0.0"}


def within(directory: Path, scene: Callable[[Swapper], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        async with swapper(directory) as made:
            return await scene(made)

    return asyncio.run(whole())


async def answer(version: ResidentVersion, count: int = 6) -> list[int]:
    assert isinstance(version.service, TextGenerator)
    return [token async for new in version.service.tokens(Prompt(PROMPT, count), every=True) for token in new.ids]


async def ask(made: Swapper, count: int = 6) -> tuple[str, list[int]]:
    with made.lease() as version:
        return str(version.identity.version), await answer(version, count)


def test_without_a_version_no_request_starts(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await stage(made, ONE)
        with pytest.raises(NoVersion), made.lease():
            pass

    within(tmp_path, scene)


def test_a_running_request_ends_on_its_version_while_new_ones_begin_on_the_new(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        _, alone = await ask(made, 40)
        await stage(made, TWO)
        with made.lease() as held:
            assert isinstance(held.service, TextGenerator)
            async with aclosing(held.service.tokens(Prompt(PROMPT, 40), every=True)) as tokens:
                got = list((await anext(tokens)).ids)
                state = made.commit(TWO.commit())
                assert state.slots[Slot.A].phase is SlotPhase.DRAINING
                assert state.slots[Slot.A].requests == 1
                assert (await ask(made))[0] == "1.1.0"
                got += [token async for new in tokens for token in new.ids]
            assert got == alone
        assert made.state().slots[Slot.A].phase is SlotPhase.RESIDENT

    within(tmp_path, scene)


def test_no_answer_of_many_across_many_swaps_mixes_versions(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> list[tuple[str, list[int]]]:
        await put_live(made, ONE)
        await put_live(made, TWO)
        asked = []
        for turn in range(40):
            asked.append(asyncio.create_task(ask(made, 20)))
            await asyncio.sleep(0)
            made.commit((ONE, TWO)[turn % 2].commit())
        return list(await asyncio.gather(*asked))

    answers = within(tmp_path, scene)
    # Batching may flip near ties, so each answer is rescored by the version that it names, and by the other one.
    rescorer = Rescorer({number: SAMPLES / f"v{number}" for number in ("1.0.0", "1.1.0")})
    gaps = {n: [rescorer.worst_gap(n, tuple(PROMPT), tuple(ids)) for by, ids in answers if by == n] for n in TURNED}
    wrong = [rescorer.worst_gap(TURNED[by], tuple(PROMPT), tuple(ids)) for by, ids in answers]
    assert all(len(gaps[n]) >= 10 and max(gaps[n]) <= TEAR_NATS for n in TURNED)
    assert min(wrong) > TEAR_NATS


def test_a_commit_reports_its_pause_and_a_repeated_one_changes_nothing(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        first = await put_live(made, ONE)
        again = made.commit(ONE.commit())
        assert first.slots == again.slots
        assert first.pause_microseconds is not None
        assert first.pause_microseconds > 0

    within(tmp_path, scene)


def test_rollback_is_the_same_move_back_and_can_be_repeated(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        with pytest.raises(IllegalTransition, match="no previous"):
            made.rollback(Rollback())
        await put_live(made, ONE)
        await put_live(made, TWO)
        assert made.rollback(Rollback()).current == ONE.resident
        assert made.rollback(Rollback()).current == TWO.resident

    within(tmp_path, scene)


def test_a_draining_version_can_be_made_current_again_at_once(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        await stage(made, TWO)
        with made.lease():
            made.commit(TWO.commit())
            state = made.rollback(Rollback())
            assert [slot.phase for slot in state.slots.values()] == [SlotPhase.CURRENT, SlotPhase.RESIDENT]

    within(tmp_path, scene)


def test_an_arena_is_not_refilled_while_a_request_runs_on_it(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        await stage(made, TWO)
        with made.lease():
            made.commit(TWO.commit())
            with pytest.raises(SlotBusy):
                await made.reserve(THREE.reserve())
            with pytest.raises(SlotBusy):
                await made.discard(Discard(manifest_digest=ONE.digest))
        assert (await made.reserve(THREE.reserve())).slot is Slot.A

    within(tmp_path, scene)


def test_a_slot_that_is_reserved_for_one_version_is_not_prepared_as_another(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        reserved = await made.reserve(ONE.reserve())
        TWO.write(tmp_path / Slot.A.file_name)  # as a staging that was given up and had not ended yet
        with pytest.raises(IllegalTransition, match="reserved for another version"):
            await made.prepare(TWO.prepare(Slot.A))
        assert made.state(slot=Slot.A) == reserved
        ONE.write(tmp_path / Slot.A.file_name)
        assert (await made.prepare(ONE.prepare(Slot.A))).slots[Slot.A].resident == ONE.resident

    within(tmp_path, scene)


def test_what_is_current_cannot_be_discarded_and_what_is_unknown_is_discarded_already(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        with pytest.raises(IllegalTransition):
            await made.discard(Discard(manifest_digest=ONE.digest))
        before = made.state()
        assert await made.discard(Discard(manifest_digest=Digest.of(b"unknown"))) == before
        await stage(made, TWO)
        assert (await made.discard(Discard(manifest_digest=TWO.digest))).slots[Slot.B].phase is SlotPhase.EMPTY

    within(tmp_path, scene)


def test_an_older_term_is_refused_and_none_is_never_old(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        await stage(made, TWO)
        assert made.commit(TWO.commit(term=7)).term == 7
        with pytest.raises(StaleTerm):
            made.commit(ONE.commit(term=6))
        assert made.state().current == TWO.resident
        assert made.rollback(Rollback()).term == 7

    within(tmp_path, scene)


def test_a_version_that_is_not_resident_cannot_be_committed(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        with pytest.raises(IllegalTransition, match="prepare it first"):
            made.commit(Commit(manifest_digest=TWO.digest))

    within(tmp_path, scene)


def test_a_restarted_engine_comes_back_from_what_is_in_the_arena(tmp_path: Path) -> None:
    async def first(made: Swapper) -> tuple[str, list[int]]:
        await put_live(made, ONE)
        return await ask(made)

    async def second(made: Swapper) -> tuple[str, list[int]]:
        state = made.state()
        assert [slot.phase for slot in state.slots.values()] == [SlotPhase.EMPTY, SlotPhase.EMPTY]
        assert state.slots[Slot.A].capacity >= ONE.size
        await made.prepare(ONE.prepare(Slot.A))
        made.commit(ONE.commit())
        return await ask(made)

    assert within(tmp_path, first) == within(tmp_path, second)


def test_a_dead_thread_makes_the_engine_unhealthy_and_fails_its_requests(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        await stage(made, TWO)
        assert made.current is not None
        service = made.current.service
        assert isinstance(service, TextGenerator)
        service._manager.model.forward = None  # the next step raises inside the thread
        with pytest.raises(GenerationFailed):
            await ask(made)
        assert not made.healthy
        with pytest.raises(GenerationFailed):
            await ask(made)
        made.commit(TWO.commit())
        assert made.healthy
        assert (await ask(made))[0] == "1.1.0"
        with pytest.raises(SwapFailed):
            made.rollback(Rollback())
        assert made.state().current == TWO.resident

    within(tmp_path, scene)


def test_a_version_at_rest_whose_thread_died_is_no_longer_resident_and_can_be_prepared_again(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        alone = await ask(made)
        await stage(made, TWO)
        assert made.current is not None
        made.current.service._manager.model.forward = None  # type: ignore[union-attr]
        with pytest.raises(GenerationFailed):
            await ask(made)
        made.commit(TWO.commit())
        state = made.state()
        assert state.slots[Slot.A].phase is SlotPhase.EMPTY
        assert state.slots[Slot.A].resident is None
        assert (await made.prepare(ONE.prepare(Slot.A))).slots[Slot.A].phase is SlotPhase.RESIDENT
        made.rollback(Rollback())
        assert await ask(made) == alone

    within(tmp_path, scene)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_without_a_word_leaves_no_request_waiting(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        assert made.current is not None
        made.current.service._manager.batch_processor.scheduler = None  # type: ignore[union-attr]
        with pytest.raises(GenerationFailed):
            await ask(made)

    within(tmp_path, scene)


def test_a_request_that_is_left_early_ends_in_the_manager_too(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        assert made.current is not None
        service = made.current.service
        assert isinstance(service, TextGenerator)
        async with aclosing(service.tokens(Prompt(PROMPT, 200), every=True)) as tokens:
            await anext(tokens)
        manager = service._manager
        await until(lambda: not manager.batch_processor.has_pending_requests())
        assert not manager.output_router.result_handlers

    within(tmp_path, scene)


def test_a_request_that_was_sent_back_for_want_of_room_goes_on_when_the_one_that_had_it_is_left(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, ONE)
        assert made.current is not None
        service = made.current.service
        assert isinstance(service, TextGenerator)
        scheduler, service._numbers = service._manager.batch_processor.scheduler, itertools.count(100)

        async def whole(prompt: range) -> int:
            return sum([len(new.ids) async for new in service.tokens(Prompt(prompt, 200), every=True)])

        asked = [asyncio.create_task(whole(prompt)) for prompt in (range(1, 21), range(21, 41))]
        await until(lambda: scheduler.block_new_requests)  # the cache holds 256 tokens, and both would have 220
        runs = [task for number, task in enumerate(asked, 100) if f"r{number}" in scheduler.active_requests]
        assert len(runs) == 1
        runs[0].cancel()
        async with asyncio.timeout(30):
            assert [await task for task in asked if task not in runs] == [200]

    within(tmp_path, scene)


def test_an_engine_that_leaves_waits_for_no_arena_that_nobody_will_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(made: Swapper) -> None:
        loop, reached, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def endless(_arena: ArenaFile, _size: int) -> None:
            loop.call_soon_threadsafe(reached.set)
            goes_on.wait(60)

        monkeypatch.setattr(ArenaFile, "ensure", endless)
        reserving = asyncio.create_task(made.reserve(ONE.reserve()))
        await reached.wait()
        try:
            async with asyncio.timeout(30):
                await made.close()
        finally:
            goes_on.set()
        await reserving

    within(tmp_path, scene)


@pytest.mark.parametrize("moment", ["it is loaded", "it is warmed up"])
def test_an_engine_that_leaves_while_a_version_is_built_leaves_no_thread_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    async def scene(made: Swapper) -> None:
        loop, reached, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        run, warm_up = Background.run, ResidentVersion.warm_up

        async def held(background: Background, work: Callable[[], Any]) -> Any:
            def late() -> Any:
                loop.call_soon_threadsafe(reached.set)
                goes_on.wait(60)
                return work()

            return await run(background, late)

        async def endless(version: ResidentVersion, beside: Any) -> None:
            await warm_up(version, beside)
            reached.set()
            await asyncio.Event().wait()

        await made.reserve(ONE.reserve())
        ONE.write(made._places[Slot.A].arena.path)
        if moment == "it is loaded":
            monkeypatch.setattr(Background, "run", held)
        monkeypatch.setattr(ResidentVersion, "warm_up", endless)
        staging = asyncio.create_task(made.prepare(ONE.prepare(Slot.A)))
        await reached.wait()
        try:
            async with asyncio.timeout(30):
                await made.close()  # and waits for no load, which nobody uses
        finally:
            goes_on.set()
        with pytest.raises(EngineUnavailable, match="leaving"):
            await staging
        with pytest.raises(EngineUnavailable, match="leaving"):
            await made.reserve(TWO.reserve())

    within(tmp_path, scene)
    assert not [thread.name for thread in threading.enumerate() if "generation" in thread.name]
