"""A mirror under faults: whatever the server does, it ends up holding what is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from builders.fake_api import FakeAPI, running, until
from modelparams import errors
from modelparams_operator.shell.backoff import Backoff
from modelparams_operator.shell.ports import PODS, ObjectKey, Page
from modelparams_operator.shell.watch import Mirror

GONE, CUT = errors.APIGone("too old"), errors.APIUnavailable("cut")


def pod(name: str, value: str = "one") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"value": value}}


class Follower:
    """A mirror, what it told, and for how long it slept."""

    def __init__(self, api: FakeAPI) -> None:
        self.told: list[str] = []
        self.slept: list[float] = []
        self.mirror: Mirror[str] = Mirror(
            api,
            PODS,
            None,
            parse=lambda subject: subject["spec"]["value"],
            changed=lambda key, value: self.told.append(f"{key.name}={value}"),
            backoff=Backoff(first=1, last=8),
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    @property
    def values(self) -> dict[str, str]:
        return self.mirror.values("ns")


@contextlib.asynccontextmanager
async def following(api: FakeAPI) -> AsyncIterator[Follower]:
    follower = Follower(api)
    task = asyncio.create_task(follower.mirror.run())
    await until(lambda: api.watches, "the first watch")
    await asyncio.sleep(0)
    yield follower
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def scenario(test: Callable[[FakeAPI, Follower], Any], *, before: Callable[[FakeAPI], None] = lambda api: None) -> None:
    async def run() -> None:
        api = FakeAPI()
        api.put(PODS, pod("a"))
        before(api)
        async with following(api) as follower:
            await test(api, follower)

    running(run)


def test_it_holds_what_was_listed_and_what_changed_since() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        assert follower.values == {"a": "one"}
        api.put(PODS, pod("b"))
        api.put(PODS, pod("a", "two"))
        api.drop(PODS, ObjectKey("ns", "b"))
        await until(lambda: follower.values == {"a": "two"}, "all three changes")
        assert follower.told == ["a=one", "b=one", "a=two", "b=one"]

    scenario(test)


def test_a_deletion_that_was_missed_is_found_by_the_list_after_a_410() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        api.drop(PODS, ObjectKey("ns", "a"), is_told=False)
        api.put(PODS, pod("b"), is_told=False)
        api.cut(PODS, GONE)
        await until(lambda: follower.values == {"b": "one"}, "the new list")
        assert follower.told == ["a=one", "b=one", "a=one"]

    scenario(test)


def test_a_stream_that_was_cut_goes_on_from_where_it_was_without_a_list() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        seen = api.put(PODS, pod("b"))["metadata"]["resourceVersion"]
        await until(lambda: "b" in follower.values, "b")
        api.cut(PODS, CUT)
        await until(lambda: len(api.watches) == 2, "the second watch")
        assert api.watches[-1] == ("pods", seen)
        assert [verb for verb, *_ in api.calls].count("list") == 1

    scenario(test)


@pytest.mark.parametrize("error", [errors.APIUnavailable("an ERROR event of code 500"), GONE, errors.APIDenied("403")])
def test_it_never_gives_up_and_waits_longer_each_time(error: Exception) -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        api.faults["watch"] += [error] * 6
        api.faults["list"] += [error] * 2
        api.cut(PODS, error)
        await until(lambda: not api.faults["watch"] and len(api.watches) >= 8, "the watch after all faults")
        api.put(PODS, pod("z"))
        await until(lambda: "z" in follower.values, "news after the faults")
        assert len(follower.slept) >= 7
        assert all(pause <= 8 for pause in follower.slept)
        assert max(follower.slept) > 3 * follower.slept[0]

    scenario(test)


def test_a_server_that_ends_each_stream_at_once_does_not_make_it_spin() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        for count in range(2, 6):
            api.cut(PODS)
            await until(lambda wanted=count: len(api.watches) == wanted, f"watch {count}")
        assert len(follower.slept) == 4

    scenario(test)


def test_while_the_server_refuses_to_be_watched_it_says_since_when_it_is_blind() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        assert follower.mirror.blind_since is None
        api.faults["watch"] += [errors.APIDenied("no right")] * 3
        api.faults["list"] += [errors.APIDenied("no right")] * 3
        api.cut(PODS, CUT)
        await until(lambda: len(follower.slept) >= 2, "two tries")
        assert follower.mirror.blind_since is not None
        await until(lambda: follower.mirror.blind_since is None, "a server that takes the watch, and tells nothing")

    scenario(test)


def test_one_that_can_list_nothing_from_the_beginning_says_that_it_tried_and_is_blind() -> None:
    async def test(api: FakeAPI, _: Follower) -> None:
        api.faults["list"] += [errors.APIDenied("no right")] * 100
        late = Follower(api)
        task = asyncio.create_task(late.mirror.run())
        await late.mirror.tried.wait()
        assert (late.mirror.synced.is_set(), late.mirror.blind_since is None) == (False, False)
        api.faults["list"].clear()
        await late.mirror.synced.wait()
        await until(lambda: late.mirror.blind_since is None, "sight")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    scenario(test)


def test_a_bookmark_moves_the_place_to_go_on_from() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        api.last = 777
        api.bookmark(PODS)
        await asyncio.sleep(0)
        api.cut(PODS, CUT)
        await until(lambda: len(api.watches) == 2, "the second watch")
        assert api.watches[-1] == ("pods", "777")
        assert follower.values == {"a": "one"}

    scenario(test)


def test_what_a_write_gave_back_is_seen_at_once_and_older_news_does_not_undo_it() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        old = api.put(PODS, pod("a", "two"), is_told=False)
        new = api.put(PODS, pod("a", "three"), is_told=False)
        follower.mirror.note(new)
        assert follower.values == {"a": "three"}
        follower.mirror.note(old)
        assert follower.values == {"a": "three"}

    scenario(test)


def test_a_list_that_is_older_than_a_write_of_ours_does_not_undo_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        listed, answers, list_page = asyncio.Event(), asyncio.Event(), api.list_page

        async def slow(*args: Any, **named: Any) -> Page:
            page = await list_page(*args, **named)
            listed.set()
            await answers.wait()
            return page

        monkeypatch.setattr(api, "list_page", slow)
        api.cut(PODS, GONE)
        await listed.wait()
        follower.mirror.note(api.put(PODS, pod("b"), is_told=False))
        api.faults["watch"] += [CUT] * 3  # nor does the stream after it say anything of it yet
        answers.set()
        await until(lambda: follower.slept[1:], "the list to be taken")
        assert follower.values == {"a": "one", "b": "one"}

    scenario(test)


def test_a_server_that_was_put_back_to_a_backup_is_believed_however_low_its_numbers_are() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        api.put(PODS, pod("a", "two"))
        api.put(PODS, pod("b"))
        await until(lambda: follower.values == {"a": "two", "b": "one"}, "both")
        api.restore(PODS, pod("a"), last=50)
        api.cut(PODS, GONE)
        await until(lambda: follower.values == {"a": "one"}, "what the backup holds")

    scenario(test)


def test_a_backup_that_was_put_back_with_raised_numbers_is_believed_too() -> None:
    """As etcd's own pages say: `--bump-revision`. The objects in it have the numbers of their time."""

    async def test(api: FakeAPI, follower: Follower) -> None:
        known = api.at(PODS, "a")
        assert known is not None
        api.put(PODS, pod("a", "two"))
        await until(lambda: follower.values == {"a": "two"}, "the change")
        api.objects[PODS.plural][ObjectKey("ns", "a")] = known
        api.last += 1_000_000
        api.cut(PODS, GONE)
        await until(lambda: follower.values == {"a": "one"}, "what the backup holds")

    scenario(test)


