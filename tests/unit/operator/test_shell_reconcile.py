"""One pass over one model against an API server in memory: what is written, in which order, and what is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from builders.fake_api import FakeAPI, running, until
from builders.rollouts import digest, facts, failed, pod, revision, status, version_spec
from modelparams import errors
from modelparams.api import MODEL_LABEL
from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.reasons import Reason
from modelparams_operator.shell import metrics, reconcile, views
from modelparams_operator.shell.events import EventRecorder
from modelparams_operator.shell.lease import Lease, LeaseLost, Timing
from modelparams_operator.shell.ports import (
    ASSIGNMENTS,
    EVENTS,
    JSON,
    LEASES,
    PODS,
    ROLLOUTS,
    VERSIONS,
    ModelKey,
    ObjectKey,
    Resource,
)
from modelparams_operator.shell.reconcile import Reconciler
from modelparams_operator.shell.record import Recorder
from modelparams_operator.shell.verifier import Verifier
from modelparams_operator.shell.watch import Mirror, Mirrors

KEY = ModelKey("ns", "chat")
DEFAULT = "chat-default"


class World:
    """A reconciler in a world of its own: pods answer nothing, checks answer at once."""

    def __init__(self) -> None:
        self.api = FakeAPI()
        self.pods = Mirror(self.api, PODS, None, parse=views.pod, changed=lambda *_: None)
        self.orders = Mirror(self.api, ASSIGNMENTS, None, parse=views.assignment, changed=lambda *_: None)
        self.lease = Lease(self.api, ObjectKey("ns", "lease"), "me", timing=Timing(), highest_term=_none)
        self.verifier = Verifier(self._check, 2, lambda _: None)
        self.refused: dict[str, Exception] = {}
        events, record = EventRecorder(self.api, "me"), Recorder(self.api, self.lease.is_held)
        mirrors = Mirrors({None: self.pods}), Mirrors({None: self.orders})
        self.reconciler = Reconciler(self.api, *mirrors, self.verifier, record, events, self.lease)

    async def _check(self, _namespace: str, spec: VersionSpec, _stopped: Callable[[], bool]) -> VerifiedFacts:
        if error := self.refused.get(str(spec.version)):
            raise error
        return facts(str(spec.version))

    async def start(self) -> None:
        await self.lease.acquire()
        for mirror in (self.pods, self.orders):
            await mirror._list()

    async def pass_(self, *, is_quiet: bool = False) -> float | None:
        return await self.reconciler.reconcile(KEY, is_quiet)

    async def settle(self) -> None:
        """Passes until one writes nothing."""
        for _ in range(20):
            before = len(self.api.writes())
            await self.pass_()
            await until(lambda: all(w.task.done() for w in self.verifier._work.values()), "the checks")
            if len(self.api.writes()) == before:
                return
        raise AssertionError("it never came to rest")

    def version(self, version: str) -> None:
        spec = version_spec(version).wire()
        self.api.put(VERSIONS, {"metadata": {"name": f"chat-{version}", "generation": 1}, "spec": spec})

    def rollout(self, name: str, *, spec: JSON | None = None, **metadata: Any) -> None:
        whole = {"modelName": "chat", "versionPolicy": {"type": "HighestSemver", "range": ">=1.0.0"}, **(spec or {})}
        self.api.put(ROLLOUTS, {"metadata": {"name": name, "generation": 1, **metadata}, "spec": whole})

    def pod(self, name: str) -> None:
        made = self.api.put(PODS, {"metadata": {"name": name, "labels": {MODEL_LABEL: "chat"}}, "status": {}})
        self.pods.note(made)

    def events(self, reason: str) -> list[JSON]:
        return [event for event in self.api.objects[EVENTS.plural].values() if event["reason"] == reason]

    def serving_pod(self, name: str, serving: str, beside: str) -> None:
        """A pod of `mine` that is ready, serves one version as ordered and holds another."""
        uid, answered = f"uid-{name}", {"podUID": f"uid-{name}", "observedGeneration": 1}
        known = pod(name, serving, staged=[beside], uid=uid, rollout="mine")
        assert known.order is not None
        assert known.answer is not None
        conditions = [{"type": "Ready", "status": "True"}]
        there = {"metadata": {"name": name, "uid": uid, "labels": {MODEL_LABEL: "chat"}}}
        self.pods.note(self.api.put(PODS, {**there, "status": {"conditions": conditions}}))
        order = {**there, "spec": known.order.wire(), "status": {**known.answer.wire(), **answered}}
        order["metadata"] = {"name": name, "labels": {MODEL_LABEL: "chat"}}
        self.orders.note(self.api.put(ASSIGNMENTS, order))

    def ordered_to(self, version: str) -> list[str]:
        """The pods that are ordered to serve it, by name."""
        orders = self.api.objects[ASSIGNMENTS.plural].values()
        return sorted(o["metadata"]["name"] for o in orders if o["spec"].get("activate") == str(digest(version)))

    def conditions(self, resource: Any, name: str) -> dict[str, str]:
        status: JSON = (self.api.at(resource, name) or {}).get("status") or {}
        return {c["type"]: f"{c['status']}/{c['reason']}" for c in status.get("conditions", [])}


async def _none() -> int:
    return 0


def scenario(test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World()
        await world.start()
        await test(world)

    running(run)


def test_a_first_version_gets_a_rollout_a_check_and_an_order_and_then_all_is_quiet() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        assert world.conditions(VERSIONS, "chat-1.0.0")["Verified"] == "True/Verified"
        order = world.api.at(ASSIGNMENTS, "web-0")
        assert order is not None
        assert order["spec"]["rolloutName"] == DEFAULT
        assert order["spec"]["term"] == world.lease.term == 1
        assert order["metadata"]["labels"] == {MODEL_LABEL: "chat"}

    scenario(test)


def test_a_decision_is_on_record_before_any_pod_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        recorded, apply = [], world.api.apply

        async def noted(resource: Resource, key: ObjectKey, body: JSON) -> JSON:
            if resource is ASSIGNMENTS:
                rollout = world.api.at(ROLLOUTS, DEFAULT) or {}
                recorded.append(rollout.get("status", {}).get("target", {}).get("versionName"))
            return await apply(resource, key, body)

        monkeypatch.setattr(world.api, "apply", noted)
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        assert set(recorded) == {"chat-1.0.0"}

    scenario(test)


def test_when_the_rollout_has_changed_meanwhile_nothing_is_ordered() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.rollout("mine")
        await world.settle()
        world.pod("web-0")
        world.api.faults["write_status ModelParamRollout"] += [errors.APIConflict("the object has changed")]
        with pytest.raises(errors.APIConflict):
            await world.pass_()
        assert world.api.at(ASSIGNMENTS, "web-0") is None

    scenario(test)


def test_a_check_of_a_version_that_was_deleted_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        is_stopped: list[Callable[[], bool]] = []

        async def endless(_namespace: str, _spec: VersionSpec, stopped: Callable[[], bool]) -> VerifiedFacts:
            is_stopped.append(stopped)
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(world.verifier, "check", endless)
        world.version("1.1.0")
        await world.pass_()
        await until(lambda: bool(is_stopped), "the check to begin")
        assert not is_stopped[0]()
        world.api.drop(VERSIONS, ObjectKey("ns", "chat-1.1.0"))
        await world.pass_()
        assert is_stopped[0]()
        await world.verifier.stop()

    scenario(test)


def test_a_rollout_that_is_going_orders_nothing_and_claims_nothing() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.rollout("old", deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["example.com/held"])
        world.rollout("new")
        world.pod("web-0")
        await world.settle()
        order = world.api.at(ASSIGNMENTS, "web-0")
        assert order is not None
        assert order["spec"]["rolloutName"] == "new"
        assert world.conditions(ROLLOUTS, "old") == {}

    scenario(test)


def test_one_order_that_cannot_be_written_stops_no_other() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        for name in ("web-0", "web-1", "web-2"):
            world.pod(name)
        await world.pass_()  # the status; its orders follow below
        for name in ("web-0", "web-1", "web-2"):
            if world.api.at(ASSIGNMENTS, name):
                world.api.drop(ASSIGNMENTS, ObjectKey("ns", name))
        await world.orders._list()
        world.api.faults["apply"] += [errors.APIInvalid("this one")]
        with pytest.raises(errors.APIInvalid):
            await world.pass_()
        assert sum(world.api.at(ASSIGNMENTS, f"web-{n}") is not None for n in range(3)) == 2

    scenario(test)


def test_one_order_that_cannot_be_written_hides_nothing_of_its_version() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        world.api.faults["apply ModelParamAssignment"] += [errors.APIInvalid("a quota")] * 20
        for _ in range(4):
            with suppress(errors.APIInvalid):
                await world.pass_()
            await until(lambda: all(w.task.done() for w in world.verifier._work.values()), "the checks")
        assert world.api.at(ASSIGNMENTS, "web-0") is None
        assert world.conditions(VERSIONS, "chat-1.0.0")["Verified"] == "True/Verified"
        assert world.conditions(VERSIONS, "chat-1.0.0")["Ready"] == "Unknown/RollingOut"

    scenario(test)


def test_an_order_that_is_refused_is_told_on_its_rollout() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        for name in ("web-0", "web-1"):
            world.pod(name)
        world.api.faults["apply ModelParamAssignment"] += [errors.APIDenied("exceeded quota: few")] * 2
        with pytest.raises(errors.APIDenied):
            await world.pass_()
        (event,) = world.events("APIUnavailable")
        assert event["regarding"]["name"] == DEFAULT
        assert event["note"].startswith("an order cannot be written: exceeded quota: few. Check")

    scenario(test)


def test_a_server_that_is_away_while_orders_are_written_is_no_news_of_the_rollout() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        world.pod("web-0")
        world.api.faults["apply ModelParamAssignment"] += [errors.APIUnavailable("away"), errors.APIConflict("changed")]
        for kind in (errors.APIUnavailable, errors.APIConflict):
            with pytest.raises(kind):
                await world.pass_()
        assert world.events("APIUnavailable") == []

    scenario(test)


@pytest.mark.parametrize("mirror", ["pods", "orders"])
def test_nothing_is_ordered_while_pods_or_orders_cannot_be_followed(mirror: str) -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        world.pod("web-0")
        getattr(world, mirror).blind_since = datetime.now(UTC)
        assert 0 < (await world.pass_() or 0) <= 1
        assert world.api.at(ASSIGNMENTS, "web-0") is None
        getattr(world, mirror).blind_since = None
        await world.settle()
        assert world.api.at(ASSIGNMENTS, "web-0") is not None

    scenario(test)


def test_no_order_is_withdrawn_while_it_is_not_seen_which_pods_there_are() -> None:
    """One that may not list pods from its start sees none: all orders would pass for those of pods long gone."""

    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.pods._known.clear()
        world.pods.blind_since = datetime.now(UTC)
        await world.pass_(is_quiet=True)
        assert world.api.at(ASSIGNMENTS, "web-0") is not None

    scenario(test)


def test_no_default_is_made_while_orders_cannot_be_followed_since_they_may_be_a_user_s() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.orders.blind_since = datetime.now(UTC)
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is None
        world.orders.blind_since = None
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is not None

    scenario(test)


def test_pods_that_no_rollout_selects_are_told_of_once_and_on_one_of_the_rollouts() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        for name in ("web-0", "web-1"):
            world.pod(name)
        for name in ("one", "two"):
            world.rollout(name, spec={"selector": {"matchLabels": {"tier": name}}})
        with capture_logs() as said:
            await world.settle()
        (event,) = world.events("NoRollout")
        assert event["regarding"]["name"] == "one"
        assert event["note"].startswith("no rollout selects pods web-0 and 1 more of chat, so nothing new goes there")
        assert len([line for line in said if line.get("reason") == "NoRollout" and line["event"] == "Event"]) == 1

    scenario(test)


def test_an_operator_whose_term_is_below_that_of_an_order_says_so_on_the_rollout() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        restored = world.api.at(ASSIGNMENTS, "web-0")
        assert restored is not None
        world.orders.note(world.api.put(ASSIGNMENTS, {**restored, "spec": {**restored["spec"], "term": 57}}))
        await world.pass_()
        (event,) = world.events("StaleTerm")
        assert event["regarding"]["name"] == DEFAULT
        assert event["note"].startswith("no order is written: one has term 57, ours is 1.")

    scenario(test)


def test_without_the_lease_nothing_is_written() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.lease.release()
        before = world.api.writes()
        with pytest.raises(LeaseLost):
            await world.pass_()
        assert world.api.writes() == before

    scenario(test)


def test_a_model_that_is_gone_ends_its_loop_and_leaves_its_pods_alone() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.api.drop(VERSIONS, ObjectKey("ns", "chat-1.0.0"))
        world.api.drop(ROLLOUTS, ObjectKey("ns", DEFAULT))
        assert await world.pass_(is_quiet=True) is None
        assert world.api.at(ASSIGNMENTS, "web-0") is not None

    scenario(test)


def test_no_version_is_no_reason_to_make_a_rollout() -> None:
    async def test(world: World) -> None:
        assert await world.pass_() is None
        assert world.api.at(ROLLOUTS, DEFAULT) is None

    scenario(test)


def test_the_default_gives_way_to_a_users_rollout_and_one_that_was_edited_does_not() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        world.rollout("mine")
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is None
        steps = {"f:spec": {"f:strategy": {"f:steps": {}}}}
        edited = [{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": steps}]
        world.rollout(DEFAULT, labels=views.DEFAULT_LABELS, managedFields=edited)
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is not None

    scenario(test)


def test_no_default_moves_pods_whose_own_rollout_was_deleted() -> None:
    async def test(world: World) -> None:
        world.rollout("mine")
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.api.drop(ROLLOUTS, ObjectKey("ns", "mine"))
        world.version("1.1.0")
        before = world.api.at(ASSIGNMENTS, "web-0")
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is None
        assert world.api.at(ASSIGNMENTS, "web-0") == before
        assert world.conditions(VERSIONS, "chat-1.0.0")["Ready"] == "Unknown/NoRollout"
        assert world.conditions(VERSIONS, "chat-1.1.0")["Ready"] == "Unknown/NoRollout"

    scenario(test)


def test_pods_of_a_rollout_that_was_suspended_from_its_birth_are_left_alone_as_well() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.rollout("freeze", spec={"suspend": True})
        await world.settle()
        before = world.api.at(ASSIGNMENTS, "web-0")
        assert before is not None
        assert before["spec"]["rolloutName"] == "freeze"
        world.api.drop(ROLLOUTS, ObjectKey("ns", "freeze"))
        world.version("1.1.0")
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is None
        assert world.api.at(ASSIGNMENTS, "web-0") == before

    scenario(test)


def test_an_order_whose_pod_two_rollouts_select_is_handed_to_neither() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        for name in ("one", "other"):
            world.rollout(name, spec={"suspend": True})
        await world.settle()
        order = world.api.at(ASSIGNMENTS, "web-0")
        assert order is not None
        assert order["spec"]["rolloutName"] == DEFAULT

    scenario(test)


def test_the_default_is_made_again_where_it_was_the_one_that_ordered() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.api.drop(ROLLOUTS, ObjectKey("ns", DEFAULT))
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is not None

    scenario(test)


def test_orders_of_pods_that_are_gone_keep_no_default_away() -> None:
    async def test(world: World) -> None:
        world.rollout("mine")
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.api.drop(ROLLOUTS, ObjectKey("ns", "mine"))
        world.api.drop(PODS, ObjectKey("ns", "web-0"))
        await world.pods._list()
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is not None

    scenario(test)


def test_what_failed_under_the_default_stays_failed_under_the_users_rollout() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        default = world.api.at(ROLLOUTS, DEFAULT)
        assert default is not None
        memory = status("1.0.0", failed_versions=(failed("1.1.0"),), attempt=3).wire()
        world.api.put(ROLLOUTS, {**default, "status": memory})
        world.version("1.1.0")
        world.rollout("mine")
        await world.settle()
        mine = world.api.at(ROLLOUTS, "mine")
        assert mine is not None
        assert world.api.at(ROLLOUTS, DEFAULT) is None
        assert [f["versionName"] for f in mine["status"]["failedVersions"]] == ["chat-1.1.0"]
        assert mine["status"]["target"]["versionName"] == mine["status"]["live"]["versionName"] == "chat-1.0.0"
        assert mine["status"]["attempt"] == 3

    scenario(test)


def test_a_rollout_that_is_going_inherits_no_order_of_the_default() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.rollout("going", spec={"suspend": True}, deletionTimestamp="2026-11-24T12:00:00Z", finalizers=["held"])
        world.rollout("mine", spec={"suspend": True, "selector": {"matchLabels": {"tier": "none"}}})
        await world.settle()
        order = world.api.at(ASSIGNMENTS, "web-0")
        assert order is not None
        assert order["spec"]["rolloutName"] == DEFAULT

    scenario(test)


def test_the_default_stays_until_each_of_its_orders_is_handed_over() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        for name in ("web-0", "web-1"):
            world.pod(name)
        await world.settle()
        world.rollout("mine", spec={"suspend": True})
        world.api.faults["apply ModelParamAssignment"] += [errors.APIUnavailable("away")]
        with pytest.raises(errors.APIUnavailable):
            await world.pass_()
        assert world.api.at(ROLLOUTS, DEFAULT) is not None
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is None
        orders = world.api.objects[ASSIGNMENTS.plural].values()
        assert {one["spec"]["rolloutName"] for one in orders} == {"mine"}

    scenario(test)


def test_a_rollout_under_another_name_takes_over_what_the_one_before_remembers() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        world.rollout("before")
        await world.settle()
        before = world.api.at(ROLLOUTS, "before")
        assert before is not None
        memory = status("1.0.0", history=(revision("1.0.0"), revision("0.9.0")), floor=7).wire()
        world.api.put(ROLLOUTS, {**before, "status": memory})
        world.rollout("after")
        world.rollout("elsewhere", spec={"selector": {"matchLabels": {"tier": "none"}}})
        await world.settle()
        known = {name: (world.api.at(ROLLOUTS, name) or {})["status"] for name in ("before", "after", "elsewhere")}
        assert known["after"]["history"] == known["before"]["history"]
        assert not known["elsewhere"].get("history")

    scenario(test)


def test_the_default_goes_only_after_its_memory_is_handed_on() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        default = world.api.at(ROLLOUTS, DEFAULT)
        assert default is not None
        world.api.put(ROLLOUTS, {**default, "status": status(failed_versions=(failed("1.1.0"),)).wire()})
        world.rollout("mine")
        world.api.faults["write_status"] += [errors.APIUnavailable("away")]
        with pytest.raises(errors.APIUnavailable):
            await world.pass_()
        assert world.api.at(ROLLOUTS, DEFAULT) is not None

    scenario(test)


@pytest.mark.parametrize(
    ("left", "stays"),
    [
        pytest.param("nothing", False, id="no-version-and-no-pod"),
        pytest.param("pod", True, id="a-pod"),
        pytest.param("broken version", True, id="a-version-that-cannot-be-used"),
        pytest.param("edited", True, id="somebody-wrote-to-it"),
        pytest.param("live", True, id="something-was-live-by-it"),
        pytest.param("failed", True, id="something-failed-by-it"),
    ],
)
def test_a_default_rollout_goes_with_the_last_version_of_a_mistyped_model(left: str, stays: bool) -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        default = world.api.at(ROLLOUTS, DEFAULT)
        assert default is not None
        world.api.drop(VERSIONS, ObjectKey("ns", "chat-1.0.0"))
        match left:
            case "pod":
                world.pod("web-0")
            case "broken version":
                spec = {**version_spec("1.1.0").wire(), "manifestDigest": "sha256:short"}
                world.api.put(VERSIONS, {"metadata": {"name": "chat-1.1.0", "generation": 1}, "spec": spec})
            case "edited":
                fields = [{"manager": "kubectl-edit", "operation": "Update"}]
                metadata = {**default["metadata"], "managedFields": fields}
                world.api.put(ROLLOUTS, {**default, "metadata": metadata})
            case "live":
                world.api.put(ROLLOUTS, {**default, "status": status("1.0.0").wire()})
            case "failed":
                world.api.put(ROLLOUTS, {**default, "status": status(failed_versions=(failed("1.0.0"),)).wire()})
        await world.settle()
        assert (world.api.at(ROLLOUTS, DEFAULT) is not None) is stays

    scenario(test)


def test_no_default_is_made_beside_a_rollout_that_cannot_be_used() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        world.rollout("mine", spec={"strategy": {"maxUnavailable": "a few"}})
        await world.settle()
        assert world.api.at(ROLLOUTS, DEFAULT) is None
        assert world.api.at(ASSIGNMENTS, "web-0") is None

    scenario(test)


def test_a_version_that_is_going_is_not_what_the_default_follows() -> None:
    async def test(world: World) -> None:
        world.version("2.0.0")
        spec = version_spec("1.0.0").wire()
        going = {"name": "chat-1.0.0", "generation": 1, "deletionTimestamp": "2026-11-24T12:00:00Z"}
        world.api.put(VERSIONS, {"metadata": going, "spec": spec})
        await world.settle()
        default = world.api.at(ROLLOUTS, DEFAULT)
        assert default is not None
        assert default["spec"]["versionPolicy"]["range"] == ">=2.0.0 <3.0.0"

    scenario(test)


def test_a_version_s_status_waits_until_all_rollouts_that_may_use_it_are_known() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.rollout("mine")
        await world.settle()
        edited, before = world.api.at(ROLLOUTS, "mine"), world.api.at(VERSIONS, "chat-1.0.0")
        assert edited is not None
        assert before is not None
        assert before["status"]["usedBy"] == ["mine"]
        world.api.put(ROLLOUTS, {**edited, "metadata": {**edited["metadata"], "generation": 2}})
        world.api.faults["write_status ModelParamRollout"] += [errors.APIUnavailable("away")]
        with pytest.raises(errors.APIUnavailable):
            await world.pass_()
        assert world.api.at(VERSIONS, "chat-1.0.0") == before

    scenario(test)


def test_a_spec_that_cannot_be_used_is_told_so_and_stops_nothing_else() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        broken = {**version_spec("1.1.0").wire(), "manifestDigest": "sha256:short"}
        world.api.put(VERSIONS, {"metadata": {"name": "chat-1.1.0", "generation": 3}, "spec": broken})
        world.pod("web-0")
        await world.settle()
        assert world.conditions(VERSIONS, "chat-1.1.0") == {
            "Ready": f"False/{Reason.INVALID_SPEC}",
            "Stalled": f"True/{Reason.INVALID_SPEC}",
        }
        assert world.api.at(ASSIGNMENTS, "web-0") is not None

    scenario(test)


@pytest.fixture
def bare() -> None:
    """Without what rollouts of other tests show: the gauges are the process's."""
    for gauge in (metrics.ROLLOUT_STEP, metrics.ROLLOUT_PODS, metrics.ROLLOUT_STALLED):
        gauge.clear()


