"""The commands of our pages, run as they stand there: only the store's address is another one."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders.agents import Agents
from builders.doc_blocks import ROOT, the_block
from builders.operator_process import QUICK, OperatorProcess
from builders.operator_stage import open_namespace
from builders.releases import SAMPLES
from cluster.api import Api
from cluster.control_plane import ControlPlane
from cluster.process import Process, wait_until
from cluster.s3 import Versitygw
from cluster.tools import binary
from modelparams.api import API_VERSION, GROUP

pytestmark = pytest.mark.integration

PUBLISH = the_block("README.md", "Publish and apply your own model", "sh")
LIBRARY = the_block("README.md", "Publish and apply your own model", "python")
READY = the_block("README.md", "Make a cluster ready", "sh")
OPERATOR = the_block("operator/README.md", "The operator", "")
SAMPLE = the_block("params/samples/README.md", "A sample repository of parameters", "")
NAMED = " --namespace models --credentials-secret modelparams-s3"
"""What "Make a cluster ready" has made."""
_SECONDS = 120.0


@dataclass
class Reader:
    """Someone who does what the pages say, in an empty directory with a sample model in it."""

    folder: Path
    kubeconfig: Path
    server: Versitygw
    bucket: str

    @property
    def environment(self) -> dict[str, str]:
        programs = {str(Path(sys.executable).parent): None, str(binary("kubectl").parent): None}
        return {
            "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.kubeconfig),
            **self.server.environment,
        }

    def made_real(self, text: str, bucket: str, model: str) -> str:
        """The text with our store's address in place of the page's."""
        shown = f"s3://{bucket}/{model}?endpoint=https://s3.example.com"
        assert shown in text
        return text.replace(shown, f"s3://{self.bucket}/{model}?endpoint={self.server.endpoint}")

    def starts(self, text: str, **more: str) -> Process:
        """Begin to run lines as a shell does that ends at the first error."""
        log = self.folder / "output"
        process = Process("the page", ["bash", "-euxo", "pipefail", "-c", text], self.environment | more, log)
        process.start()
        return process

    def runs(self, text: str) -> str:
        """Run lines, and give what they printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def has_directory(self, model: str, version: str) -> None:
        """Lay out a sample as `params/<model>/v<version>`."""
        shutil.copytree(SAMPLES / f"v{version}", self.folder / "params" / model / f"v{version}")


@pytest.fixture
def reader(kubeconfig: Path, namespace: str, s3: Versitygw, tmp_path: Path) -> Reader:
    settings = yaml.safe_load(kubeconfig.read_text())
    for context in settings["contexts"]:
        context["context"]["namespace"] = namespace
    (mine := tmp_path / "kubeconfig").write_text(yaml.safe_dump(settings))
    return Reader(tmp_path, mine, s3, s3.bucket(f"docs-{os.urandom(4).hex()}"))


@pytest.fixture
def pods(api: Api, namespace: str) -> Iterator[Agents]:
    """Two pods that opted in to the first page's model."""
    open_namespace(api, namespace)
    with Agents(api, namespace, "my-model") as agents:
        for name in ("web-0", "web-1"):
            agents.create(name)
        yield agents


def is_whole(trust: Path) -> bool:
    return trust.exists() and trust.read_text().endswith("}\n")


def test_the_first_page_s_commands_bring_a_model_to_the_pods(
    reader: Reader, pods: Agents, operator_kubeconfig: Path, namespace: str
) -> None:
    reader.has_directory("my-model", "1.0.0")
    (reader.folder / "params/my-model/v1.0.0/config.json").write_bytes(b"{}")  # without hashes: `hash` makes them
    assert NAMED in PUBLISH
    in_ours = PUBLISH.replace(NAMED, f" --namespace {namespace}").replace(
        "--namespace models", f"--namespace {namespace}"
    )
    text = reader.made_real(in_ours, "weights", "my-model")
    page = reader.starts(f"cd {reader.folder}\n{text}")
    try:
        trust = reader.folder / "trust.json"
        wait_until(lambda: is_whole(trust) or not page.is_running, "trust.json", seconds=_SECONDS)
        with OperatorProcess(
            reader.folder / "logs",
            kubeconfig=operator_kubeconfig,
            namespace=namespace,
            trust=trust,
            environment=reader.server.environment,
        ):
            wait_until(lambda: not page.is_running, "the page's commands to end", seconds=_SECONDS)
    finally:
        page.kill()
    assert page.exit_code == 0, page.log_tail()
    assert pods.live() == {"web-0": "1.0.0", "web-1": "1.0.0"}
    printed = page.log_tail(1000)
    assert "my-model-default" in printed
    assert "Promoted" in printed