def test_the_late_deletion_of_a_namesake_does_not_drop_its_successor() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        first = api.at(PODS, "a")
        assert first is not None
        follower.mirror.note(
            {**pod("a", "new"), "metadata": {**first["metadata"], "uid": "other", "resourceVersion": "900"}}
        )
        api.drop(PODS, ObjectKey("ns", "a"))
        api.put(PODS, pod("z"))
        await until(lambda: "z" in follower.values, "news after the deletion")
        assert follower.values["a"] == "new"

    scenario(test)


def test_an_object_that_cannot_be_parsed_is_left_out_and_the_rest_goes_on() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        follower.mirror._parse = lambda subject: _refusing(subject["spec"]["value"])
        api.put(PODS, pod("bad", "bad"))
        api.put(PODS, pod("good"))
        await until(lambda: "good" in follower.values, "the good one")
        assert "bad" not in follower.values

    scenario(test)


def _refusing(value: str) -> str:
    if value == "bad":
        raise errors.InvalidSpec("bad")
    return value


def test_pods_are_listed_few_at_a_time_since_each_may_be_large_and_all_pages_are_one_list() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        assert len(follower.values) == 1201
        assert [verb for verb, *_ in api.calls].count("list") == 76  # of 16

    scenario(test, before=lambda api: [api.put(PODS, pod(f"p{n}")) for n in range(1200)])  # type: ignore[arg-type, return-value]


def test_a_short_gap_does_not_move_the_time_since_when_it_watched_but_a_long_one_does() -> None:
    async def test(api: FakeAPI, follower: Follower) -> None:
        since = follower.mirror.watching_since
        assert since is not None
        api.cut(PODS, CUT)
        await until(lambda: len(api.watches) == 2, "the second watch")
        api.put(PODS, pod("b"))
        await until(lambda: "b" in follower.values, "b")
        assert follower.mirror.watching_since == since
        follower.mirror._lost_at = asyncio.get_running_loop().time() - 60
        api.put(PODS, pod("c"))
        await until(lambda: "c" in follower.values, "c")
        assert follower.mirror.watching_since is not None
        assert follower.mirror.watching_since > since

    scenario(test)
