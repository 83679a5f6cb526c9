"""`modelparams serve`: a sealed version on this machine."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from builders.arenas import SAMPLES
from builders.in_memory import memory_directory
from cluster.process import free_port, wait_until
from modelparams.keys import LocalKeyProvider
from modelparams.names import ModelName, Version
from modelparams.progress import NoProgress
from modelparams.publish import publish
from modelparams.store import open_store
from modelparams.trust import SigningKey, TrustPolicy

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]


@pytest.fixture
def memory() -> Iterator[Path]:
    """For the arenas and the socket."""
    with memory_directory() as folder:
        yield folder


@pytest.fixture
def sealed(tmp_path: Path, memory: Path) -> list[str]:
    """The options for a store with version 1.0.0 of the sample model."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "kek").write_bytes(os.urandom(32))
    signer = SigningKey.generate()
    (tmp_path / "trust.json").write_bytes(TrustPolicy.of(signer).to_json())
    publish(
        SAMPLES / "v1.0.0",
        open_store(str(tmp_path / "store")),
        model=ModelName("tiny-llama"),
        version=Version("1.0.0"),
        keys=LocalKeyProvider(tmp_path / "keys"),
        key_ref="kek",
        signers=[signer],
        cache=tmp_path / "cache",
    )
    where = ["--store", str(tmp_path / "store"), "--trust", str(tmp_path / "trust.json")]
    return [*where, "--keys", str(tmp_path / "keys"), "--key-ref", "kek", "--memory", str(memory)]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from modelparams.cli import main; main()", "serve", *arguments]


def test_a_sealed_version_answers_until_ctrl_c_and_leaves_no_plaintext(sealed: list[str], memory: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    started = subprocess.Popen(command("1.0.0", *sealed, "--port", str(port)), stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: started.poll() is not None or _is_ready(url), "the version to answer", seconds=240)
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": "hello", "max_tokens": 3}, timeout=30)
        assert answer.json()["model_params"]["version"] == "1.0.0"
        assert any(memory.iterdir())
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 0
    finally:
        started.kill()
        _, said = started.communicate()
    steps = [f"listening on {url}", "pull: ", "building the model", f"tiny-llama-1.0.0 answers on {url}/v1", "left"]
    assert [step for line in said.splitlines() for step in steps if line.startswith(step) or step in line] == steps
    assert not any(memory.iterdir())


def test_of_any_free_port_the_number_is_told_and_a_second_signal_cuts_off_no_tidying_up(
    sealed: list[str], memory: Path
) -> None:
    with subprocess.Popen(command("1.0.0", *sealed, "--port", "0"), stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr
        told = list(itertools.takewhile(lambda line: " answers on " not in line, started.stderr))
        assert any(re.match(r"listening on http://127\.0\.0\.1:[1-9]\d+\b", line) for line in told)
        started.send_signal(signal.SIGINT)
        assert any(line == "left\n" for line in started.stderr)  # the interpreter is about to end
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=60)
    assert started.returncode == 0
    assert not any(memory.iterdir())


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="only Linux tells what a directory lies on")
def test_a_directory_on_a_disk_is_refused_before_anything_is_read(sealed: list[str]) -> None:
    ended = subprocess.run(command("1.0.0", *sealed[:-1], "/proc"), capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("Usage: /proc is not in memory: it lies on proc")


def test_a_sigterm_before_the_version_answers_ends_with_zero(sealed: list[str], memory: Path) -> None:
    port = str(free_port())
    with subprocess.Popen(command("1.0.0", *sealed, "--port", port), stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr
        assert any("loading torch" in line for line in started.stderr)
        started.send_signal(signal.SIGTERM)
        _, said = started.communicate(timeout=60)
    assert (started.returncode, said.splitlines()[-1:]) == (0, ["left"])
    assert not any(memory.iterdir())


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_pull_that_a_signal_ends_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from builders.engines import settings
    from modelparams_serving.engine import standalone
    from modelparams_serving.engine.__main__ import Engine
    from modelparams_serving.engine.library import Library
    from modelparams_serving.engine.listening import bound

    async def scene() -> None:
        small = settings(tmp_path)
        engine = Engine(small, Library.at_once(small))

        def stopped() -> None:
            engine.drain.begin()
            raise CancelledError  # as `pull` does

        async def put_live(*_: object) -> None:
            await asyncio.to_thread(stopped)

        monkeypatch.setattr(standalone, "put_live", put_live)
        with bound("127.0.0.1", 0) as listener:
            await standalone._served(engine, cast("Any", None), listener, NoProgress(), lambda _: None)

    asyncio.run(scene())


def test_a_version_that_was_tampered_with_is_refused_before_anything_listens(
    sealed: list[str], tmp_path: Path, memory: Path
) -> None:
    blob = next((tmp_path / "store" / "blobs" / "sha256").iterdir())
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    ended = subprocess.run(
        command("1.0.0", *sealed, "--port", str(free_port())), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert "answers on" not in ended.stderr
    assert not any(memory.iterdir())


def refused_at_once(sealed: list[str], *options: str, **variables: str) -> str:
    """What the command says that is refused before the store is asked and torch is loaded."""
    where = ["--store", "/proc/no-store", *sealed[2:]]
    asked = command("1.0.0", *where, *options)
    ended = subprocess.run(asked, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "no-store" not in ended.stderr
    assert "loading torch" not in ended.stderr
    return " ".join(ended.stderr.split())


def test_a_port_that_is_taken_is_told_before_anything_is_asked_or_loaded(sealed: list[str], memory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1 port {port} cannot be listened on (Address already in use)" in refused_at_once(
            sealed, "--port", port
        )
    assert not any(memory.iterdir())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "192.0.2.1"], "192.0.2.1 port 8000 cannot be listened on"),
        (["--host", "ü..b"], "ü..b port 8000 cannot be listened on (it is no name of a host)"),
        (["--device", "gpu"], "--device: 'gpu' is no device; give auto, cpu, cuda, or cuda:1"),
    ],
)
def test_so_is_what_is_no_address_here_and_no_device(sealed: list[str], options: list[str], says: str) -> None:
    assert says in refused_at_once(sealed, *options)


def test_a_variable_of_the_engine_that_cannot_be_is_named(sealed: list[str]) -> None:
    said = refused_at_once(sealed, MODELPARAMS_NUM_BLOCKS="many")
    assert "MODELPARAMS_NUM_BLOCKS: " in said
    assert "modelparams-serve --help lists them" in said


def test_an_option_that_cannot_be_sends_nobody_to_another_program(sealed: list[str]) -> None:
    said = refused_at_once(sealed, "--device", "tpu")
    assert "see the command's --help" in said
    assert "modelparams-serve" not in said