def stalled() -> set[tuple[str, str]]:
    """The rollouts that the gauge shows, each with its reason."""
    (family,) = metrics.ROLLOUT_STALLED.collect()
    return {(sample.labels["rollout"], sample.labels["reason"]) for sample in family.samples}


@pytest.mark.usefixtures("bare")
def test_a_gauge_shows_why_a_rollout_stalls_now_and_nothing_of_one_that_is_gone() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        world.rollout("mine", spec={"strategy": {"maxUnavailable": "a few"}})
        await world.settle()
        assert stalled() == {("mine", Reason.INVALID_SPEC)}
        world.rollout("mine")
        world.rollout("other")
        await world.settle()
        assert stalled() == {("mine", Reason.PODS_CLAIMED_TWICE), ("other", Reason.PODS_CLAIMED_TWICE)}
        world.rollout("other", deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["example.com/held"])
        await world.settle()
        assert stalled() == set()

    scenario(test)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("spec", [{}, {"strategy": {"maxUnavailable": "a few"}}], ids=["claimed-twice", "refused"])
def test_no_gauge_is_left_of_a_model_that_is_gone(spec: JSON) -> None:
    async def test(world: World) -> None:
        world.pod("web-0")
        names = ("mine", "other")
        for name in names:
            world.rollout(name, spec=spec)
        await world.settle()
        assert {name for name, _ in stalled()} == set(names)
        for name in names:
            world.api.drop(ROLLOUTS, ObjectKey("ns", name))
        assert await world.pass_() is None
        shown = [sample.labels for family in metrics.REGISTRY.collect() for sample in family.samples]
        assert [labels for labels in shown if "rollout" in labels] == []

    scenario(test)


