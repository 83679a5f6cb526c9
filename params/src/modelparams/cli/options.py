"""Options that several commands share. Light, as all that `modelparams --help` and a TAB wait for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from modelparams.cli.output import Output
from modelparams.errors import InvalidVersion, UsageError
from modelparams.names import ModelName, Version

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        envvar="MODELPARAMS_STORE",
        metavar="URL",
        help="s3://BUCKET/PREFIX, if need be with ?endpoint=URL and &region=NAME; or a directory. "
        "S3 credentials as for the AWS CLI.",
    ),
]
TrustFile = Annotated[
    Path,
    typer.Option("--trust", envvar="MODELPARAMS_TRUST", metavar="FILE", help="Whose signatures count: keys trust."),
]
KeysDirectory = Annotated[
    Path | None,
    typer.Option("--keys", envvar="MODELPARAMS_KEYS", metavar="DIR", help="Where key-encryption keys are: keys kek."),
]
KeyRef = Annotated[
    str,
    typer.Option(
        "--key-ref", envvar="MODELPARAMS_KEY_REF", metavar="NAME", help="Which of them; default: the model's name."
    ),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", envvar="MODELPARAMS_MODEL", metavar="NAME", help="Refuse every model but this one."),
]
ReleaseName = Annotated[
    str, typer.Argument(metavar="RELEASE", help="A version of the store, 1.2.0, or a manifest digest, sha256:…")
]
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
As = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]


def refuse_idle(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse options of the command line that would do nothing; as variables they may stand for other commands.

    Args:
        context: of the command.
        names: of its parameters.
        why: what makes them idle, such as "without --keys".

    Raises:
        UsageError: one of them was given.
    """
    given = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    if given:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"{flags} {'does' if len(given) == 1 else 'do'} nothing {why}", hint="leave it out, or see --help"
        )


def require_namespace(name: str) -> None:
    """Refuse what no namespace is called; empty is as not given.

    Raises:
        UsageError: it is no DNS label (RFC 1123).
    """
    if name and not _NAMESPACE.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is no namespace", hint="use lower-case letters, digits and inner dashes, at most 63"
        )


def model_and_version(directory: Path, model: str, version: str) -> tuple[ModelName, Version]:
    """From the options, else from the path `<model>/v<semver>`.

    Raises:
        UsageError: neither says it, or an option is none.
    """
    path = directory.resolve()
    name, number = ModelName(model) if model else None, Version.from_directory(version) if version else None
    try:
        return name or ModelName(path.parent.name), number or Version.from_directory(path.name)
    except (InvalidVersion, UsageError) as error:
        raise UsageError(
            f"{directory} does not say which version it is: {error.message}",
            hint="name it …/<model>/v<semver>, or give --model and --version",
        ) from None
