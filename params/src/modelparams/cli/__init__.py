"""The command `modelparams`, also as `kubectl modelparams`."""

from __future__ import annotations

import io
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import stamina.instrumentation
import typer

from modelparams.cli import keys, publishing, reading
from modelparams.cli.exits import TABLE
from modelparams.cli.harmless import harmless
from modelparams.cli.output import (
    Notes,
    echo,
    end_by_a_broken_pipe,
    note,
    show_error,
    take_the_places_of_closed_streams,
)
from modelparams.cli.plugins import add_commands
from modelparams.cli.prose import prose
from modelparams.errors import ModelParamsError
from modelparams.secret import leave_no_core_file

_HELP = """Seal, sign, ship and inspect model parameters that roll into running pods.

A first release, from nothing:

    modelparams keys kek smollm2 --secret | kubectl apply -f -
    modelparams keys signer release.pem
    modelparams keys trust release.pem --out trust.json
    modelparams hash params/smollm2/v1.0.0
    export MODELPARAMS_STORE='s3://models/smollm2?region=eu-central-1'
    modelparams publish params/smollm2/v1.0.0 --sign release.pem > v1.yaml
    kubectl apply -f v1.yaml
    modelparams status smollm2 --watch

Each command's --help says more. MODELPARAMS_STORE, _KEYS, _KEY_REF, _TRUST and _MODEL save typing the options.
Results go to standard output, all else to standard error; with --output json results are
JSON, and errors too, but for those of a command that cannot be read.
"""

_COMMANDS: Mapping[str, Callable[..., None]] = {
    "hash": publishing.hash_command,
    "publish": publishing.publish_command,
    "verify": reading.verify_command,
    "inspect": reading.inspect_command,
    "diff": reading.diff_command,
}


def _version(wanted: bool) -> None:
    if wanted:
        echo(f"modelparams {version('modelparams')}")
        raise typer.Exit


def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Take the root's options."""


def build(*, as_plugin: bool = False) -> typer.Typer:
    """The whole application, with what other installed roots add; kubectl completes its plugins itself."""
    app = typer.Typer(
        help=prose(_HELP),
        epilog=TABLE,
        no_args_is_help=True,
        add_completion=not as_plugin,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.add_typer(keys.app, name="keys")
    for name, command in _COMMANDS.items():
        app.command(name, help=prose(command.__doc__ or ""), epilog=TABLE)(command)
    add_commands(app)
    return app


def _tell_retry(details: stamina.instrumentation.RetryDetails) -> None:
    what = getattr(details.caused_by, "message", type(details.caused_by).__name__)
    note(f"{what}; trying again in {details.wait_for:.1f} s")


def main() -> None:
    """Run it, and turn what goes wrong into a message, a next step and an exit code."""
    leave_no_core_file()
    take_the_places_of_closed_streams()
    end_by_a_broken_pipe()
    stamina.instrumentation.set_on_retry_hooks([_tell_retry])
    logging.lastResort = Notes(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 shows an arrow as \u2192, which is JSON too
            stream.reconfigure(errors="backslashreplace")
    as_plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    try:
        build(as_plugin=as_plugin)(prog_name="kubectl modelparams" if as_plugin else "modelparams")
    except ModelParamsError as error:
        sys.exit(show_error(error))
    except Exception as error:
        typer.echo(harmless(traceback.format_exc()), err=True)
        sys.exit(show_error(ModelParamsError(f"{type(error).__name__}: {error}")))
