"""How the programs of a pod begin: help lists the settings, and one that cannot be ends the process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from modelparams.errors import UsageError
from modelparams_serving.agent.settings import AgentSettings
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.starting import started


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MODELPARAMS_PORT", "http", "modelparams-serve: MODELPARAMS_PORT: "),
        ("MODELPARAMS_LOG_LEVEL", "loud", "modelparams-serve: 'loud' is no log level"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        started("modelparams-serve", "Serve.", EngineSettings, [])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert said.endswith("modelparams-serve --help lists the variables.\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:80", "udp://[fd00::1]:53"])
def test_what_a_service_s_name_makes_of_our_variables_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.setenv("MODELPARAMS_PORT", link)  # of a Service named modelparams
    assert EngineSettings().port == 8000
    monkeypatch.setenv("MODELPARAMS_PORT", "9000")
    assert EngineSettings().port == 9000


PROGRAMS = [
    pytest.param("modelparams_serving.agent", AgentSettings, id="agent"),
    pytest.param("modelparams_serving.engine", EngineSettings, id="engine", marks=pytest.mark.model),
]


def ran(module: str, argument: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, argument], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("module", "kind"), PROGRAMS)
def test_help_lists_each_variable_and_its_default(module: str, kind: type[BaseSettings]) -> None:
    helped = ran(module, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "MODELPARAMS_RUNTIME_DIR=/run/modelparams\n      The memory-backed volume" in helped.stdout
    assert {f"MODELPARAMS_{name.upper()}" for name in kind.model_fields} <= set(re.split(r"[\s=]", helped.stdout))


@pytest.mark.parametrize(("module", "kind"), PROGRAMS)
def test_an_argument_that_is_none_is_refused(module: str, kind: type[BaseSettings]) -> None:
    refused = ran(module, "--prot=80")
    assert refused.returncode == 2
    assert "unrecognized arguments: --prot=80" in refused.stderr


@pytest.mark.model
def test_a_device_that_is_not_there_is_named() -> None:
    from modelparams_serving.engine.device import choose

    with pytest.raises(UsageError, match="abacus cannot be used"):
        choose("abacus")


@pytest.mark.model
def test_a_runtime_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    from modelparams_serving.engine.__main__ import _make

    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file/run cannot be made"):
        _make(tmp_path / "file" / "run")


def agent_without_memory(**variables: str) -> list[str]:
    """What an agent says that starts on a runtime directory which is no memory: it ends there."""
    who = {f"MODELPARAMS_{name}": "tiny" for name in ("MODEL", "POD_NAME", "POD_NAMESPACE", "POD_UID")}
    ended = subprocess.run(
        [sys.executable, "-m", "modelparams_serving.agent"],
        env=os.environ | who | {"MODELPARAMS_RUNTIME_DIR": "/proc"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    return ended.stderr.splitlines()


ON_LINUX = pytest.mark.skipif(
    not Path("/proc/self/mountinfo").exists(), reason="only Linux tells what a directory lies on"
)


@ON_LINUX
def test_an_agent_writes_no_weights_to_a_disk() -> None:
    assert agent_without_memory()[-1].startswith("modelparams-agent: /proc is not in memory: it lies on proc")


@ON_LINUX
def test_a_variable_that_no_program_reads_is_told_with_the_nearest() -> None:
    said = [json.loads(line) for line in agent_without_memory(MODELPARAMS_THREAD="3")[:-1]]
    told = [(line["variable"], line["nearest"]) for line in said if line["event"] == "Variable of no program"]
    assert ("MODELPARAMS_THREAD", "MODELPARAMS_THREADS") in told
