"""The options of `modelparams publish` that no other command has in that form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Form(StrEnum):
    """How the object is printed."""

    YAML = "yaml"
    JSON = "json"


Sign = Annotated[
    list[Path], typer.Option("--sign", metavar="FILE", help="A signing key, keys signer; once for each that signs.")
]
Keys = Annotated[
    Path,
    typer.Option("--keys", envvar="MODELPARAMS_KEYS", metavar="DIR", help="Where key-encryption keys are: keys kek."),
]
Trust = Annotated[
    Path | None,
    typer.Option("--trust", envvar="MODELPARAMS_TRUST", metavar="FILE", help="The clusters' policy; default: --sign."),
]
Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Default: the directory above.")]
OfVersion = Annotated[str, typer.Option("--version", metavar="SEMVER", help="Default: the directory's name, v1.2.0.")]
Floor = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Pods may serve no sequence below this any more. It can only rise."),
]
NotAfter = Annotated[str, typer.Option(metavar="TIME", help="When pods begin to refuse it: 2030-01-31T00:00:00Z.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Of the object that is printed.")]
ClusterEndpoint = Annotated[str, typer.Option(metavar="URL", help="The S3 endpoint as pods see it, if it is another.")]
CredentialsSecret = Annotated[
    str, typer.Option(metavar="NAME", help="The Secret by which the operator reads the store.")
]
NoReuse = Annotated[
    bool,
    typer.Option("--no-reuse", help="Seal all blobs anew, the unchanged too: it leaves damage in the store behind."),
]
Workers = Annotated[int, typer.Option(min=1, metavar="N", help="Threads that seal and send.")]
Report = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write what was done here, as JSON: manifestDigest, blobsNew, …")
]
Printed = Annotated[Form, typer.Option("--output", "-o", help="Of what is printed.")]