def test_a_namesake_of_another_life_gets_a_new_order_not_the_old_ones_answer() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        first = world.api.at(ASSIGNMENTS, "web-0")
        world.api.drop(PODS, ObjectKey("ns", "web-0"))
        world.pod("web-0")
        await world.settle()
        second = world.api.at(ASSIGNMENTS, "web-0")
        assert first is not None
        assert second is not None
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        assert second["spec"]["podUID"] != first["spec"]["podUID"]

    scenario(test)


def test_an_answer_that_cannot_be_used_is_none_and_its_order_stands() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        order = world.api.at(ASSIGNMENTS, "web-0")
        assert order is not None
        world.api.put(ASSIGNMENTS, {**order, "status": {"swappedAt": "0000-01-01T00:00:00Z"}})
        await world.orders._list()
        before = world.api.writes()
        await world.pass_()
        assert world.api.writes() == before

    scenario(test)


def test_other_work_goes_on_between_the_rollouts_of_a_pass() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        for number in range(20):
            world.rollout(f"r{number}")
        await world.settle()
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                others += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        await world.pass_()
        beside.cancel()
        assert others >= 20

    scenario(test)


@pytest.mark.parametrize(("decided", "at_once"), [("judge", 16), ("RolloutUse", 1)])
def test_other_work_goes_on_between_the_verdicts_of_a_pass(
    monkeypatch: pytest.MonkeyPatch, decided: str, at_once: int
) -> None:
    """Nobody bounds the versions and rollouts of a namespace: a user of it must not hold up the lease."""

    async def test(world: World) -> None:
        for number in range(40):
            world.version(f"1.{number}.0")
            world.rollout(f"r{number}")
        await world.settle()
        turns, turn = Counter[int](), 0

        async def other() -> None:
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        before = getattr(reconcile, decided)

        class Counting:
            of = staticmethod(lambda *given: counted(before.of, *given))

        def counted(work: Callable[..., object], *given: object) -> object:
            turns[turn] += 1
            return work(*given)

        within = Counting if decided == "RolloutUse" else partial(counted, before)
        monkeypatch.setattr(reconcile, decided, within)
        beside = asyncio.create_task(other())
        await world.pass_()
        beside.cancel()
        assert turns.total() == 40
        assert max(turns.values()) <= at_once

    scenario(test)


