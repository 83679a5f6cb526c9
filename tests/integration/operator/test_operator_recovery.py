"""The operator dies, waits, loses its API server; pods never notice, and it converges by itself."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from builders.agents import Agents
from builders.operator_stage import (
    DEFAULT,
    OPERATOR_USER,
    Stage,
    conditions,
    install_rights,
    open_alone,
    open_namespace,
)
from builders.releases import Releases
from cluster.api import Api
from cluster.control_plane import Access, ControlPlane
from cluster.process import wait_until
from modelparams.reasons import Reason

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_goes_on_where_it_was(stage: Stage, seed: int) -> None:
    moments = random.Random(seed)
    stage.pods("web-0", "web-1", "web-2", "web-3")
    stage.apply("1.0.0")
    with stage.operator() as operator:
        stage.wait_until_all_live("1.0.0")
        stage.apply_rollout("mine", strategy={"steps": [{"pods": 1}, {"pods": 2}]})
        stage.apply("1.1.0")
        for _ in range(4):
            time.sleep(moments.uniform(0.0, 1.2))  # no condition to wait for: any moment will do
            operator.kill()
            served = stage.agents.live()
            assert set(served.values()) <= {"1.0.0", "1.1.0"}
            operator.start()
        stage.wait_until_all_live("1.1.0")
        stage.wait_for_rollout("mine", Ready=f"True/{Reason.PROMOTED}")
        for pod in stage.agents.all():
            assert pod.served == ["1.0.0", "1.1.0"], f"{pod.name} went to and fro"


def test_what_happens_again_is_counted_in_the_event_that_is_there(stage: Stage) -> None:
    first, second = stage.operator("first"), stage.operator("second")  # which knows of none of the first one's events
    with first:
        _suspend(stage, False, told=1)
        _suspend(stage, True, told=1)
    with second:
        _suspend(stage, False, told=2)
    assert not second.said("Event not written")


def _suspend(stage: Stage, is_wanted: bool, *, told: int) -> None:
    """Suspend a rollout or go on with it, and wait until it said so often that there is no version."""
    stage.apply_rollout("mine", suspend=is_wanted)
    stage.wait(lambda: ("Paused" in conditions(stage.rollout("mine"))) is is_wanted, f"suspended: {is_wanted}")
    missing = Reason.NO_VERSION_SELECTED
    stage.wait(lambda: stage.counts("mine").get(missing) == told, f"an event, counted {told} times")


def test_the_second_operator_waits_for_the_first_and_takes_over_at_once_when_that_one_goes(stage: Stage) -> None:
    stage.pods("web-0")
    with stage.operator("first") as first, stage.operator("second") as second:
        wait_until(lambda: first.said("Operating") or second.said("Operating"), "a leader", seconds=30)
        leader, follower = (first, second) if first.said("Operating") else (second, first)
        stage.apply("1.0.0")
        stage.wait_until_all_live("1.0.0")
        assert not follower.said("Operating")
        assert follower.http("/healthz")[0] == follower.http("/readyz")[0] == 200
        assert leader.stop() == 0
        follower.wait_until_said("Operating", seconds=5, term=2)
        stage.apply("1.1.0")
        stage.wait_until_all_live("1.1.0")
        assert all(pod.term == 2 for pod in stage.agents.all())


def test_a_leader_whose_lease_is_taken_ends_at_once(stage: Stage) -> None:
    with stage.operator() as operator:
        operator.wait_until_said("Operating")
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{stage.namespace}/leases/modelparams-operator"
        stage.api.patch(lease, {"spec": {"holderIdentity": "another", "leaseTransitions": 9}})
        wait_until(lambda: not operator.is_running, "its end", seconds=5)
        assert operator.exit_code == 3


def test_a_lease_that_was_deleted_goes_on_above_every_order(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0")
    with stage.operator() as operator:
        stage.wait_until_all_live("1.0.0")
        before = stage.agents.all()[0].term
        operator.kill()
        stage.api.delete(f"/apis/coordination.k8s.io/v1/namespaces/{stage.namespace}/leases/modelparams-operator")
        operator.start()
        stage.apply("1.1.0")
        stage.wait_until_all_live("1.1.0")
        assert stage.agents.all()[0].term > before


def test_after_a_restore_that_lost_the_orders_a_restart_makes_pods_obey_again(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{stage.namespace}/leases/modelparams-operator"
    with stage.operator() as operator:
        stage.wait_until_all_live("1.0.0")
        operator.kill()
        with stage.agents.held_still():
            stage.agents.all()[0].term = 41
            stage.api.delete(lease)
            stage.api.delete(stage.path("modelparamassignments", "web-0"))
        operator.start()
        stage.apply("1.1.0")
        stage.wait_for_rollout(Ready="False/StaleTerm")
        assert stage.agents.live() == {"web-0": "1.0.0"}
        operator.kill()
        operator.start()
        stage.wait_until_all_live("1.1.0")
        assert stage.agents.all()[0].term == 42


def test_a_status_that_a_backup_tool_restored_is_taken_over_whole(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0")
    with stage.operator() as operator:
        stage.wait_until_all_live("1.0.0")
        operator.kill()
        old = stage.rollout()
        kind = {field: old[field] for field in ("apiVersion", "kind")}
        status = {**old["status"], "stepReachedAt": "2026-01-01T00:00:00Z"}
        path = stage.path("modelparamrollouts", DEFAULT)
        stage.api.apply(f"{path}/status", {**kind, "metadata": {"name": DEFAULT}, "status": status}, manager="backups")
        operator.start()
        stage.wait_for_rollout(Ready="True/Promoted")
        stage.wait(lambda: "stepReachedAt" not in stage.rollout()["status"], "what was restored is gone")


def test_a_watched_namespace_that_is_gone_keeps_no_other_waiting(stage: Stage, control_plane: Access) -> None:
    open_alone(stage.api, stage.namespace, "operator-of-one")
    kubeconfig = control_plane.kubeconfig_for("operator-of-one", ["system:serviceaccounts"])
    alone = replace(stage, kubeconfig=kubeconfig)
    alone.pods("web-0")
    alone.apply("1.0.0")
    watched = {"MODELPARAMS_WATCH_NAMESPACES": f"{stage.namespace},gone"}
    with alone.operator(environment=watched, is_restarted=True) as operator:
        alone.wait_until_live(web_0="1.0.0")
        assert operator.said("Orders not read")


def test_an_api_server_that_goes_away_and_comes_back(
    own_control_plane: ControlPlane, releases: Releases, tmp_path: Path
) -> None:
    plane = own_control_plane
    api, namespace = Api(plane.kubeconfig), "default"
    install_rights(api)
    open_namespace(api, namespace)
    api.post(f"/api/v1/namespaces/{namespace}/secrets", releases.secret())
    kubeconfig = plane.kubeconfig_for(OPERATOR_USER, ["system:serviceaccounts"])
    with Agents(api, namespace, Releases.model) as agents:
        stage = Stage(api, namespace, kubeconfig, releases, agents, tmp_path)
        stage.pods("web-0", "web-1")
        stage.apply("1.0.0")
        with stage.operator(is_restarted=True) as operator:
            stage.wait_until_all_live("1.0.0")
            plane.kill_apiserver()
            wait_until(lambda: operator.restarts == 1, "the lease to be lost", seconds=30)
            operator.wait_until_said("Waiting for the API server", seconds=30)
            assert agents.live() == {"web-0": "1.0.0", "web-1": "1.0.0"}
            plane.start_apiserver()
            stage.apply("1.1.0")
            stage.wait_until_all_live("1.1.0")
            assert operator.restarts == 1


def test_an_api_server_that_is_back_before_the_lease_runs_out_is_no_reason_to_restart(
    own_control_plane: ControlPlane, releases: Releases, tmp_path: Path
) -> None:
    plane = own_control_plane
    api, namespace = Api(plane.kubeconfig), "default"
    install_rights(api)
    open_namespace(api, namespace)
    api.post(f"/api/v1/namespaces/{namespace}/secrets", releases.secret())
    kubeconfig = plane.kubeconfig_for(OPERATOR_USER, ["system:serviceaccounts"])
    patience = {"MODELPARAMS_LEASE_DURATION": "60", "MODELPARAMS_LEASE_RENEW_DEADLINE": "50"}
    with Agents(api, namespace, Releases.model) as agents:
        stage = Stage(api, namespace, kubeconfig, releases, agents, tmp_path)
        stage.pods("web-0")
        stage.apply("1.0.0")
        with stage.operator(environment=patience) as operator:
            stage.wait_until_all_live("1.0.0")
            plane.kill_apiserver()
            operator.wait_until_said("Watch interrupted", kind="Pod")
            plane.start_apiserver()
            stage.apply("1.1.0")
            stage.wait_until_all_live("1.1.0")
            assert operator.is_running


def test_without_our_kinds_it_says_what_to_install(
    tmp_path: Path, own_control_plane: ControlPlane, releases: Releases
) -> None:
    api = Api(own_control_plane.kubeconfig)
    kind = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modelparamrollouts.modelparams.dev"
    api.delete(kind)
    wait_until(lambda: api.find(kind) is None, "the kind to go", seconds=20)
    stage = Stage(api, "default", own_control_plane.kubeconfig, releases, None, tmp_path)  # type: ignore[arg-type]
    with stage.operator() as operator:
        wait_until(lambda: not operator.is_running, "its end", seconds=30)
        assert operator.exit_code == 2
        assert "no modelparamrollouts.modelparams.dev" in operator.log.read_text()
        assert "kubectl apply --server-side -f crds/" in operator.log.read_text()


def test_a_bad_setting_stops_the_start_with_a_sentence_that_names_it() -> None:
    environment = {"PATH": os.environ["PATH"], "MODELPARAMS_TRUST": "/none", "MODELPARAMS_RESYNC": "often"}
    done = subprocess.run(
        [sys.executable, "-m", "modelparams_operator", "run"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "MODELPARAMS_RESYNC" in done.stderr
    assert "Traceback" not in done.stderr


def test_metrics_and_probes_show_the_work(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0")
    with stage.operator() as operator:
        stage.wait_until_all_live("1.0.0")
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        assert operator.http("/healthz") == operator.http("/readyz") == (200, "ok\n")
        metrics = operator.http("/metrics")[1]
        assert "modelparams_operator_leader 1.0" in metrics
        for name in ("reconcile_seconds_count", "verified_bytes_total", "verification_seconds_count", "relists_total"):
            assert f"modelparams_operator_{name}" in metrics
        labels = f'namespace="{stage.namespace}",rollout="tiny-llama-default",state="updated"'
        stage.wait(lambda: f"rollout_pods{{{labels}}} 1.0" in operator.http("/metrics")[1], "the gauge")


def test_it_comes_to_rest(stage: Stage) -> None:
    stage.pods("web-0", "web-1")
    stage.apply("1.0.0", "1.1.0")
    with stage.operator(environment={"MODELPARAMS_RESYNC": "0.3"}) as operator:
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        stage.wait_for_version("1.1.0", Ready=f"True/{Reason.LIVE}")

        def passes() -> float:
            found = [
                line
                for line in operator.http("/metrics")[1].splitlines()
                if 'reconcile_seconds_count{result="ok"}' in line
            ]
            return float(found[0].split()[-1])

        objects = [
            stage.path("modelparamversions"),
            stage.path("modelparamrollouts"),
            stage.path("modelparamassignments"),
        ]

        def written() -> list[str]:
            return [item["metadata"]["resourceVersion"] for path in objects for item in stage.api.get(path)["items"]]

        started, before = passes(), written()
        wait_until(lambda: passes() >= started + 6, "six more passes", seconds=20)
        assert written() == before


def test_one_that_waits_for_an_api_server_stops_in_a_moment(stage: Stage, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody.kubeconfig"
    nobody.write_text(stage.kubeconfig.read_text().replace(stage.api.server, "https://127.0.0.1:9"))
    stage.kubeconfig = nobody
    with stage.operator() as operator:
        operator.wait_until_said("Waiting for the API server")
        assert operator.http("/healthz")[0] == 200
        assert operator.stop() == 0  # or it would be killed at the end of its grace period


def test_one_that_checks_a_store_that_hangs_stops_in_a_moment(stage: Stage) -> None:
    with stage.releases.server.proxy() as proxy, stage.operator() as operator:
        proxy.stall(0)
        stage.apply("1.0.0", source=stage.releases.source(endpoint=proxy.endpoint))
        operator.wait_until_said("Verifying")
        assert operator.stop() == 0  # or it would be killed at the end of its grace period


def test_by_default_it_leads_with_the_rights_that_are_shipped(stage: Stage) -> None:
    with stage.operator(environment={"MODELPARAMS_LEASE_NAMESPACE": ""}) as operator:  # empty: the default
        operator.wait_until_said("Operating")
        lease = stage.api.get("/apis/coordination.k8s.io/v1/namespaces/modelparams-system/leases/modelparams-operator")
        assert lease["spec"]["holderIdentity"] == "operator"
