"""What a pod does with bad input and bad luck: a real agent with its pod's own token, a real API server and S3 server.

The engine is the fake one, in a process of its own: what matters here is what it is handed, and what it serves on.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.agent_scene import LIMIT, Scene, staged
from builders.releases import KEY_REF, Releases
from cluster.api import Api, ApiError
from cluster.control_plane import Access, ControlPlane
from cluster.faults import FaultProxy
from cluster.process import wait_until
from modelparams.api import API_VERSION, GROUP
from modelparams.reasons import Reason
from modelparams.trust import SigningKey, TrustPolicy

pytestmark = pytest.mark.integration

Object = dict[str, Any]


@pytest.fixture
def releases(tmp_path: Path, bucket: Any) -> Releases:
    return Releases(tmp_path, bucket.server, bucket.name)


@pytest.fixture
def scene(control_plane: Access, api: Api, namespace: str, releases: Releases, tmp_path: Path) -> Iterator[Scene]:
    with staged(control_plane, api, namespace, releases, tmp_path) as made:
        yield made


@pytest.fixture
def serving(scene: Scene) -> Scene:
    """A pod that serves 1.0.0."""
    scene.start()
    scene.order("1.0.0", activate="1.0.0")
    scene.wait_live("1.0.0")
    return scene


def test_an_update_and_the_way_back(serving: Scene) -> None:
    serving.order("1.1.0", "1.0.0", activate="1.0.0")
    serving.wait(lambda: len(serving.status().get("staged", [])) == 2)
    assert serving.serves() == "1.0.0"
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    serving.wait_live("1.1.0")
    status = serving.status()
    assert status["state"] == "Live"
    assert status["pauseMicroseconds"] == 7
    assert status["live"]["tensorsDigest"]
    assert "lastFailure" not in status
    serving.order("1.1.0", "1.0.0", activate="1.0.0")
    serving.wait_live("1.0.0")
    assert serving.pods.restarts() == {"web-0/agent": 0, "web-0/engine": 0}


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def blobs(scene: Scene) -> Path:
    return scene.releases.server.object_path(scene.releases.bucket, "blobs/sha256")


def test_a_blob_that_was_flipped_after_the_operators_check_is_refused_and_tried_again_when_asked(
    serving: Scene, tmp_path: Path
) -> None:
    before = {file.name for file in blobs(serving).iterdir()}
    serving.release("1.1.0")
    shutil.copytree(blobs(serving), tmp_path / "good")
    new = [file for file in blobs(serving).iterdir() if file.name not in before]  # others are not fetched again
    flip(max(new, key=lambda file: file.stat().st_size))
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    failure = serving.wait_failure(Reason.BLOB_DIGEST_MISMATCH, final=True)
    assert failure["versionName"] == "tiny-llama-1.1.0"
    assert "publish the directory under a new number" in failure["message"].lower()
    assert serving.status()["state"] == "Failed"
    assert serving.serves() == "1.0.0"

    shutil.copytree(tmp_path / "good", blobs(serving), dirs_exist_ok=True)
    serving.order("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
    serving.wait_live("1.1.0")
    assert "lastFailure" not in serving.status()


def test_a_key_that_is_missing_is_waited_for(scene: Scene) -> None:
    kek = scene.folder / "keys" / KEY_REF
    scene.release("1.0.0")
    kek.rename(kek.with_name("elsewhere"))
    scene.start()
    scene.order("1.0.0", activate="1.0.0")
    failure = scene.wait_failure(Reason.KEY_UNAVAILABLE, final=False)
    assert KEY_REF in failure["message"]
    assert "mount the key" in failure["message"].lower()
    assert scene.pods.ready() == []
    kek.with_name("elsewhere").rename(kek)
    scene.order("1.0.0", activate="1.0.0", attempt="1")
    scene.wait_live("1.0.0")


def test_another_key_is_told_apart_from_none(serving: Scene) -> None:
    kek = serving.folder / "keys" / KEY_REF
    serving.release("1.1.0")
    right = kek.read_bytes()
    kek.write_bytes(os.urandom(32))
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    failure = serving.wait_failure(Reason.KEY_UNAVAILABLE, final=False)
    assert "other keys" in failure["message"]
    assert serving.serves() == "1.0.0"
    kek.write_bytes(right)
    serving.order("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
    serving.wait_live("1.1.0")


def test_a_signer_whom_the_pod_does_not_trust_is_refused_whatever_the_operator_says(serving: Scene) -> None:
    serving.release("1.1.0")
    known = serving.releases.trust.read_bytes()
    serving.releases.trust.write_bytes(TrustPolicy.of(SigningKey.generate()).to_json())
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    failure = serving.wait_failure(Reason.TRUST_UNAVAILABLE, final=False)
    assert "trusted: key" in failure["message"]
    assert serving.serves() == "1.0.0"
    serving.releases.trust.write_bytes(known)  # as a signer who joins: the pod has the policy later than the operator
    serving.order("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
    serving.wait_live("1.1.0")


def test_an_order_for_a_digest_of_another_model_is_refused(serving: Scene) -> None:
    serving.order("1.1.0", "1.0.0", activate="1.1.0", modelName="another", versionName="another-1.1.0")
    serving.wait_failure(Reason.WRONG_MODEL, final=True)
    assert serving.serves() == "1.0.0"


@pytest.mark.parametrize("reason", [Reason.LAYOUT_MISMATCH, Reason.NOT_FINITE])
def test_what_the_engine_refuses_is_reported_and_the_pod_serves_on(serving: Scene, reason: Reason) -> None:
    serving.faults(refuse={"prepare": str(reason)})
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    serving.wait_failure(reason, final=True)
    assert serving.serves() == "1.0.0"
    serving.faults()
    serving.order("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
    serving.wait_live("1.1.0")


def test_no_memory_for_an_arena_is_waited_for(serving: Scene) -> None:
    serving.faults(memory=300_000)
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    failure = serving.wait_failure(Reason.ARENA_EXHAUSTED, final=False)
    assert "memory volume" in failure["message"]
    assert serving.serves() == "1.0.0"
    serving.faults()
    serving.order("1.1.0", "1.0.0", activate="1.1.0", attempt="1")
    serving.wait_live("1.1.0")


def cut(proxy: FaultProxy) -> None:
    proxy.cut(after=20_000)


def refuse(proxy: FaultProxy) -> None:
    proxy.refuse()


def unavailable(proxy: FaultProxy) -> None:
    proxy.http503(times=1000)


@pytest.mark.parametrize("harm", [cut, refuse, unavailable])
def test_a_store_that_is_away_is_waited_for(
    serving: Scene, s3_faults: FaultProxy, harm: Callable[[FaultProxy], None]
) -> None:
    serving.endpoint = s3_faults.endpoint
    serving.release("1.1.0")
    harm(s3_faults)
    serving.order("1.1.0", activate="1.1.0")
    serving.wait_failure(Reason.SOURCE_UNAVAILABLE, final=False)
    assert serving.serves() == "1.0.0"
    s3_faults.heal()
    serving.order("1.1.0", activate="1.1.0", attempt="1")
    serving.wait_live("1.1.0")


def test_wrong_credentials_are_told_as_such(scene: Scene) -> None:
    scene.start(AWS_SECRET_ACCESS_KEY="wrong")
    scene.order("1.0.0", activate="1.0.0")
    failure = scene.wait_failure(Reason.SOURCE_DENIED, final=False)
    assert "wrong" not in failure["message"]
    assert "check the access key" in failure["message"].lower()
    assert "AWS_SECRET" not in scene.pods.logs("web-0", "agent")


def test_an_agent_that_is_killed_while_staging_goes_on_and_the_pod_serves(
    serving: Scene, s3_faults: FaultProxy
) -> None:
    serving.endpoint = s3_faults.endpoint
    serving.release("1.1.0")
    s3_faults.slow(bytes_per_second=50_000)
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    serving.wait(lambda: serving.status().get("state") == "Staging")
    serving.pods.kill("web-0", "agent", signal.SIGKILL)
    assert serving.serves() == "1.0.0"
    s3_faults.heal()
    serving.wait_live("1.1.0")
    assert serving.pods.restarts() == {"web-0/agent": 1, "web-0/engine": 0}


def test_a_store_that_stalls_holds_up_no_other_order(serving: Scene, s3_faults: FaultProxy) -> None:
    """Its staging is given up at once; only its arena is free again when the hanging read has ended."""
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    serving.wait_live("1.1.0")
    serving.endpoint = s3_faults.endpoint
    serving.release("1.2.0")
    s3_faults.stall(after=10_000)
    serving.order("1.2.0", "1.1.0", activate="1.1.0")
    serving.wait(lambda: s3_faults.done["stall"] > 0)
    serving.order("1.1.0", activate="1.1.0")
    serving.wait(lambda: serving.status().get("state") == "Live", 5)
    assert serving.serves() == "1.1.0"
    s3_faults.heal()
    serving.order("1.1.0", "1.0.0", activate="1.0.0")
    serving.wait_live("1.0.0")


@pytest.mark.parametrize("op", ["prepare", "commit"])
def test_an_engine_that_is_killed_while_swapping_comes_back_from_the_arena(serving: Scene, op: str) -> None:
    serving.faults(dies_at={op: 1})
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    serving.wait(lambda: serving.pods.restarts()["web-0/engine"] == 1)
    serving.wait_live("1.1.0")
    assert fetches(serving) == 2


def fetches(scene: Scene) -> int:
    return scene.pods.logs("web-0", "agent").count('"Verified and opened"')


def test_an_engine_that_is_killed_at_rest_comes_back_from_the_arena_without_a_fetch(serving: Scene) -> None:
    serving.pods.kill("web-0", "engine", signal.SIGKILL)
    serving.wait(lambda: serving.pods.restarts()["web-0/engine"] == 1)
    serving.wait_live("1.0.0")
    assert fetches(serving) == 1


def test_both_killed_fetch_again(serving: Scene) -> None:
    serving.pods.kill("web-0", "agent", signal.SIGKILL)
    serving.pods.kill("web-0", "engine", signal.SIGKILL)
    serving.wait(lambda: serving.pods.restarts()["web-0/engine"] == 1)
    serving.wait_live("1.0.0")


def test_sigterm_ends_the_agent_at_once_and_leaves_the_engine_serving(serving: Scene) -> None:
    serving.pods.kill("web-0", "agent", signal.SIGTERM)
    serving.wait(lambda: serving.pods.restarts()["web-0/agent"] == 1, 5)
    assert serving.serves() == "1.0.0"
    assert '"Stopped"' in serving.pods.logs("web-0", "agent")


def test_an_order_of_a_past_leader_moves_nothing(serving: Scene) -> None:
    serving.term = 5
    serving.order("1.0.0", activate="1.0.0")
    serving.wait(lambda: serving.status().get("term") == 5)
    # The API server itself refuses a lower term on the object: the agent's memory is for a new object.
    serving.operator.delete(serving.path())
    serving.term = 4
    serving.order("1.1.0", "1.0.0", activate="1.1.0")
    serving.wait(lambda: "StaleTerm" in serving.pods.logs("web-0", "agent"))
    serving.wait(lambda: serving.status().get("term") == 5)  # so the operator learns which term it takes
    assert serving.serves() == "1.0.0"


def test_without_an_operator_a_new_pod_serves_what_is_live_in_its_rollout(scene: Scene) -> None:
    policy = {"type": "HighestSemver", "range": ">=1.0.0 <2.0.0"}
    rollout = {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": "ModelParamRollout",
        "metadata": {"name": "tiny-llama", "namespace": scene.namespace},
        "spec": {"modelName": scene.releases.model, "versionPolicy": policy},
    }
    path = scene.path("modelparamrollouts", "tiny-llama")
    scene.api.apply(path, rollout)
    scene.operator.apply(f"{path}/status", rollout | {"status": {"live": scene.release("1.0.0")}})
    scene.start()
    scene.wait(lambda: scene.serves() == "1.0.0")
    scene.order("1.0.0", activate="1.0.0")
    scene.wait_live("1.0.0")
    assert fetches(scene) == 1


def test_an_api_server_that_is_away_for_a_while_changes_nothing_and_is_told_afterwards(
    own_control_plane: ControlPlane, releases: Releases, tmp_path: Path
) -> None:
    api = Api(own_control_plane.kubeconfig)
    api.post("/api/v1/namespaces", {"metadata": {"name": "serving"}})
    with staged(own_control_plane.access, api, "serving", releases, tmp_path) as scene:
        scene.start()
        scene.order("1.0.0", activate="1.0.0")
        scene.wait_live("1.0.0")
        own_control_plane.kill_apiserver()
        scene.pods.kill("web-0", "engine", signal.SIGKILL)
        wait_until(lambda: scene.pods.restarts()["web-0/engine"] == 1, "the engine to come back", seconds=LIMIT)
        wait_until(lambda: scene.serves() == "1.0.0", "1.0.0 without an API server", seconds=LIMIT)
        own_control_plane.start_apiserver()
        scene.order("1.1.0", "1.0.0", activate="1.1.0")
        scene.wait_live("1.1.0")
        assert fetches(scene) == 2


def test_a_pod_can_answer_no_order_but_its_own(serving: Scene) -> None:
    """What the agent may do is what operator/deploy grants: it reads orders, and writes statuses only."""
    pod = Api(serving.pods.kubeconfig("web-0"))
    with pytest.raises(ApiError) as refused:
        pod.patch(serving.path(), {"spec": {"term": 9}})
    assert refused.value.code == 403
    with pytest.raises(ApiError) as refused:
        pod.get(f"/api/v1/namespaces/{serving.namespace}/secrets")
    assert refused.value.code == 403
