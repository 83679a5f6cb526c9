"""No copy of a key stays behind: a login is read where it is, and a process's temporary files go with its state."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes.aio import client, config

from cluster.api import Api
from cluster.pki import Pki, kubeconfig
from cluster.process import Process, wait_until
from cluster.state import State, home_of

SERVER = "https://127.0.0.1:1"
MAKE_ONE = "import tempfile; print(tempfile.mkstemp()[1])"


def _by_certificate(pki: Pki) -> Path:
    return pki.kubeconfig(SERVER, "somebody", ["system:masters"])


def _by_token(pki: Pki) -> Path:
    file = pki.path("by-token")
    file.write_bytes(kubeconfig(SERVER, pki.path("ca.crt"), {"token": "of-a-test"}))
    return file


def _as_the_tests(login: Path) -> str:
    return Api(login).server


def _as_operator_and_agent(login: Path) -> str:
    settings = client.Configuration()
    asyncio.run(config.load_kube_config(str(login), client_configuration=settings))
    return str(settings.host)


@pytest.mark.parametrize("login", [_by_certificate, _by_token])
@pytest.mark.parametrize("use", [_as_the_tests, _as_operator_and_agent])
def test_who_uses_a_login_of_the_harness_copies_nothing_of_it(
    login: Callable[[Pki], Path], use: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    assert use(login(Pki.create(tmp_path / "pki", ["127.0.0.1"]))) == SERVER
    assert list(copies.iterdir()) == []


def _makes_one(folder: Path, environment: dict[str, str]) -> Path:
    process = Process("one", [sys.executable, "-S", "-c", MAKE_ONE], environment, folder / "log")
    process.start()
    wait_until(lambda: not process.is_running, "its end", seconds=30)
    return Path(process.log.read_text().strip())


def test_a_process_has_its_temporary_files_in_its_state_and_they_go_with_it(tmp_path: Path) -> None:
    state = State("leftovers")
    made = _makes_one(tmp_path, state.environment)
    assert made.parent == state.path
    assert made.exists()
    state.close()
    assert not made.exists()


def test_a_process_without_a_state_has_them_where_the_run_s_files_are(tmp_path: Path) -> None:
    assert _makes_one(tmp_path, {}).parent == home_of(os.getpid())


def test_a_process_that_was_given_a_folder_for_them_keeps_it(tmp_path: Path) -> None:
    assert _makes_one(tmp_path, {"TMPDIR": str(tmp_path)}).parent == tmp_path
