"""Two operators and a Lease, by a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from builders.fake_api import FakeAPI, running, until
from modelparams import errors
from modelparams_operator.shell.lease import Lease, LeaseLost, Timing
from modelparams_operator.shell.ports import ASSIGNMENTS, JSON, LEASES, ObjectKey
from modelparams_operator.shell.run import highest_term

KEY = ObjectKey("ns", "operator")
AWAY = errors.APIUnavailable("away")


class World:
    """An API server and a clock that moves only when somebody sleeps or the test says so."""

    def __init__(self, highest_term: int = 0) -> None:
        self.api, self.time, self._highest = FakeAPI(), 1000.0, highest_term

    def lease(self, identity: str) -> Lease:
        return Lease(
            self.api,
            KEY,
            identity,
            timing=Timing(duration=15, renew_deadline=10, retry=2),
            highest_term=self.highest_term,
            clock=lambda: self.time,
            sleep=self.sleep,
        )

    async def highest_term(self) -> int:
        return self._highest

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)

    def answers_late(self, seconds: float) -> list[float]:
        """From now on a write is done at once and answered after so long; gives when each was asked for, as it ends."""
        asked: list[float] = []

        def late(write: Callable[..., Awaitable[JSON]]) -> Callable[..., Awaitable[JSON]]:
            async def written(*arguments: Any) -> JSON:
                began, answer = self.time, await write(*arguments)
                self.time += seconds
                asked.append(began)
                return answer

            return written

        self.api.create = late(self.api.create)  # type: ignore[method-assign, assignment]
        self.api.replace = late(self.api.replace)  # type: ignore[method-assign, assignment]
        return asked

    def holder(self) -> str:
        lease = self.api.at(LEASES, "operator")
        return lease["spec"]["holderIdentity"] if lease else "-"

    def term(self) -> int | None:
        lease = self.api.at(LEASES, "operator")
        return lease["spec"]["leaseTransitions"] if lease else None


def test_the_first_one_takes_it_and_terms_grow_with_each_taking() -> None:
    async def test() -> None:
        world = World()
        one, two = world.lease("one"), world.lease("two")
        assert await one.acquire() == 1
        assert one.is_held()
        await one.release()
        assert not one.is_held()
        assert await two.acquire() == 2
        assert world.holder() == "two"

    running(test)


def test_a_lease_that_is_held_is_waited_for_until_it_was_silent_for_its_duration() -> None:
    async def test() -> None:
        world = World()
        await world.lease("one").acquire()
        started = world.time
        assert await world.lease("two").acquire() == 2
        assert 15 < world.time - started <= 15 + 2 * 2

    running(test)


def test_one_that_starts_again_waits_for_nobody_and_begins_a_new_term() -> None:
    async def test() -> None:
        world = World()
        await world.lease("one").acquire()
        started = world.time
        assert await world.lease("one").acquire() == 2
        assert world.time == started

    running(test)


def test_who_waits_says_once_for_whom_and_then_that_it_has_taken_over() -> None:
    async def test() -> None:
        world = World()
        await world.lease("one").acquire()
        with capture_logs() as said:
            await world.lease("two").acquire()
        assert [(line["event"], line["lease"]) for line in said] == [
            ("Waiting for the lease", "operator"),
            ("Lease taken", "operator"),
        ]
        assert said[0]["holder"] == "one"
        assert said[0]["until"] == "it is released, or was not renewed for 15 s"

    running(test)


def test_a_holder_that_renews_keeps_it_from_others() -> None:
    async def test() -> None:
        world = World()
        one, two = world.lease("one"), world.lease("two")
        await one.acquire()
        keeping = asyncio.create_task(one.keep())
        waiting = asyncio.create_task(two.acquire())
        await until(lambda: world.time > 1200, "three minutes")
        assert (keeping.done(), waiting.done(), world.holder()) == (False, False, "one")
        for task in (keeping, waiting):
            task.cancel()
        await asyncio.gather(keeping, waiting, return_exceptions=True)

    running(test)


def test_a_holder_that_cannot_renew_stops_before_another_may_begin() -> None:
    async def test() -> None:
        world = World()
        lease = world.lease("one")
        await lease.acquire()
        taken = world.time
        world.api.faults["replace"] += [AWAY] * 50
        with pytest.raises(LeaseLost, match="not renewed"):
            await lease.keep()
        assert world.time - taken < 15
        assert not lease.is_held()

    running(test)


async def _made(world: World, lease: Lease) -> list[float]:
    asked = world.answers_late(4)
    await lease.acquire()
    return asked


async def _taken(world: World, lease: Lease) -> list[float]:
    world.api.put(LEASES, {"metadata": {"name": KEY.name}, "spec": {"holderIdentity": ""}})
    return await _made(world, lease)


async def _renewed(world: World, lease: Lease) -> list[float]:
    await lease.acquire()
    asked = world.answers_late(4)
    keeping = asyncio.create_task(lease.keep())
    await until(lambda: asked, "a renewal")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    return asked


@pytest.mark.parametrize("held", [_made, _taken, _renewed])
def test_a_lease_counts_from_its_request_however_late_the_answer_comes(
    held: Callable[[World, Lease], Awaitable[list[float]]],
) -> None:
    async def test() -> None:
        world = World()
        lease = world.lease("one")
        (asked,) = await held(world, lease)
        world.time = asked + 9.99
        assert lease.is_held()
        world.time = asked + 10
        assert not lease.is_held()

    running(test)


def test_a_request_that_hangs_does_not_keep_the_leadership_alive() -> None:
    async def test() -> None:
        world = World()
        lease = world.lease("one")
        await lease.acquire()
        world.time += 9.99  # so that the real time that is left is little

        async def hang(*_: object) -> None:
            await asyncio.sleep(3600)

        world.api.replace = hang  # type: ignore[method-assign, assignment]
        world.sleep = lambda seconds: _advance(world, seconds)  # type: ignore[method-assign]
        lease._sleep = lambda seconds: _advance(world, 0.005)
        keeping = asyncio.create_task(lease.keep())
        await asyncio.sleep(0.05)
        world.time += 1
        with pytest.raises(LeaseLost):
            await keeping

    running(test)


async def _advance(world: World, seconds: float) -> None:
    world.time += seconds
    await asyncio.sleep(0)


def test_a_holder_whose_lease_was_taken_knows_at_its_next_renewal() -> None:
    async def test() -> None:
        world = World()
        lease = world.lease("one")
        await lease.acquire()
        stolen = world.api.at(LEASES, "operator")
        assert stolen is not None
        world.api.put(LEASES, {**stolen, "spec": {**stolen["spec"], "holderIdentity": "two", "leaseTransitions": 2}})
        with pytest.raises(LeaseLost, match="taken by two"):
            await lease.keep()

    running(test)


@pytest.mark.parametrize(
    ("holder", "term"), [("one", 2), ("two", 1), ("", 1)], ids=["a-namesake", "no-count", "nobody"]
)
def test_it_is_ours_no_more_by_another_term_or_another_holder_alone(holder: str, term: int) -> None:
    async def test() -> None:
        world = World()
        lease = world.lease("one")
        await lease.acquire()
        ours = world.api.at(LEASES, "operator")
        assert ours is not None
        world.api.put(LEASES, {**ours, "spec": {**ours["spec"], "holderIdentity": holder, "leaseTransitions": term}})
        with pytest.raises(LeaseLost, match=f"taken by {holder or 'nobody'}"):
            await lease.keep()

    running(test)


def test_a_term_lasts_from_its_taking_to_the_next_whatever_is_renewed_or_released_between() -> None:
    async def test() -> None:
        world = World()
        lease, started = world.lease("one"), world.time
        await lease.acquire()
        keeping = asyncio.create_task(lease.keep())
        await until(lambda: world.time > started + 60, "a minute")
        assert (lease.term, world.term()) == (1, 1)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await lease.release()
        assert (world.holder(), world.term()) == ("", 1)
        assert await world.lease("two").acquire() == 2
        assert world.term() == 2

    running(test)


def test_a_renewal_whose_answer_was_lost_is_no_loss() -> None:
    async def test() -> None:
        world = World()
        lease = world.lease("one")
        await lease.acquire()
        ours = world.api.at(LEASES, "operator")
        assert ours is not None
        world.api.put(LEASES, ours)  # it arrived: another resourceVersion, still ours
        keeping = asyncio.create_task(lease.keep())
        await until(lambda: world.time > 1060, "a minute")
        assert not keeping.done()
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    running(test)


def test_a_renewal_whose_answer_was_lost_lengthens_nothing() -> None:
    async def test() -> None:
        world = World()
        lease, taken = world.lease("one"), world.time
        await lease.acquire()
        ours = world.api.at(LEASES, "operator")
        assert ours is not None
        world.api.put(LEASES, ours)
        keeping = asyncio.create_task(lease.keep())
        await until(lambda: world.time >= taken + 4, "what follows the renewal that met its own")
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        world.time = taken + 9.99
        assert lease.is_held()
        world.time = taken + 10
        assert not lease.is_held()

    running(test)


def test_a_lease_that_somebody_deleted_goes_on_above_every_order() -> None:
    async def test() -> None:
        assert await World(highest_term=41).lease("one").acquire() == 42

    running(test)


def test_a_lease_from_a_backup_goes_on_above_every_order() -> None:
    async def test() -> None:
        world = World(highest_term=41)
        world.api.put(LEASES, {"metadata": {"name": "operator"}, "spec": {"holderIdentity": "", "leaseTransitions": 3}})
        assert await world.lease("one").acquire() == 42
        assert world.term() == 42

    running(test)


@pytest.mark.parametrize(
    ("namespaces", "want"),
    [
        pytest.param((), 41, id="whole-cluster"),
        pytest.param(("ns",), 7, id="one-namespace"),
        pytest.param(("empty",), 0, id="no-orders"),
    ],
)
def test_the_highest_term_is_that_of_an_order_or_of_a_pod_s_answer(namespaces: tuple[str, ...], want: int) -> None:
    async def test() -> None:
        api = FakeAPI()
        api.put(ASSIGNMENTS, {"metadata": {"name": "a"}, "spec": {"term": 5}, "status": {"term": 7}})
        api.put(ASSIGNMENTS, {"metadata": {"name": "b"}, "status": {"term": 6}})
        api.put(ASSIGNMENTS, {"metadata": {"name": "c", "namespace": "other"}, "spec": {"term": 41}})
        assert await highest_term(api, namespaces) == want

    running(test)


def test_a_namespace_whose_role_is_gone_keeps_nobody_from_leading_in_the_others() -> None:
    async def test() -> None:
        api = FakeAPI()
        api.put(ASSIGNMENTS, {"metadata": {"name": "c", "namespace": "other"}, "spec": {"term": 41}})
        api.faults["list"] += [errors.APIDenied("no right in gone")]
        assert await highest_term(api, ("gone", "other")) == 41
        api.faults["list"] += [errors.APIDenied("no right at all")]
        with pytest.raises(errors.APIDenied):
            await highest_term(api, ())

    running(test)


@pytest.mark.parametrize(("answered", "want"), [(2**30, 2**30), (2**30 + 1, 3), (2**62, 3)])
def test_no_pod_s_answer_uses_up_the_terms_that_a_lease_has(answered: int, want: int) -> None:
    async def test() -> None:
        api = FakeAPI()
        api.put(ASSIGNMENTS, {"metadata": {"name": "a"}, "spec": {"term": 3}, "status": {"term": answered}})
        assert await highest_term(api, ()) == want

    running(test)


def test_a_lease_that_another_takes_while_the_highest_term_is_looked_up_stays_theirs() -> None:
    async def test() -> None:
        world = World()
        free = {"metadata": {"name": KEY.name}, "spec": {"holderIdentity": "", "leaseTransitions": 3}}
        world.api.put(LEASES, free)
        one = world.lease("one")

        async def meanwhile() -> int:
            one._highest_term = world.highest_term
            world.api.put(LEASES, {**free, "spec": {"holderIdentity": "two", "leaseTransitions": 4}})
            return 0

        one._highest_term = meanwhile
        waiting = asyncio.create_task(one.acquire())
        await until(lambda: world.time > 1008, "some tries")
        assert (world.holder(), world.term(), one.is_held()) == ("two", 4, False)
        waiting.cancel()

    running(test)


def test_two_that_reach_for_it_at_once_do_not_both_get_it() -> None:
    async def test() -> None:
        world = World()
        waiting = [asyncio.create_task(world.lease(name).acquire()) for name in ("one", "two")]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(pending)) == (1, 1)
        pending.pop().cancel()

    running(test)


HIGHEST = 2**31 - 1
"""What the API server lets a Lease count to."""


@pytest.mark.parametrize(
    ("in_lease", "in_order", "whose"),
    [
        pytest.param(HIGHEST, 0, "it has the term 2147483647", id="in-the-lease"),
        pytest.param(None, 2**40, "an order has the term 1099511627776", id="in-an-order"),
    ],
)
def test_a_term_that_nothing_follows_is_told_with_its_cure_and_the_cure_works(
    in_lease: int | None, in_order: int, whose: str
) -> None:
    async def test() -> None:
        world = World(highest_term=in_order)
        if in_lease is not None:
            world.api.put(LEASES, {"metadata": {"name": KEY.name}, "spec": {"leaseTransitions": in_lease}})
        started = world.time
        with pytest.raises(errors.APIInvalid, match=f"the Lease ns/operator cannot be taken: {whose}") as told:
            await world.lease("one")._try_to_take()
        assert "kubectl delete mpa --all --all-namespaces" in str(told.value)
        waiting = asyncio.create_task(world.lease("one").acquire())
        await until(lambda: world.time > started + 60, "a minute")
        assert not waiting.done()
        assert [call for call in world.api.writes() if call[1] == LEASES.kind] == []
        world._highest = 0
        if in_lease is not None:
            world.api.drop(LEASES, KEY)
        assert await waiting == 1

    running(test)


def test_the_last_term_but_one_is_followed_by_the_last() -> None:
    async def test() -> None:
        assert await World(highest_term=HIGHEST - 1).lease("one").acquire() == HIGHEST

    running(test)


def test_an_api_server_that_is_away_is_waited_for() -> None:
    async def test() -> None:
        world = World()
        world.api.faults["get"] += [AWAY] * 20
        assert await world.lease("one").acquire() == 1

    running(test)
