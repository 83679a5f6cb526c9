"""The command `modelparams`, also as `kubectl modelparams`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import stamina.instrumentation
import typer

from modelparams.cli import keys, publishing, reading
from modelparams.cli.exits import TABLE
from modelparams.cli.output import note, show_error
from modelparams.cli.plugins import add_commands
from modelparams.errors import ModelParamsError

_HELP = """Seal, sign, ship and inspect model parameters that roll into running pods.

A first release, from nothing:

    modelparams keys kek smollm2 --secret | kubectl apply -f -
    modelparams keys signer release.pem
    modelparams keys trust release.pem --out trust.json
    modelparams hash params/smollm2/v1.0.0
    modelparams publish params/smollm2/v1.0.0 -s s3://models/smollm2 --sign release.pem > version.yaml
    kubectl apply -f version.yaml
    modelparams status smollm2 --watch

Each command's --help says more. MODELPARAMS_STORE, _KEYS, _KEY_REF, _TRUST and _MODEL save typing the options.
"""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modelparams {version('modelparams')}")
        raise typer.Exit


def _root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Take the root's options."""


def build() -> typer.Typer:
    """The whole application, with what other installed roots add."""
    app = typer.Typer(
        help=_HELP,
        epilog=TABLE,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.add_typer(keys.app, name="keys")
    app.command("hash")(publishing.hash_command)
    app.command("publish")(publishing.publish_command)
    app.command("verify")(reading.verify_command)
    app.command("inspect")(reading.inspect_command)
    app.command("diff")(reading.diff_command)
    add_commands(app)
    return app


def _tell_retry(details: stamina.instrumentation.RetryDetails) -> None:
    what = getattr(details.caused_by, "message", type(details.caused_by).__name__)
    note(f"{what}; trying again in {details.wait_for:.1f} s")


def main() -> None:
    """Run it, and turn what goes wrong into a message, a next step and an exit code."""
    stamina.instrumentation.set_on_retry_hooks([_tell_retry])
    called = Path(sys.argv[0]).name
    try:
        build()(prog_name="kubectl modelparams" if called.startswith("kubectl-") else "modelparams")
    except ModelParamsError as error:
        sys.exit(show_error(error))
