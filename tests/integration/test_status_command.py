"""`modelparams status` against a real API server, as its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders import objects
from builders.objects import Object, rollout, version
from cluster.api import Api

pytestmark = pytest.mark.integration

RUN = "import typer; from modelparams_operator.cli import status; typer.run(status)"


def run(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    command = [sys.executable, "-c", RUN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


def report(api: Api, namespace: str, subject: Object, *, ready: str, reason: str, beside: str = "") -> None:
    """Create the object with the conditions that the operator would write."""
    path = objects.path(f"{subject['kind'].lower()}s", namespace)
    stored = api.post(path, subject)
    told = [("Ready", ready)] + ([(beside, "True")] if beside else [])
    conditions = [
        {"type": kind, "status": status, "reason": reason, "lastTransitionTime": "2026-11-24T12:00:00Z"}
        for kind, status in told
    ]
    status = {"observedGeneration": stored["metadata"]["generation"], "conditions": conditions}
    api.patch(f"{path}/{subject['metadata']['name']}/status", {"status": status})


def test_it_exits_with_what_it_found(api: Api, namespace: str, kubeconfig: Path) -> None:
    report(api, namespace, version(), ready="True", reason="Live")
    report(api, namespace, rollout(), ready="True", reason="Promoted")
    done = run(kubeconfig, "--namespace", namespace)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Promoted" in done.stdout
    report(api, namespace, version("1.1.0"), ready="Unknown", reason="Verifying", beside="Reconciling")
    moving = run(kubeconfig, "smollm2", "-n", namespace, "-o", "json")
    assert moving.returncode == 10
    assert [row["reason"] for row in json.loads(moving.stdout)["versions"]] == ["Live", "Verifying"]
    report(api, namespace, version("1.2.0"), ready="False", reason="SealBroken", beside="Stalled")
    failed = run(kubeconfig, "smollm2", "-n", namespace, "--watch", "--timeout", "30")
    assert failed.returncode == 11
    assert "SealBroken" in failed.stdout


@pytest.mark.parametrize("watch", [(), ("--watch",)])
def test_where_nothing_is_nothing_is_ready(namespace: str, kubeconfig: Path, watch: tuple[str, ...]) -> None:
    done = run(kubeconfig, "--namespace", namespace, *watch, "--output", "json")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"there is no rollout and no version in namespace {namespace}" in done.stderr
    assert "look everywhere with --all-namespaces" in " ".join(done.stderr.split())


def test_who_looked_everywhere_is_not_told_to_look_everywhere(kubeconfig: Path) -> None:
    done = run(kubeconfig, "no-such-model", "--all-namespaces")
    told = " ".join(done.stderr.split())
    assert "there is no rollout and no version of no-such-model in any namespace. Check the name." in told


def test_two_ways_to_say_where_are_one_too_many(namespace: str, kubeconfig: Path) -> None:
    done = run(kubeconfig, "--namespace", namespace, "--all-namespaces")
    assert (done.returncode, "leave one of them out" in done.stderr) == (1, True)


def test_a_server_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    nowhere = tmp_path / "kubeconfig"
    done = run(nowhere)
    assert done.returncode == 1
    assert "no way to an API server" in done.stderr
