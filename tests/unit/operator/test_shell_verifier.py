"""Checks beside the loops: few at once, each tried again by itself, none twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from builders.fake_api import running, until
from builders.rollouts import facts, version_spec
from modelparams import errors
from modelparams.api.release import S3Source, Source
from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.reasons import Reason
from modelparams_operator.shell.ports import ModelKey
from modelparams_operator.shell.verifier import Verifier, subject_of

KEY = ModelKey("ns", "chat")


class Store:
    """Answers checks as the test says, by version; counts what runs at once."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Exception]] = {}
        self.asked: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        self.running = self.most = 0

    async def check(self, namespace: str, spec: VersionSpec, stopped: Callable[[], bool]) -> VerifiedFacts:
        version = str(spec.version)
        self.asked.append(version)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if version in self.held:
                await self.held[version].wait()
            await asyncio.sleep(0)
            if stopped():
                raise asyncio.CancelledError
            if self.answers.get(version):
                raise self.answers[version].pop(0)
            return facts(version)
        finally:
            self.running -= 1


class Bench:
    """A verifier with its store, and what it told."""

    def __init__(self, at_once: int = 2) -> None:
        self.store, self.news, self.slept = Store(), list[ModelKey](), list[float]()
        self.verifier = Verifier(self.store.check, at_once, self.news.append, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def ask(self, version: str, *, namespace: str = "ns", uid: str = "uid", **fields: object) -> None:
        spec = version_spec(version, **fields)  # type: ignore[arg-type]
        self.verifier.request(namespace, f"chat-{version}", uid, spec)

    def found(self, version: str, *, uid: str = "uid", **fields: object) -> tuple[VerifiedFacts | None, Reason | None]:
        spec = version_spec(version, **fields)  # type: ignore[arg-type]
        found, failure = self.verifier.outcome("ns", f"chat-{version}", uid, spec)
        return found, failure.reason if failure else None


def test_asking_again_and_again_checks_once_and_wakes_the_model_once() -> None:
    async def test() -> None:
        bench = Bench()
        for _ in range(3):
            bench.ask("1.0.0")
        assert bench.found("1.0.0") == (None, None)
        await until(lambda: bench.news, "news")
        bench.ask("1.0.0")
        assert bench.found("1.0.0") == (facts("1.0.0"), None)
        assert (bench.store.asked, bench.news) == (["1.0.0"], [KEY])

    running(test)


def test_a_store_that_is_away_is_tried_again_with_growing_waits_until_it_answers() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.answers["1.0.0"] = [errors.StoreUnavailable("away")] * 9
        bench.ask("1.0.0")
        await until(lambda: bench.found("1.0.0") == (None, Reason.SOURCE_UNAVAILABLE), "the failure")
        await until(lambda: bench.found("1.0.0") == (facts("1.0.0"), None), "success")
        assert len(bench.slept) == 9
        assert 100 < bench.slept[-1] <= 300

    running(test)


def test_bytes_that_are_not_what_was_promised_are_never_tried_again() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.answers["1.0.0"] = [errors.BlobDigestMismatch("blob 3")]
        bench.ask("1.0.0")
        await until(lambda: bench.news, "news")
        bench.ask("1.0.0")
        await asyncio.sleep(0.01)
        assert bench.found("1.0.0") == (None, Reason.BLOB_DIGEST_MISMATCH)
        assert (bench.store.asked, bench.slept) == (["1.0.0"], [])

    running(test)


def test_another_digest_under_the_same_name_is_checked_anew() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.answers["1.0.0"] = [errors.BlobDigestMismatch("blob 3")]
        bench.ask("1.0.0")
        await until(lambda: bench.news, "news")
        bench.ask("1.0.0", content="other bytes")
        await until(lambda: len(bench.news) == 2, "more news")
        assert bench.found("1.0.0", content="other bytes")[0] is not None
        assert bench.found("1.0.0") == (None, Reason.BLOB_DIGEST_MISMATCH)

    running(test)


def test_an_object_that_was_made_again_is_checked_anew_though_nobody_saw_that_it_was_gone() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.answers["1.0.0"] = [errors.BlobDigestMismatch("blob 3")]
        bench.ask("1.0.0", uid="first")
        await until(lambda: bench.news, "news")
        assert bench.found("1.0.0", uid="second") == (None, None)
        bench.ask("1.0.0", uid="second")
        await until(lambda: len(bench.news) == 2, "more news")
        assert bench.found("1.0.0", uid="second")[0] is not None

    running(test)


def test_the_same_digest_in_another_place_is_checked_anew() -> None:
    async def test() -> None:
        bench, spec = Bench(), version_spec("1.0.0")
        bench.store.answers["1.0.0"] = [errors.BlobDigestMismatch("blob 3")]
        bench.ask("1.0.0")
        await until(lambda: bench.news, "news")
        moved = spec.model_copy(update={"source": Source(s3=S3Source(bucket="another"))})
        bench.verifier.request("ns", "chat-1.0.0", "uid", moved)
        await until(lambda: bench.verifier.outcome("ns", "chat-1.0.0", "uid", moved)[0], "the check in the other place")
        assert bench.store.asked == ["1.0.0", "1.0.0"]

    running(test)


def test_a_version_that_waits_for_its_retry_takes_no_ones_place() -> None:
    async def test() -> None:
        bench = Bench(at_once=1)
        bench.store.answers["1.0.0"] = [errors.StoreUnavailable("away")]
        forever = asyncio.Event()
        bench.verifier.sleep = lambda seconds: forever.wait()  # type: ignore[assignment, return-value]
        bench.ask("1.0.0")
        await until(lambda: bench.news, "the failure")
        bench.ask("1.1.0")
        await until(lambda: bench.found("1.1.0")[0], "the other version")
        await bench.verifier.stop()

    running(test)


def test_no_more_than_the_given_number_run_at_once() -> None:
    async def test() -> None:
        bench = Bench(at_once=2)
        for minor in range(6):
            bench.ask(f"1.{minor}.0", namespace=f"ns-{minor % 3}")
        await until(lambda: len(bench.news) == 6, "all six")
        assert bench.store.most == 2

    running(test)


def test_stores_of_one_namespace_that_never_end_hold_up_no_other_namespace() -> None:
    async def test() -> None:
        bench = Bench(at_once=2)
        for minor in range(4):
            bench.store.held[f"1.{minor}.0"] = asyncio.Event()
            bench.ask(f"1.{minor}.0")
        await until(lambda: bench.store.running, "the first")
        bench.ask("2.0.0", namespace="other")
        await until(lambda: bench.news == [ModelKey("other", "chat")], "the other's")
        await bench.verifier.stop()

    running(test)


def test_a_check_of_an_object_that_is_gone_is_stopped_and_forgotten() -> None:
    async def test() -> None:
        bench = Bench(at_once=1)
        bench.store.held["1.0.0"] = asyncio.Event()
        bench.ask("1.0.0")
        bench.ask("1.1.0")
        await until(lambda: bench.store.asked, "the start")
        bench.verifier.keep_only(KEY, {subject_of("ns", "chat-1.1.0", "uid", version_spec("1.1.0"))})
        bench.store.held["1.0.0"].set()
        await until(lambda: bench.found("1.1.0")[0], "the other one")
        assert bench.found("1.0.0") == (None, None)
        assert bench.news == [KEY], "of the one that is gone there are none"

    running(test)


def test_nobody_reads_for_an_object_that_went_while_it_waited_for_its_place() -> None:
    async def test() -> None:
        bench = Bench(at_once=1)
        bench.store.held["1.0.0"] = asyncio.Event()
        for version in ("1.0.0", "1.1.0"):
            bench.ask(version)
        await until(lambda: bench.store.asked, "the start")
        bench.verifier.keep_only(KEY, {subject_of("ns", "chat-1.0.0", "uid", version_spec("1.0.0"))})
        bench.store.held["1.0.0"].set()
        bench.ask("1.2.0")
        await until(lambda: bench.found("1.2.0")[0], "the one after it")
        assert bench.store.asked == ["1.0.0", "1.2.0"]

    running(test)


def test_what_a_stopped_check_finds_all_the_same_is_told_to_nobody() -> None:
    async def test() -> None:
        bench, asked, answer, ended = Bench(), asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def check(namespace: str, spec: VersionSpec, stopped: Callable[[], bool]) -> VerifiedFacts:
            asked.set()
            await answer.wait()
            ended.set()
            return facts(str(spec.version))

        bench.verifier.check = check
        bench.ask("1.0.0")
        await asked.wait()
        bench.verifier.keep_only(KEY, set())
        answer.set()
        await ended.wait()
        bench.ask("1.1.0")
        await until(lambda: bench.found("1.1.0")[0], "the next one")
        assert bench.news == [KEY]

    running(test)


def test_who_makes_and_deletes_versions_of_a_slow_store_takes_no_more_places_than_one_who_keeps_them() -> None:
    async def test() -> None:
        bench = Bench(at_once=2)
        for minor in range(3):
            bench.store.held[f"1.{minor}.0"] = asyncio.Event()
            bench.ask(f"1.{minor}.0")
            await until(lambda: bench.store.running, "the first")
            bench.verifier.keep_only(KEY, set())
        bench.ask("2.0.0", namespace="other")
        await until(lambda: ModelKey("other", "chat") in bench.news, "the other's")
        assert bench.store.asked == ["1.0.0", "2.0.0"]
        bench.ask("3.0.0")
        bench.store.held["1.0.0"].set()
        await until(lambda: bench.found("3.0.0")[0], "its own, once the slow one has ended")

    running(test)


def test_stopping_ends_all_at_once() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.held["1.0.0"] = asyncio.Event()
        bench.ask("1.0.0")
        await until(lambda: bench.store.asked, "the start")
        await bench.verifier.stop()
        assert bench.store.running == 0

    running(test)


def test_an_unforeseen_error_shows_its_kind_and_not_its_text() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.answers["1.0.0"] = [RuntimeError("secret text")]
        bench.ask("1.0.0")
        await until(lambda: bench.news, "news")
        _, failure = bench.verifier.outcome("ns", "chat-1.0.0", "uid", version_spec("1.0.0"))
        assert failure is not None
        assert "secret" not in failure.message
        await bench.verifier.stop()

    running(test)


def test_another_trust_policy_opens_refusals_for_signatures_and_nothing_else() -> None:
    async def test() -> None:
        bench = Bench()
        bench.store.answers["1.0.0"] = [errors.SignerUnknown("nobody known")]
        bench.store.answers["1.1.0"] = [errors.BlobDigestMismatch("blob 3")] * 2
        bench.store.held["1.3.0"] = asyncio.Event()
        versions = ("1.0.0", "1.1.0", "1.2.0", "1.3.0")
        for version in versions:
            bench.ask(version)
        await until(lambda: len(bench.news) == 3 and "1.3.0" in bench.store.asked, "all but the one that is held")
        bench.verifier.judge_anew()
        bench.store.held["1.3.0"].set()
        for version in versions:
            bench.ask(version)
        await until(lambda: bench.found("1.0.0")[0] and bench.found("1.3.0")[0], "the new checks")
        assert bench.found("1.1.0") == (None, Reason.BLOB_DIGEST_MISMATCH)
        assert [bench.store.asked.count(version) for version in versions] == [2, 1, 1, 2]

    running(test)
