"""`modelparams verify`, `inspect` and `diff`: what is in a store, and is it sound."""

from __future__ import annotations

import dataclasses
import math
import mmap
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from modelparams.cli.exits import Exit
from modelparams.cli.options import (
    As,
    Asked,
    KeyRef,
    KeysDirectory,
    Model,
    ReleaseName,
    StoreUrl,
    TrustFile,
    refuse_idle,
)
from modelparams.cli.output import Output, console, facts, note, result, size, table
from modelparams.cli.reporting import reporting
from modelparams.difference import Difference, Directory, Sealed, Side, changed_files, differences
from modelparams.errors import UsageError
from modelparams.manifest import Manifest, VerifiedManifest, spelled
from modelparams.plaintext import read_plain
from modelparams.pointers import list_pointers
from modelparams.pull import pull
from modelparams.sealed import SealedRelease, read_index
from modelparams.store import existing_store
from modelparams.tensors import TensorSpec
from modelparams.verify import verify_release
from modelparams.wording import counted

_ROOM_FOR_SPECS = 80  # columns of a terminal: below, a tensor's name would be cut into pieces of a few letters


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
    opening = keys is not None
    if not opening:
        refuse_idle(context, ("key_ref",), "without --keys")
    asked = Asked.of(store, release, trust, model)
    sealed = asked.opened(keys, key_ref) if opening else None  # a key that is missing is told before all is read
    with reporting() as progress:
        checked = verify_release(
            asked.store, asked.digest, trust=asked.trust, expect=asked.expect, workers=workers, progress=progress
        )
        if sealed is not None:
            # Not closed by hand: the traceback of a failed pull still holds views of it.
            pull(sealed, memoryview(mmap.mmap(-1, sealed.layout.total)), workers=workers, progress=progress)
    found = _described(checked.manifest)
    told = {**found, "verified": True, "opened": opening, "readBytes": checked.size_bytes}
    title = f"{found['model']} {found['version']} is as signed" + (", and opens" if opening else "")
    result(told, facts(title, _rows(found)), output)


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
        _list(store, output)
        return
    if trust is None:
        raise UsageError("showing a release takes the trust policy", hint="give --trust FILE")
    if keys is None:
        refuse_idle(context, ("key_ref",), "without --keys")
    asked = Asked.of(store, release, trust, model)
    if keys is not None:
        _show_tensors(asked.opened(keys, key_ref), output)
    else:
        _show(asked.manifest(), {}, None, output)


def _list(store: str, output: Output) -> None:
    pointers = list_pointers(existing_store(store))
    shown = table(f"{_many(len(pointers))} in {store.partition('?')[0]}", "version", "sequence>", "manifest digest")
    for pointer in pointers:
        shown.add_row(str(pointer.version), str(pointer.sequence), str(pointer.digest))
    data = [
        {"version": str(pointer.version), "sequence": pointer.sequence, "manifestDigest": str(pointer.digest)}
        for pointer in pointers
    ]
    result({"versions": data}, shown, output)


def _many(versions: int) -> str:
    return "1 version" if versions == 1 else f"{versions or 'no'} versions"


def _described(verified: VerifiedManifest) -> dict[str, Any]:
    manifest = verified.manifest
    return {
        "model": str(manifest.model.name),
        "version": str(manifest.version),
        "manifestDigest": str(verified.digest),
        "sequence": manifest.sequence,
        "floor": manifest.floor,
        "createdAt": spelled(manifest.created_at),
        "notAfter": spelled(manifest.not_after) if manifest.not_after else None,
        "previous": str(manifest.previous) if manifest.previous else None,
        "schemaDigest": str(manifest.schema_digest),
        "signers": list(verified.signers),
        "blobs": len(manifest.blobs),
        "sizeBytes": manifest.size_bytes,
    }


def _rows(found: dict[str, Any]) -> dict[str, object]:
    rows = {
        "manifest digest": found["manifestDigest"],
        "sequence": found["sequence"],
        "floor": found["floor"],
        "created": found["createdAt"],
        "not after": found["notAfter"],
        "previous": found["previous"],
        "signed by": ", ".join(found["signers"]),
        "sealed": f"{size(found['sizeBytes'])} in {found['blobs']} blobs",
    }
    return {name: value for name, value in rows.items() if value is not None}


def _show(verified: VerifiedManifest, more: dict[str, Any], shown: Table | None, output: Output) -> None:
    """The facts and blobs, which are the same with and without keys, and what else there is."""
    found = _described(verified)
    blobs = [blob.model_dump(mode="json", by_alias=True, exclude={"wrapped_key"}) for blob in verified.manifest.blobs]
    told = {**found, "blobs": blobs, **more}
    if output is Output.JSON:
        return result(told, "", output)
    result(told, facts(f"{found['model']} {found['version']}", _rows(found)), output)
    result(told, _blobs(verified.manifest), output)
    return result(told, shown, output) if shown else note("tensor names are sealed; --keys shows them")