def test_an_order_whose_writing_got_no_answer_is_read_before_another_pod_moves() -> None:
    async def test(world: World) -> None:
        world.rollout("mine", spec={"strategy": {"maxUnavailable": 1, "steps": []}})
        for number in ("1.0.0", "1.1.0"):
            world.version(number)
        await world.settle()
        for name in ("web-0", "web-1", "web-2"):
            world.serving_pod(name, "1.0.0", beside="1.1.0")
        apply = world.api.apply

        async def lost(resource: Resource, key: ObjectKey, body: JSON) -> JSON:
            written = await apply(resource, key, body)
            if resource is ASSIGNMENTS:
                world.api.apply = apply  # type: ignore[method-assign]
                raise errors.APIUnavailable("the answer is lost")
            return written

        world.api.apply = lost  # type: ignore[method-assign]
        with pytest.raises(errors.APIUnavailable):
            await world.pass_()
        busy = world.api.at(PODS, "web-0")
        assert busy is not None
        swapping = {"conditions": [{"type": "Ready", "status": "False"}]}
        world.pods.note(world.api.put(PODS, {**busy, "status": swapping}))
        for _ in range(3):
            await world.pass_()
        assert world.ordered_to("1.1.0") == ["web-0"]

    scenario(test)


def test_orders_of_pods_that_are_gone_go_when_there_is_time() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        world.api.drop(PODS, ObjectKey("ns", "web-0"))
        await world.pods._list()
        order = world.api.at(ASSIGNMENTS, "web-0")
        assert order is not None
        of_another = {"name": "embed-0", "labels": {MODEL_LABEL: "embed"}}
        world.orders.note(world.api.put(ASSIGNMENTS, {"metadata": of_another, "spec": order["spec"]}))
        await world.pass_()
        assert world.api.at(ASSIGNMENTS, "web-0") is not None
        await world.pass_(is_quiet=True)
        assert world.api.at(ASSIGNMENTS, "web-0") is None
        assert world.api.at(ASSIGNMENTS, "embed-0") is not None

    scenario(test)


