"""An engine whose torch is still being imported: it listens, says so, and lets fetching begin."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from builders.arenas import tiny
from builders.engines import engine, order, settings, until
from cluster.process import free_port
from modelparams.errors import UsageError
from modelparams.protocol import GetState
from modelparams_serving.engine.__main__ import Engine, have_temporary_files
from modelparams_serving.engine.library import Library, Load, imported
from modelparams_serving.engine.listening import bound, listen
from modelparams_serving.engine.settings import EngineSettings

pytestmark = pytest.mark.timeout(300)
STARTING = "the engine starts: torch and transformers are being imported"


def test_the_program_imports_nothing_that_is_slow_before_it_listens() -> None:
    look = (
        "import sys, modelparams_serving.engine.__main__\n"
        "print({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_a_device_that_is_not_there_is_told_before_all_the_rest_is_imported() -> None:
    look = (
        "import sys\n"
        "from modelparams.errors import UsageError\n"
        "from modelparams_serving.engine.library import imported\n"
        "from modelparams_serving.engine.settings import EngineSettings\n"
        "try: imported(EngineSettings(device='cuda:99'))\n"
        "except UsageError as error: print(error.message, 'transformers' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout == "cuda:99 cannot be used by this torch False\n"


def test_what_is_no_device_s_name_ends_the_program_at_once() -> None:
    program = [sys.executable, "-m", "modelparams_serving.engine"]
    ended = subprocess.run(
        program, env=os.environ | {"MODELPARAMS_DEVICE": "gpu"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("modelparams-serve: MODELPARAMS_DEVICE: 'gpu' is no device; give auto, cpu, cuda")


def test_who_has_the_address_too_is_told_when_another_listens_on_it() -> None:
    with bound("127.0.0.1", 0) as first, bound("127.0.0.1", first.getsockname()[1]) as second:
        listen(first, 30)
        with pytest.raises(UsageError, match="cannot be listened on"):
            listen(second, 30)


class Gate:
    """An import that waits until it may go on."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, wanted: EngineSettings) -> Load:
        assert self.opened.wait(60)
        return imported(wanted)


async def ask(runtime_dir: Path, request: Any) -> Any:
    (answer,) = await order(runtime_dir, request.model_dump_json(by_alias=True).encode())
    assert answer.state is not None, answer.refusal
    return answer.state


@pytest.mark.model
def test_until_its_library_is_there_it_is_alive_not_ready_and_gives_arenas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelparams_serving.engine.library.set_up_torch", lambda _settings: None)  # of other tests too
    gate, version = Gate(), tiny()

    async def scene() -> None:
        async with engine(tmp_path, Library(settings(tmp_path), gate)) as (_, client):
            assert (await client.get("/healthz")).json() == {"ok": True}
            unready = await client.get("/readyz")
            assert (unready.status_code, unready.json()) == (503, {"ready": False, "reason": STARTING})
            assert (await client.get("/metrics")).status_code == 200
            refused = await client.post("/v1/completions", json={"prompt": "hello"})
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["code"] == "starting"
            assert (await ask(tmp_path, GetState())).starting
            await serves_in_the_end(client)

    async def serves_in_the_end(client: httpx.AsyncClient) -> None:
        reserved = await ask(tmp_path, version.reserve())
        version.write(tmp_path / reserved.slot.file_name)
        waiting = asyncio.create_task(ask(tmp_path, version.prepare(reserved.slot)))
        assert (await ask(tmp_path, GetState())).starting
        gate.opened.set()
        prepared = await waiting
        assert not prepared.starting
        assert (await client.get("/readyz")).json()["reason"] == "no verified version is applied yet"
        await ask(tmp_path, version.commit())
        answer = await client.post("/v1/completions", json={"prompt": "hello", "max_tokens": 2})
        assert answer.json()["model_params"]["version"] == "1.0.0"

    asyncio.run(scene())


def test_an_engine_whose_library_cannot_be_imported_ends_and_says_why(tmp_path: Path) -> None:
    def fails(_settings: EngineSettings) -> Load:
        raise UsageError("torch and transformers cannot be imported (no)", hint="install modelparams[serving]")

    async def scene() -> None:
        async with asyncio.timeout(30):  # which it would wait for if it went on without its library
            await Engine(settings(tmp_path, port=free_port()), Library(settings(tmp_path), fails)).serve()

    with pytest.raises(UsageError, match="cannot be imported"):
        asyncio.run(scene())


def test_an_engine_that_is_asked_to_leave_while_it_imports_leaves_at_once(tmp_path: Path) -> None:
    gate = Gate()

    async def scene() -> None:
        async with engine(tmp_path, Library(settings(tmp_path), gate)) as (made, _):
            await until(lambda: made.library.is_under_way)
        assert made.library.is_under_way

    try:
        asyncio.run(scene())
    finally:
        gate.opened.set()


def test_where_nothing_else_can_be_written_temporary_files_go_into_the_memory_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [os.environ.get("TMPDIR", "/proc/none")])
    monkeypatch.setenv("TMPDIR", "")  # only what was there is put back as it was, and the engine sets it
    monkeypatch.delenv("TMPDIR")
    have_temporary_files(tmp_path)
    assert tempfile.gettempdir() == str(tmp_path)
