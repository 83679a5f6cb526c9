"""`modelparams verify`, `inspect` and `diff`: what is in a store, and is it sound. What they do is imported in them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelparams.cli.exits import Exit
from modelparams.cli.options import As, KeyRef, KeysDirectory, Model, ReleaseName, StoreUrl, TrustFile, refuse_idle
from modelparams.cli.output import Output
from modelparams.errors import UsageError


def verify_command(
    release: ReleaseName,
    store: StoreUrl,
    trust: TrustFile,
    model: Model = "",
    keys: KeysDirectory = None,
    key_ref: KeyRef = "",
    workers: Annotated[int, typer.Option(min=1, help="Threads that read and hash.")] = 4,
    output: As = Output.TABLE,
    *,
    context: typer.Context,
) -> None:
    """Check a whole version: manifest, signatures, and the size and SHA-256 of every blob.

    This needs no key and is what the operator does. With --keys it is also opened in memory, as a pod does
    it: every segment authenticated, every tensor where the index says, no NaN, no infinity.
    """
    if keys is None:
        refuse_idle(context, ("key_ref",), "without --keys")
    from modelparams.cli.asked import Asked
    from modelparams.cli.sealed_versions import check

    check(Asked.of(store, release, trust, model), keys, key_ref, workers, output)


def inspect_command(
    store: StoreUrl,
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="A version or a digest; none: list them.")] = "",
    trust: Annotated[
        Path | None, typer.Option("--trust", envvar="MODELPARAMS_TRUST", metavar="FILE", help="Needed with RELEASE.")
    ] = None,
    model: Model = "",
    keys: KeysDirectory = None,
    key_ref: KeyRef = "",
    output: As = Output.TABLE,
    *,
    context: typer.Context,
) -> None:
    """List the versions of a store, or show one: its facts and blobs, and with --keys its tensors.

    Names and shapes of tensors are confidential and sealed, so showing them takes the key.
    """
    if not release:
        refuse_idle(context, ("trust", "model", "keys", "key_ref"), "without RELEASE")
        from modelparams.cli.sealed_versions import list_versions

        return list_versions(store, output)
    if trust is None:
        raise UsageError("showing a release takes the trust policy", hint="give --trust FILE")
    if keys is None:
        refuse_idle(context, ("key_ref",), "without --keys")
    from modelparams.cli.asked import Asked
    from modelparams.cli.sealed_versions import show, show_tensors

    asked = Asked.of(store, release, trust, model)
    if keys is None:
        return show(asked.manifest(), {}, None, output)
    return show_tensors(asked.opened(keys, key_ref), output)


def diff_command(
    before: Annotated[str, typer.Argument(help="A directory, or a version or digest of the store.")],
    after: Annotated[str, typer.Argument(help="The same.")],
    store: Annotated[
        str, typer.Option("--store", "-s", envvar="MODELPARAMS_STORE", metavar="URL", help="Of sealed versions.")
    ] = "",
    trust: Annotated[
        Path | None, typer.Option("--trust", envvar="MODELPARAMS_TRUST", metavar="FILE", help="For sealed versions.")
    ] = None,
    model: Model = "",
    keys: KeysDirectory = None,
    key_ref: KeyRef = "",
    limit: Annotated[
        int, typer.Option(min=0, help="Rows of the table, the most changed first; 0: all. JSON has all.")
    ] = 40,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ, as git diff.")] = False,
    output: As = Output.TABLE,
    *,
    context: typer.Context,
) -> None:
    r"""Show which tensors and small files differ between two versions, and tensors by how much.

    Each side is a directory, or a sealed version, of which only the blobs that differ are fetched and opened, in
    memory. 'max abs' is the largest change of an element; 'relative' is the Euclidean norm of the change over that
    of the tensor before. Hashes that 'modelparams hash' wrote are no difference of config.json.

        modelparams diff params/smollm2/v1.0.0 params/smollm2/v1.1.0
        modelparams diff 1.0.0 1.1.0 -s s3://models/smollm2 \
            --trust trust.json --keys ~/keys
    """
    if Path(before).is_dir() and Path(after).is_dir():
        refuse_idle(context, ("store", "trust", "model", "keys", "key_ref"), "between two directories")
    from modelparams.cli.comparing import compare, side

    old, new = (side(text, store, trust, model, keys, key_ref) for text in (before, after))
    if compare(old, new, limit, output) and exit_code:
        raise typer.Exit(Exit.DIFFERENT)
