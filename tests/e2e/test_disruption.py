"""What happens to pods in a cluster's life: none of it loses the version, and none fetches without need."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from cluster.api import ApiError
from cluster.kubectl import KubectlFailed
from deployed.model import Model
from deployed.release import SYSTEM
from deployed.scene import Scene
from deployed.serving import LABEL, is_ready, name_of, statuses
from deployed.target import NoTarget
from e2e.conftest import PODS, until

pytestmark = [pytest.mark.integration]

AGENT_METRICS = 9465
# Fills its container's memory by many small processes, so that the kernel ends the one that is larger and marked.
HOG = """
import os, time
open("/proc/1/oom_score_adj", "w").write("1000")
while True:
    if os.fork() == 0:
        kept = b"x" * (64 << 20)
        time.sleep(100)
    time.sleep(0.05)
"""


def names(world: Scene) -> set[str]:
    return {name_of(pod) for pod in world.serving.pods()}


def restarts(world: Scene, pod: str) -> dict[str, int]:
    (found,) = [p for p in world.serving.pods() if name_of(p) == pod]
    return {name: status["restartCount"] for name, status in statuses(found).items()}


def fetched(world: Scene, pod: str) -> float:
    with world.target.reach(world.plan.namespace, f"pod/{pod}", AGENT_METRICS) as url:
        text = httpx.get(f"{url}/metrics", timeout=30).text
    (value,) = re.findall(r"^modelparams_agent_fetched_bytes_total (\S+)$", text, re.MULTILINE)
    return float(value)


def version_of(url: str) -> str:
    request = {"prompt": "a", "max_tokens": 1, "temperature": 0}
    answer = httpx.post(f"{url}/v1/completions", json=request, timeout=60).raise_for_status()
    return str(answer.headers["x-modelparams-version"])


def test_new_pods_of_a_scale_up_come_with_the_live_version_and_leave_the_others_alone(
    world: Scene, model: Model
) -> None:
    before = world.serving.starts()
    world.serving.scale(PODS + 1)
    world.serving.wait_ready(PODS + 1, seconds=120)
    assert {version_of(url) for _, url in world.serving.ready()} == {"1.0.0"}
    assert world.serving.starts().items() >= before.items()

    world.serving.scale(PODS)
    world.serving.wait_ready(PODS, seconds=120)
    until("no order to be left of the pod that went", lambda: set(model.orders()) == names(world))


def test_a_deleted_pod_is_replaced_by_one_with_the_live_version(world: Scene, model: Model) -> None:
    gone = min(names(world))
    world.kubectl("delete", "pod", gone, "--wait=false")
    until("it to go", lambda: gone not in names(world))
    world.serving.wait_ready(PODS, seconds=120)
    model.wait_live("1.0.0", PODS, seconds=60)
    assert {version_of(url) for _, url in world.serving.ready()} == {"1.0.0"}


def test_after_a_drain_the_pods_come_back_with_the_live_version(world: Scene, model: Model) -> None:
    (node,) = {pod["spec"]["nodeName"] for pod in world.serving.pods()}
    before = names(world)
    world.kubectl(
        *("drain", node, f"--pod-selector={LABEL}={world.plan.model}", "--delete-emptydir-data", "--force"),
        *("--ignore-daemonsets", "--timeout=120s"),
        timeout=150,
    )
    world.kubectl("uncordon", node)
    world.serving.wait_ready(PODS, seconds=120)
    model.wait_live("1.0.0", PODS, seconds=60)
    assert not before & names(world)


def test_an_engine_that_the_kernel_kills_comes_back_from_the_arena_without_fetching(world: Scene, model: Model) -> None:
    pod = min(names(world))
    before, started = fetched(world, pod), restarts(world, pod)
    assert before > 0
    with pytest.raises(KubectlFailed, match="137"):  # it ends with its container
        world.kubectl("exec", pod, "-c", "engine", "--", "python", "-c", HOG, timeout=120)
    until("the engine to be started again", lambda: restarts(world, pod)["engine"] > started["engine"], 120)
    world.serving.wait_ready(PODS, seconds=120)
    assert version_of(world.serving.url(pod)) == "1.0.0"
    assert fetched(world, pod) == before
    assert restarts(world, pod)["modelparams-agent"] == started["modelparams-agent"]


def test_while_an_agent_is_started_again_its_engine_serves_on_and_then_swaps(
    world: Scene, model: Model, newer: Path
) -> None:
    pod = min(names(world))
    before = restarts(world, pod)  # of disruptions that came earlier
    world.target.kill(world.plan.namespace, pod, "modelparams-agent")
    until(
        "the agent to be started again",
        lambda: restarts(world, pod)["modelparams-agent"] > before["modelparams-agent"],
    )
    assert version_of(world.serving.url(pod)) == "1.0.0"
    model.apply(newer)
    model.wait_live("1.1.0", PODS, seconds=120)
    assert restarts(world, pod)["engine"] == before["engine"]
    assert version_of(world.serving.url(pod)) == "1.1.0"
    world.kubectl("delete", "pod", pod)


def test_a_rollout_goes_on_when_the_operators_leader_is_killed(world: Scene, model: Model, newer: Path) -> None:
    lease = world.release.kubectl.json("get", "lease", "modelparams-operator")
    leader = lease["spec"]["holderIdentity"].split("_")[0]
    model.apply(newer)
    world.release.kubectl("delete", "pod", leader, "--grace-period=0", "--force")
    model.wait_live("1.1.0", PODS, seconds=180)
    held = world.release.kubectl.json("get", "lease", "modelparams-operator")["spec"]["holderIdentity"]
    assert held.split("_")[0] != leader
    world.release.kubectl("rollout", "status", "deployment/modelparams-operator", "--timeout=120s", timeout=150)


def test_after_a_power_cut_of_the_node_the_pods_serve_the_live_version_again(world: Scene, model: Model) -> None:
    before = world.serving.starts()
    try:
        world.target.reboot()
    except NoTarget as why:
        pytest.skip(str(why))

    def again() -> bool:
        try:
            now = world.serving.starts()
        except (ConnectionError, ApiError):  # where the API server is on that node
            return False
        return all(now.get(key, (0, ""))[0] > count for key, (count, _) in before.items())

    until("all containers to be started again", again, 180)
    world.serving.wait_ready(PODS, seconds=180)
    model.wait_live("1.0.0", PODS, seconds=120)
    assert all(map(is_ready, world.serving.pods()))
    assert {version_of(url) for _, url in world.serving.ready()} == {"1.0.0"}
    until("the operator to be back", lambda: operators(world) > 0, 120)


def operators(world: Scene) -> int:
    found = world.release.kubectl.json("get", "deployment", "modelparams-operator", "--namespace", SYSTEM)
    return int(found["status"].get("readyReplicas", 0))
