"""The operator on a real control plane and a real S3 server; the pods' agents are played."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.operator_stage import DEFAULT, Stage
from builders.releases import Releases
from cluster.kubectl import Kubectl
from cluster.s3 import Versitygw
from modelparams.reasons import Reason

pytestmark = pytest.mark.integration


def test_one_version_file_alone_is_a_working_deployment(stage: Stage) -> None:
    stage.pods("web-0", "web-1", "web-2")
    stage.apply("1.0.0")
    with stage.operator() as operator:
        stage.wait_until_all_live("1.0.0")
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}", Available=f"True/{Reason.PODS_SERVING}")
        stage.wait_for_version("1.0.0", Ready=f"True/{Reason.LIVE}", Verified="True/Verified")
        order = stage.agents.order("web-0")
        assert order is not None
        assert order["metadata"]["ownerReferences"][0]["kind"] == "Pod"
        assert order["metadata"]["ownerReferences"][0]["uid"] == order["spec"]["podUID"]
        assert "finalizers" not in stage.version("1.0.0")["metadata"]
        assert "annotations" not in stage.version("1.0.0")["metadata"]
        stage.wait(lambda: ("Normal", Reason.PROMOTED) in stage.events(DEFAULT), "the event")
        assert operator.stop() == 0


def test_a_new_version_goes_pod_by_pod_and_its_deletion_goes_back(stage: Stage, kubectl: Kubectl) -> None:
    stage.pods("web-0", "web-1", "web-2")
    stage.apply("1.0.0")
    with stage.operator():
        stage.wait_until_all_live("1.0.0")
        stage.apply("1.1.0")
        stage.wait_until_all_live("1.1.0")
        stage.wait_for_version("1.0.0", Ready=f"True/{Reason.SUPERSEDED}")
        stage.delete("1.1.0")
        stage.wait_until_all_live("1.0.0")
        stage.wait_for_rollout(Ready=f"True/{Reason.PROMOTED}")
        stage.wait(lambda: ("Normal", Reason.ROLLED_BACK) in stage.events(DEFAULT), "the event")
    told = kubectl("events", "--for", f"modelparamrollout/{DEFAULT}")
    assert told.index(Reason.PROMOTED) < told.index(Reason.ROLLING_BACK) < told.index(Reason.ROLLED_BACK)


def test_tampered_bytes_are_refused_before_any_pod_hears_of_them(stage: Stage, s3: Versitygw, tmp_path: Path) -> None:
    stage.releases = Releases(tmp_path, s3, s3.bucket(f"tampered-{stage.namespace}"))
    stage.releases.publish("1.0.0")
    stage.releases.flip("1.0.0")
    stage.pods("web-0")
    stage.apply("1.0.0")
    refused = Reason.BLOB_DIGEST_MISMATCH
    with stage.operator():
        stage.wait_for_version(
            "1.0.0", Ready=f"False/{refused}", Stalled=f"True/{refused}", Verified=f"False/{refused}"
        )
        stage.wait(lambda: ("Warning", refused) in stage.events("tiny-llama-1.0.0"), "the event")
        stage.wait_for_rollout(Ready=f"False/{refused}")
        assert stage.agents.order("web-0") is None


def test_a_version_vanishes_at_once_while_no_operator_runs(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0", "1.1.0")
    with stage.operator() as operator:
        stage.wait_until_all_live("1.1.0")
        operator.kill()
        stage.delete("1.1.0")
        assert stage.api.find(stage.path("modelparamversions", "tiny-llama-1.1.0")) is None
        operator.start()
        stage.wait_until_all_live("1.0.0")


def test_a_pod_that_refuses_the_new_version_sends_all_back(stage: Stage) -> None:
    stage.pods("web-0", "web-1", "web-2")
    digest = stage.releases.publish("1.1.0").manifest_digest
    stage.apply("1.0.0")
    with stage.operator():
        stage.wait_until_all_live("1.0.0")
        with stage.agents.held_still():
            for pod in stage.agents.all():
                pod.refuses[digest] = Reason.LAYOUT_MISMATCH
        stage.apply("1.1.0")
        stage.wait_for_rollout(Stalled=f"True/{Reason.LAYOUT_MISMATCH}")
        assert set(stage.agents.live().values()) == {"1.0.0"}
        stage.wait(lambda: ("Warning", Reason.LAYOUT_MISMATCH) in stage.events(DEFAULT), "the event")
        stage.wait(lambda: ("Normal", Reason.ROLLED_BACK) in stage.events(DEFAULT), "the end of the return")


def test_pods_that_come_and_go_get_and_lose_their_orders(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0")
    with stage.operator():
        stage.wait_until_live(web_0="1.0.0")
        stage.pods("web-1", "web-2")
        stage.wait_until_live(web_0="1.0.0", web_1="1.0.0", web_2="1.0.0")
        stage.agents.delete("web-0")
        stage.wait(lambda: stage.agents.order("web-0") is None, "the order of a pod that is gone to go")
        stage.agents.create("web-0")  # as a StatefulSet does: the same name, another life
        stage.wait_until_live(web_0="1.0.0", web_1="1.0.0", web_2="1.0.0")


def test_a_pod_that_takes_its_label_off_loses_its_order(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0")
    with stage.operator(environment={"MODELPARAMS_RESYNC": "1"}):
        stage.wait_until_live(web_0="1.0.0")
        pod = f"/api/v1/namespaces/{stage.namespace}/pods/web-0"
        stage.api.patch(pod, {"metadata": {"labels": {"modelparams.dev/model": None}}})
        stage.wait(lambda: stage.agents.order("web-0") is None, "the order to go")


def test_the_default_rollout_leaves_to_people_what_is_theirs_to_patch(stage: Stage) -> None:
    stage.apply("1.0.0")
    with stage.operator():
        stage.wait(lambda: stage.rollout(), "the default rollout")
    assert not stage.rollout()["spec"].keys() & {"paused", "suspend", "retryToken"}


def test_a_users_rollout_takes_the_default_ones_place(stage: Stage) -> None:
    stage.pods("web-0")
    stage.apply("1.0.0")
    with stage.operator():
        stage.wait_until_all_live("1.0.0")
        for asked in ({"retryToken": "once-more"}, {"paused": True}, {"paused": False}):  # by people on call
            stage.api.patch(stage.path("modelparamrollouts", DEFAULT), {"spec": asked})
        stage.apply_rollout("mine")
        stage.wait(lambda: not stage.rollout(), "the default rollout to go")
        stage.wait_for_rollout("mine", Ready=f"True/{Reason.PROMOTED}")


def test_pods_keep_what_they_serve_when_their_rollout_is_deleted_and_the_next_goes_on_from_there(stage: Stage) -> None:
    stage.pods("web-0", "web-1")
    stage.apply("1.0.0")
    stage.apply_rollout("mine", versionPolicy={"type": "Pinned", "versionName": "tiny-llama-1.0.0"})
    with stage.operator():
        stage.wait_until_all_live("1.0.0")
        stage.apply("1.1.0")
        stage.wait_for_version("1.1.0", Ready=f"True/{Reason.STANDBY}")
        stage.api.delete(stage.path("modelparamrollouts", "mine"))
        stage.wait_for_version("1.1.0", Ready=f"Unknown/{Reason.NO_ROLLOUT}")
        stage.wait_for_version("1.0.0", Ready=f"Unknown/{Reason.NO_ROLLOUT}")
        assert not stage.rollout()
        assert set(stage.agents.live().values()) == {"1.0.0"}
        stage.apply_rollout("next")
        stage.wait_until_all_live("1.1.0")
        stage.wait_for_rollout("next", Ready=f"True/{Reason.PROMOTED}")
    assert [past["versionName"] for past in stage.rollout("next")["status"]["history"]] == [
        "tiny-llama-1.1.0",
        "tiny-llama-1.0.0",
    ]


def test_credentials_that_come_late_need_nobody(bare_stage: Stage) -> None:
    bare_stage.pods("web-0")
    bare_stage.apply("1.0.0")
    with bare_stage.operator():
        denied = Reason.SOURCE_DENIED
        bare_stage.wait_for_version("1.0.0", Ready=f"False/{denied}", Reconciling=f"True/{denied}")
        secrets = f"/api/v1/namespaces/{bare_stage.namespace}/secrets"
        bare_stage.api.post(secrets, bare_stage.releases.secret())
        bare_stage.wait_until_all_live("1.0.0")


def test_a_store_that_is_away_holds_up_no_other_version_and_is_tried_again(stage: Stage) -> None:
    stage.pods("web-0")
    with stage.releases.server.proxy() as proxy, stage.operator():
        proxy.refuse()
        stage.apply("1.1.0", source=stage.releases.source(endpoint=proxy.endpoint))
        stage.apply("1.0.0")
        stage.wait_until_all_live("1.0.0")
        away = Reason.SOURCE_UNAVAILABLE
        stage.wait_for_version("1.1.0", Ready=f"False/{away}", Reconciling=f"True/{away}")
        proxy.heal()
        stage.wait_until_all_live("1.1.0")


def test_an_endpoint_off_the_allow_list_is_refused(stage: Stage) -> None:
    stage.apply("1.0.0")
    with stage.operator(environment={"MODELPARAMS_ALLOWED_ENDPOINTS": "https://s3.example.com,aws"}):
        stage.wait_for_version("1.0.0", Ready=f"False/{Reason.INVALID_SPEC}", Stalled=f"True/{Reason.INVALID_SPEC}")