def test_bytes_that_were_refused_reach_no_pod_and_the_reason_is_in_condition_and_event() -> None:
    async def test(world: World) -> None:
        world.refused["1.0.0"] = errors.BlobDigestMismatch("blob 3")
        world.version("1.0.0")
        world.pod("web-0")
        await world.settle()
        assert world.conditions(VERSIONS, "chat-1.0.0")["Stalled"] == f"True/{Reason.BLOB_DIGEST_MISMATCH}"
        assert world.api.at(ASSIGNMENTS, "web-0") is None
        events = [e for e in world.api.objects["events"].values() if e["regarding"]["name"] == "chat-1.0.0"]
        assert [(e["type"], e["reason"]) for e in events] == [("Warning", Reason.BLOB_DIGEST_MISMATCH)]

    scenario(test)


def test_what_a_status_remembers_is_not_checked_again_by_the_next_operator() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        world.verifier.keep_only(KEY, set())  # as after a restart
        world.refused["1.0.0"] = errors.BlobDigestMismatch("would be found now")
        await world.settle()
        assert world.conditions(VERSIONS, "chat-1.0.0")["Verified"] == "True/Verified"

    scenario(test)


def test_a_pass_leaves_the_lease_alone() -> None:
    async def test(world: World) -> None:
        world.version("1.0.0")
        await world.settle()
        assert [call for call in world.api.writes() if call[1] == LEASES.kind] == [("create", "Lease", "lease")]
        await asyncio.sleep(0)

    scenario(test)
