"""Nodes from outside: two side by side, and nothing of them afterwards, however they ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from builders.doc_blocks import ROOT, the_block
from builders.workloads import container, pod
from cluster.node import Node, NodeCluster
from cluster.node.debian import SEARCH
from cluster.process import wait_until
from cluster.state import groups_of, home_path, processes_of, start_time
from cluster.tools.recipes import NODE

pytestmark = [pytest.mark.integration, pytest.mark.node]

TESTS = Path(__file__).parents[2]
SIGNS = ("containerd", "kubelet", "kube-proxy", "cni", "veth", "node0", "node1", "modelparams")
"""Of whatever a node could leave on a machine on which others work too."""
FOLDERS = ("/etc", "/opt", "/run", "/run/netns", "/usr/libexec", "/var/lib", "/var/log", "/var/log/pods", "/dev/shm")


def run(*command: str) -> str:
    environment = dict(os.environ) | {"PATH": SEARCH}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def traces() -> set[str]:
    """What the machine shows outside of any world: mounts, links, nft tables, network namespaces, folders."""
    lines = [
        *Path("/proc/self/mountinfo").read_text().splitlines(),
        *run("ip", "-o", "link").splitlines(),
        *run("nft", "list", "tables").splitlines(),
        *(str(path) for folder in FOLDERS if Path(folder).is_dir() for path in Path(folder).iterdir()),
    ]
    return {line for line in lines if any(sign in line for sign in SIGNS)}


@dataclass
class World:
    """A node with a running pod, and what is seen of it outside: its control groups, and each process in them."""

    node: Node
    groups: list[Path] = field(default_factory=list)
    born: dict[int, str | None] = field(default_factory=dict)

    def look(self) -> None:
        self.groups = groups_of(self.node.files.folder)
        procs = [pid for group in self.groups for pid in (group / "cgroup.procs").read_text().split()]
        self.born = {int(pid): start_time(int(pid)) for pid in procs}

    def alive(self) -> list[int]:
        return [pid for pid, born in self.born.items() if born is not None and start_time(pid) == born]

    def inside(self, *command: str, stdin: str = "") -> str:
        environment = {**os.environ, **self.node.environment()}
        done = subprocess.run(
            self.node.command(command), env=environment, input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout

    def start_pod(self) -> None:
        self.inside("kubectl", "apply", "-f", "-", stdin=json.dumps(pod("p", container("c", "pause"))))
        self.inside("kubectl", "wait", "--for=condition=Ready", "pod/p", "--timeout=60s")
        self.look()

    def assert_is_there(self) -> None:
        assert len(self.alive()) > len(NODE), "each program of the node, and the pod's two processes"
        assert any("kubepods" in str(group) and (group / "cgroup.procs").read_text() for group in self.groups)
        assert "kube-proxy" in self.inside("nft", "list", "tables")
        assert "veth" in self.inside("ip", "-o", "link")
        assert self.inside("cat", "/proc/mounts").count("overlay") > 1, "of /var/lib, and of each container"

    def assert_is_gone(self) -> None:
        folder = self.node.files.folder
        assert not self.alive()
        assert not processes_of(folder)
        assert not folder.exists()
        assert not [group for group in self.groups if group.exists()]
        assert not groups_of(folder)


@pytest.fixture
def before(outside: None) -> set[str]:
    """What was there before any node of the test."""
    return traces()


@pytest.fixture
def client(before: set[str]) -> Iterator[tuple[subprocess.Popen[str], World]]:
    """Another process that started a node with a pod and now waits."""
    script = "import cluster.node as n; c = n.NodeCluster(); c.start(); print(c.files.folder, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout
        world = World(Node(Path(child.stdout.readline().strip())))
        world.start_pod()
        yield child, world
        child.kill()


def test_two_run_side_by_side_and_leave_nothing_in_order_or_killed(
    before: set[str], client: tuple[subprocess.Popen[str], World]
) -> None:
    killed_client, killed = client
    with NodeCluster() as cluster:
        ours = World(cluster)
        ours.start_pod()
        for world in (ours, killed):
            world.assert_is_there()
        uid = ("kubectl", "get", "pod", "p", "-o", "jsonpath={.metadata.uid}")
        assert ours.inside(*uid) != killed.inside(*uid)
    ours.assert_is_gone()
    killed.assert_is_there()
    os.kill(killed_client.pid, signal.SIGKILL)
    wait_until(lambda: not killed.node.files.folder.exists(), "the guard to sweep", seconds=30)
    killed.assert_is_gone()
    assert traces() - before == set()


def test_a_client_killed_while_its_node_starts_leaves_nothing(before: set[str]) -> None:
    script = "import cluster.node as n; n.NodeCluster().start()"
    child = subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(TESTS)})
    with child:
        home = home_path(child.pid)
        wait_until(lambda: any(home.glob("node-*/kubelet")), "the node to be half up", seconds=60)
        [folder] = home.glob("node-*")
        assert groups_of(folder)
        os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: not home.exists(), "the guard to sweep", seconds=30)
    assert not groups_of(folder)
    assert not processes_of(folder)
    assert traces() - before == set()


def test_the_commands_of_the_page_start_use_and_end_a_node(before: set[str]) -> None:
    block = the_block("tests/cluster/README.md", "A real node", "")
    lines = [line for line in block.splitlines() if "cluster.node" in line]
    assert len(lines) == 4
    shell = "set -e\n" + "\n".join(lines)
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    shown = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("node ")]
    assert shown == [["node", "Ready"]] * 2
    assert done.stderr.count("a node is ready after") == 2
    assert traces() - before == set()
