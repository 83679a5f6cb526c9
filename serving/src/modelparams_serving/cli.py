"""`modelparams serve`: a sealed version on this machine, without Kubernetes."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from modelparams.cli.options import KeyRef, KeysDirectory, Model, ReleaseName, StoreUrl, TrustFile
from modelparams.cli.output import note
from modelparams.errors import UsageError
from modelparams.memory_directory import check_in_memory
from modelparams_serving.run_directory import run_directory

if TYPE_CHECKING:
    from modelparams_serving.engine.settings import EngineSettings

_CORRECT_IT = "correct it, or unset the variable; modelparams-serve --help lists them"
_MEMORY = Path("/dev/shm")  # noqa: S108 -- memory, which is the point


def serve(
    release: ReleaseName,
    store: StoreUrl,
    trust: TrustFile,
    model: Model = "",
    keys: KeysDirectory = None,
    key_ref: KeyRef = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    device: Annotated[str, typer.Option(help="auto (CUDA where it is found), cpu, cuda, cuda:1.")] = "auto",
    memory: Annotated[
        Path | None, typer.Option("--memory", metavar="DIR", help="A directory of a tmpfs; default /dev/shm.")
    ] = None,
) -> None:
    r"""Serve a sealed version here: pull, verify, open in memory, answer.

    The steps and the engine are those of a pod. Plaintext lies in memory only: a --memory that is on no tmpfs
    or ramfs is refused (Linux alone tells that; elsewhere nothing is checked); what a run that was killed left there is
    removed by the next. Ctrl-C and SIGTERM let what runs finish,
    for 20 seconds at most, and the exit code is 0; before the version answers, Ctrl-C ends with 130.

        modelparams serve 1.0.0 -s s3://models/smollm2 \
            --trust trust.json --keys keys
        curl localhost:8000/v1/completions --json '{"prompt": "Hello"}'
    """
    memory = memory or _MEMORY
    check_in_memory(memory)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # until the engine takes them
    from modelparams.cli.asked import Asked
    from modelparams.cli.reporting import reporting
    from modelparams_serving.engine.listening import bound

    settings = _settings(host, port, device)
    with contextlib.closing(bound(host, port)) as listener:
        sealed = Asked.of(store, release, trust, model).opened(keys, key_ref)
        note("loading torch and transformers")
        from modelparams_serving.engine import standalone

        with run_directory(memory, note) as runtime_dir, reporting() as progress:
            own = {"runtime_dir": runtime_dir, "port": listener.getsockname()[1]}
            standalone.serve(sealed, settings.model_copy(update=own), listener, progress, note)
    note("left")


def _settings(host: str, port: int, device: str) -> EngineSettings:
    from pydantic import ValidationError

    from modelparams import variables
    from modelparams_serving.engine.settings import EngineSettings

    try:
        return EngineSettings(
            host=host, port=port, device=device, log_level="warning", quiet_seconds=0.0, late_seconds=0.0
        )
    except ValidationError as error:
        problem = variables.problems(error).replace(f"{variables.PREFIX}DEVICE", "--device")
        is_of_the_options = all(found["loc"] == ("device",) for found in error.errors())
        raise UsageError(problem, hint=None if is_of_the_options else _CORRECT_IT) from error


def _leave(number: int, _frame: FrameType | None) -> None:
    for another in (signal.SIGTERM, signal.SIGINT):
        signal.signal(another, signal.SIG_IGN)  # it would cut off the tidying up
    note("left")
    raise SystemExit(0 if number == signal.SIGTERM else 130)
