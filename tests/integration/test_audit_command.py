"""`modelparams audit` on the log that a real API server wrote by the policy that users install."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders.guarded import AGENT, ASSIGNMENTS, ROLLOUTS, SYSTEM, VERSIONS, Guarded, apply_binding, code, name_and_uid
from builders.objects import Object, approval, assignment, digest, release, rollout, version
from cluster.api import Api
from cluster.control_plane import Access
from cluster.process import wait_until
from modelparams_operator.shell.kube import Kube
from modelparams_operator.shell.lease import Lease, Timing
from modelparams_operator.shell.ports import ObjectKey

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("policies")]

TRAINER, MANAGER = "modelparams-training", "modelparams-management"
_NUMBERS = itertools.count(2000)
RUN = "import typer; from modelparams_operator.audit.commands import audit; typer.run(audit)"


@pytest.fixture(scope="session")
def staff(guarded: Guarded) -> Guarded:
    """With accounts that publish and manage."""
    for role in (TRAINER, MANAGER):
        apply_binding(guarded, role)
    for role in (TRAINER, MANAGER):
        wait_until(
            lambda role=role: code(lambda: guarded.login(role).get(guarded.path(VERSIONS)))[0] == 200,  # type: ignore[misc]
            "its rights",
            seconds=20,
        )
    return guarded


def user(scene: Guarded, account: str, namespace: str = "") -> str:
    return f"system:serviceaccount:{namespace or scene.namespace}:{account}"


class Play:
    """A release of two versions on one pod, each hand that takes part with its own token."""

    def __init__(self, scene: Guarded) -> None:
        self.scene, self.model = scene, f"m{next(_NUMBERS)}"
        self.pod = scene.pod(f"{self.model}-0")
        self.name, self.uid = name_and_uid(self.pod).values()
        self.trainer, self.manager = scene.login(TRAINER), scene.login(MANAGER)
        self.agent = scene.login(AGENT, bound_to=self.pod)

    def publish(self, number: str) -> None:
        self.trainer.post(self.scene.path(VERSIONS), version(number, model=self.model))

    def target(self, number: str, **more: Any) -> None:
        """What the operator reports of the rollout, over the one that it read."""
        path = self.scene.path(ROLLOUTS, self.model)
        known = self.scene.admin.get(path)["metadata"]
        status = {"observedGeneration": known["generation"], "target": release(number, model=self.model), **more}
        body = {"metadata": {"resourceVersion": known["resourceVersion"]}, "status": status}
        self.scene.operator.patch(f"{path}/status", body)

    def order(self, number: str) -> None:
        held = [release(number, model=self.model)]
        order = assignment(self.pod, releases=held, rolloutName=self.model)
        self.scene.operator.apply(self.scene.path(ASSIGNMENTS, self.name), order, manager="modelparams-operator")

    def live(self, number: str) -> None:
        spec = version(number, model=self.model)["spec"]
        live = {"versionName": f"{self.model}-{number}", "version": number, "manifestDigest": spec["manifestDigest"]}
        path = self.scene.path(ASSIGNMENTS, self.name)
        head = {key: self.scene.admin.get(path)[key] for key in ("apiVersion", "kind")}
        head["metadata"] = {"name": self.name, "uid": self.scene.admin.get(path)["metadata"]["uid"]}
        status = {"observedGeneration": 1, "podUID": self.uid, "term": 1, "state": "Live", "live": live}
        self.agent.apply(f"{path}/status", {**head, "status": status}, manager="modelparams-agent")

    def approve(self, by: Api, name: str) -> tuple[int, str]:
        one = approval("1.1.0", name, model=self.model)
        return code(lambda: by.patch(self.scene.path(ROLLOUTS, self.model), {"spec": {"approvals": [one]}}))

    def release_both(self) -> None:
        self.publish("1.0.0")
        self.manager.post(self.scene.path(ROLLOUTS), rollout(self.model, model=self.model))
        for number in ("1.0.0", "1.1.0"):
            if number == "1.1.0":
                self.publish(number)
                assert self.approve(self.manager, "alice@example.com")[0] == 403
                assert self.approve(self.scene.login("edit"), user(self.scene, "edit"))[0] == 403
                assert self.approve(self.manager, user(self.scene, MANAGER))[0] == 200
            self.target(number)
            self.order(number)
            self.live(number)

    def withdraw_and_stop(self) -> None:
        self.manager.patch(self.scene.path(VERSIONS, f"{self.model}-1.1.0"), {"spec": {"lifecycle": "Withdrawn"}})
        self.scene.admin.delete(f"/api/v1/namespaces/{self.scene.namespace}/pods/{self.name}", grace_seconds=0)
        wait_until(
            lambda: self.scene.admin.find(self.scene.path(ASSIGNMENTS, self.name)) is None,
            "the garbage collector to take the order with the pod",
            seconds=30,
        )


@pytest.fixture(scope="session")
def play(staff: Guarded) -> Play:
    """What was done; the log has all of it."""
    played = Play(staff)
    played.release_both()
    played.withdraw_and_stop()
    return played


def run(log: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, str(log), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120, check=False)


def told(play: Play, log: Path, *arguments: str) -> Any:
    done = run(log, "--namespace", play.scene.namespace, "--model", play.model, "--output", "json", *arguments)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_real_log_says_what_was_served_and_by_whose_will(play: Play, control_plane: Access) -> None:
    first, second = told(play, control_plane.audit_log)["served"]
    assert [one["versionName"] for one in (first, second)] == [f"{play.model}-1.0.0", f"{play.model}-1.1.0"]
    assert first["until"] == second["since"]
    assert (second["pod"], second["podUID"]) == (play.name, play.uid)
    assert second["digest"] == digest(f"{play.model}-1.1.0")
    assert (second["sinceIsKnown"], second["byThePod"]) == (True, True)
    assert second["order"]["by"]["name"] == user(play.scene, "modelparams-operator", SYSTEM)
    assert second["published"]["who"]["name"] == user(play.scene, TRAINER)
    assert second["released"]["who"]["name"] == user(play.scene, MANAGER)
    assert [one["approvedBy"] for one in second["approved"]] == [user(play.scene, MANAGER)]
    assert (second["ended"], first["approved"]) == ("OrderDeleted", [])
    assert second["endedBy"]["name"] == "system:serviceaccount:kube-system:generic-garbage-collector"


def test_a_real_log_says_what_was_done_and_what_was_denied(play: Play, control_plane: Access) -> None:
    found = told(play, control_plane.audit_log)
    assert [act["does"] for act in mine(play, found["acts"])] == [
        "Published",
        "Released",
        "Targeted",
        "Published",
        "Approved",
        "Targeted",
        "Withdrawn",
    ]
    forged, powerless = [one for one in found["denied"] if one["name"] == play.model]
    assert (forged["who"]["name"], powerless["who"]["name"]) == (user(play.scene, MANAGER), user(play.scene, "edit"))
    assert "approvedBy must be your own user name" in forged["message"]
    name = f"{play.model}-1.1.0"
    assert powerless["tried"] == [f"{user(play.scene, 'edit')} approves {name} {digest(name)} through step 1"]


def mine(play: Play, told: list[Object]) -> list[Object]:
    """Acts or gaps; those of the policies, and of what other tests did, left out."""
    return [one for one in told if play.model in one["name"]]


def test_a_whole_log_has_no_gap_and_one_without_a_write_has_one(
    play: Play, control_plane: Access, tmp_path: Path
) -> None:
    assert mine(play, told(play, control_plane.audit_log)["gaps"]) == []
    lines = control_plane.audit_log.read_text().splitlines(keepends=True)
    order = next(line for line in reversed(lines) if _is_the_second_order(play, line))
    cut = tmp_path / "audit.log"
    cut.write_text("".join(line for line in lines if line != order))
    assert [gap["kind"] for gap in mine(play, told(play, cut)["gaps"])] == ["WriteMissing"]
    assert run(cut, "--model", play.model).returncode == 12


def _is_the_second_order(play: Play, line: str) -> bool:
    event = json.loads(line)
    ref = event.get("objectRef", {})
    place = (ref.get("namespace"), ref.get("resource"), ref.get("name"), ref.get("subresource"))
    is_order = place == (play.scene.namespace, ASSIGNMENTS, play.name, None)
    is_done = event["stage"] == "ResponseComplete" and event["responseStatus"]["code"] == 200
    return is_order and is_done and event["verb"] == "patch" and f"{play.model}-1.1.0" in line


def test_the_table_of_a_real_log_can_be_read(play: Play, control_plane: Access) -> None:
    found = told(play, control_plane.audit_log)["acts"]
    policy = f"modelparams-people-let-versions-pass.{play.scene.namespace}"
    assert ("admin", "PolicyWritten", policy) in {(act["who"]["name"], act["does"], act["name"]) for act in found}
    text = " ".join(run(control_plane.audit_log, "--pod", play.name).stdout.split())
    assert f"{play.name} {play.model}-1.0.0" in text
    assert "(order deleted)" in text
    assert f"approves {play.model}-1.1.0 through step 1" in text


def test_the_operator_s_renewals_are_recorded_and_one_that_is_missing_is_seen(
    guarded: Guarded, control_plane: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(guarded.kubeconfig("modelparams-operator", namespace=SYSTEM)))
    asyncio.run(_renew(3))
    lines = control_plane.audit_log.read_text().splitlines(keepends=True)
    # The last one may have been under way when it was cancelled.
    renewals = [line for line in lines if '"leases"' in line and _HOLDER in line and '"code":200' in line]
    others = [line for line in lines if '"leases"' not in line]
    assert len(renewals) >= 3
    whole, cut = tmp_path / "whole.log", tmp_path / "cut.log"
    whole.write_text("".join([*others, *renewals]))
    later = renewals[-1].replace(_time(renewals[-1]), "2099-01-01T00:00:00.000000Z")
    cut.write_text("".join([*others, *renewals[:-1], later]))
    assert _silences(whole) == []
    assert [_HOLDER in gap["message"] for gap in _silences(cut)] == [True]


_HOLDER = "holder-of-the-audit-test"


async def _renew(times: int) -> None:
    async def no_orders() -> int:
        return 0

    async with await Kube.connect() as api:
        timing = Timing(duration=2, renew_deadline=1.5, retry=0.1)
        lease = Lease(api, ObjectKey(SYSTEM, "modelparams-operator"), _HOLDER, timing=timing, highest_term=no_orders)
        await lease.acquire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1 * times + 1):
                await lease.keep()
        await lease.release()


def _time(line: str) -> str:
    return str(json.loads(line)["requestReceivedTimestamp"])


def _silences(log: Path) -> list[Object]:
    found = json.loads(run(log, "--output", "json").stdout)
    return [gap for gap in found["gaps"] if gap["kind"] == "Silence"]


def test_the_policy_records_no_read_of_ours_and_no_lease_but_the_operator_s(
    play: Play, control_plane: Access, api: Api
) -> None:
    api.get(play.scene.path(ROLLOUTS))
    path = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
    for namespace, name in ((play.scene.namespace, "modelparams-operator"), (SYSTEM, "another")):
        api.post(path.format(namespace), {"metadata": {"name": name}, "spec": {"holderIdentity": "nobody"}})
    api.delete(f"{path.format(SYSTEM)}/another")
    events = control_plane.audit_events()
    refs = [(event["verb"], event.get("objectRef", {})) for event in events]
    assert {verb for verb, ref in refs if ref.get("resource") == ROLLOUTS} & {"get", "list", "watch"} == set()
    leases = {(ref.get("namespace"), ref.get("name")) for _, ref in refs if ref.get("resource") == "leases"}
    assert leases <= {(SYSTEM, "modelparams-operator")}
    ours = [event for event in events if event.get("objectRef", {}).get("namespace") == play.scene.namespace]
    assert any("responseObject" in event for event in ours)
    # Of our own requests: others in the log may speak of managed fields, as a patch of them does.
    assert not any("managedFields" in json.dumps(event) for event in ours)