def _blobs(manifest: Manifest) -> Table:
    special = {manifest.index: "index", manifest.assets: "assets"}
    shown = table("", "blob>", "holds", "size>", "sha256", "epoch")
    for position, blob in enumerate(manifest.blobs):
        shown.add_row(str(position), special.get(position, "tensors"), size(blob.size), blob.sha256, blob.epoch)
    return shown


def _show_tensors(sealed: SealedRelease, output: Output) -> None:
    index = read_index(sealed)
    shown = table("", "#>", "tensor", "dtype", "shape", "blob>", "offset>")
    for number, tensor in enumerate(index.tensors):
        shown.add_row(str(number), tensor.name, tensor.dtype, _shape(tensor.spec), str(tensor.blob), str(tensor.offset))
    for asset in index.assets:
        shown.add_row("", asset.name, "file", size(asset.size), "", "")
    plain = index.model_dump(mode="json", by_alias=True, exclude={"salt"})
    _show(sealed.manifest, {"index": plain}, shown, output)


def _shape(spec: TensorSpec) -> str:
    return "x".join(map(str, spec.shape)) or "scalar"


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

    def side(text: str) -> Side:
        if Path(text).is_dir():
            return Directory(read_plain(Path(text)))
        return _sealed(text, store, trust, model, keys, key_ref)

    if Path(before).is_dir() and Path(after).is_dir():
        refuse_idle(context, ("store", "trust", "model", "keys", "key_ref"), "between two directories")
    old, new = side(before), side(after)
    found = list(differences(old, new))
    changed = sorted(found, key=lambda one: (one.relative_l2 is not None, -(one.relative_l2 or 0.0)))
    files = changed_files(old, new)
    _show_differences(changed, len(old.specs.keys() | new.specs.keys()), files, limit, output)
    if exit_code and (found or files):
        raise typer.Exit(Exit.DIFFERENT)


def _sealed(text: str, store: str, trust: Path | None, model: str, keys: Path | None, key_ref: str) -> Sealed:
    if "/" in text:
        raise UsageError(f"there is no directory {text}", hint="give one, or a version of --store")
    if not store or trust is None:
        raise UsageError(
            f"{text!r} is no directory, and as a sealed version it takes its store and the trust policy",
            hint="give a directory, or --store URL and --trust FILE",
        )
    return Sealed(Asked.of(store, text, trust, model).opened(keys, key_ref))


def _show_differences(found: list[Difference], total: int, files: dict[str, str], limit: int, output: Output) -> None:
    named = [{"name": name, "what": what} for name, what in files.items()]
    told = {"tensors": total, "different": [_difference(one) for one in found], "files": named}
    if output is Output.JSON:
        return result(told, "", output)
    if len(found) > limit > 0:
        note(f"{len(found) - limit} more; --limit 0 shows all")
    result(told, _tensors(found, total, limit) if found else f"no tensor differs, of {total}", output)
    return result(told, _files(files) if files else "no small file differs", output)


def _files(files: dict[str, str]) -> Table:
    shown = table(f"{counted(len(files), 'small file')} {_differ(len(files))}", "file", "")
    for name, what in files.items():
        shown.add_row(name, what)
    return shown


def _differ(count: int) -> str:
    return "differs" if count == 1 else "differ"


def _tensors(found: list[Difference], total: int, limit: int) -> Table:
    title = f"{counted(len(found), 'tensor')} {_differ(len(found))}, of {total}"
    is_narrow = console().width < _ROOM_FOR_SPECS
    specs = () if is_narrow else ("dtype", "shape")
    shown = table(title, "tensor", "", *specs, "elements>", "max abs>", "relative>")
    for one in found[: limit or None]:
        spec = one.after or one.before
        assert spec is not None
        numbers = (str(one.elements or ""), _number(one.max_abs), _number(one.relative_l2))
        shown.add_row(one.name, one.what, *(() if is_narrow else (spec.dtype, _shape(spec))), *numbers)
    return shown


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _difference(one: Difference) -> dict[str, Any]:
    finite = {
        name: value if value is None or math.isfinite(value) else None
        for name, value in (("maxAbs", one.max_abs), ("relativeL2", one.relative_l2))
    }
    specs = {
        name: dataclasses.asdict(spec) if spec else None
        for name, spec in (("before", one.before), ("after", one.after))
    }
    return {"name": one.name, "what": one.what, **specs, "elements": one.elements, **finite}