def test_a_bare_cluster_becomes_ready_and_its_operator_verifies_with_the_secret(
    own_control_plane: ControlPlane, s3: Versitygw, tmp_path: Path
) -> None:
    """On a cluster of its own, since the policies bind whoever writes there."""
    reader = Reader(tmp_path, own_control_plane.kubeconfig, s3, s3.bucket(f"docs-{os.urandom(4).hex()}"))
    for room in ("crds", "operator"):
        (tmp_path / room).symlink_to(ROOT / room)
    reader.has_directory("my-model", "1.0.0")
    until_it_is_published, _, _ = PUBLISH.partition("kubectl apply")
    assert NAMED in until_it_is_published
    reader.runs(reader.made_real(until_it_is_published, "weights", "my-model"))
    operator = reader.starts(f"cd {tmp_path}\n{READY}", **QUICK)
    try:
        operator.wait_until(lambda: "Serving metrics and probes" in operator.log.read_text(), seconds=_SECONDS)
        reader.runs("kubectl apply -f my-model-1.0.0.yaml")
        reader.runs("kubectl --namespace=models wait mpv/my-model-1.0.0 --for=condition=Verified --timeout=60s")
    finally:
        operator.kill()


@pytest.mark.model
def test_the_first_page_s_library_takes_the_next_version(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    until_it_is_published, applying, _ = PUBLISH.partition("kubectl apply")
    assert applying
    first = reader.made_real(until_it_is_published, "weights", "my-model")
    reader.has_directory("my-model", "1.0.0")
    reader.has_directory("my-model", "1.1.0")
    reader.runs(first)
    _, again, each_version = first.partition("# Each version")
    assert again
    reader.runs("#" + each_version.replace("1.0.0", "1.1.0"))
    monkeypatch.chdir(reader.folder)
    for name, value in reader.server.environment.items():
        monkeypatch.setenv(name, value)
    module = module_of(SAMPLES / "v1.0.0")
    said = [result_of(reader.made_real(LIBRARY, "weights", "my-model"), names := {"module": module})]
    said.append(result_of(LIBRARY.splitlines()[-1], names))
    assert said == [True, False]
    assert str(names["loader"].live.version) == "1.1.0"


def module_of(directory: Path) -> Any:
    """The torch program of whoever reads the page."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype="bfloat16")


def result_of(source: str, names: dict[str, Any]) -> object:
    """Run code, and give the value of its last line."""
    *statements, last = ast.parse(source).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(statements, []), "the page", "exec"), names)
    return eval(compile(ast.Expression(last.value), "the page", "eval"), names)


def test_the_operator_s_commands_run_it_and_explain(
    reader: Reader, operator_kubeconfig: Path, namespace: str, api: Api
) -> None:
    open_namespace(api, namespace)
    run, explain = OPERATOR.splitlines()
    settings = {
        **QUICK,
        "MODELPARAMS_TRUST": str(reader.folder / "trust.json"),
        "MODELPARAMS_WATCH_NAMESPACES": namespace,
        "MODELPARAMS_LEASE_NAMESPACE": namespace,
        "KUBECONFIG": str(operator_kubeconfig),
    }
    reader.runs(MADE_KEYS)
    for command in [part.strip() for part in run.split("# or:")]:
        serves_and_stops(reader.starts(f"exec {command}", **settings))
    rollout = {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": "ModelParamRollout", "metadata": {"name": "tiny-llama"}}
    policy = {"type": "HighestSemver", "range": ">=1.0.0"}
    spec = {"modelName": "tiny-llama", "versionPolicy": policy}
    place = f"/apis/{GROUP}/{API_VERSION}/namespaces/{namespace}/modelparamrollouts/tiny-llama"
    api.apply(place, rollout | {"spec": spec})
    assert "tiny-llama" in reader.runs(explain)


def serves_and_stops(operator: Process) -> None:
    operator.wait_until(lambda: "Serving metrics and probes" in operator.log.read_text(), seconds=_SECONDS)
    operator.stop()
    assert operator.exit_code == 0, operator.log_tail()
    operator.log.unlink()


MADE_KEYS = """
modelparams keys kek tiny-llama
modelparams keys signer release.pem
modelparams keys trust release.pem --out trust.json
"""


def test_the_sample_repository_s_command_publishes_and_applies(reader: Reader) -> None:
    reader.has_directory("tiny-llama", "1.1.0")
    reader.runs(MADE_KEYS)
    said = reader.runs(reader.made_real(SAMPLE, "models", "tiny-llama"))
    assert said == "modelparamversion.modelparams.dev/tiny-llama-1.1.0 created\n"
