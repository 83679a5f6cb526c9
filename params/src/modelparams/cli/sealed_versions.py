"""What `modelparams verify` and `inspect` do and show."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from rich.table import Table

from modelparams import memory_limit
from modelparams.cli.asked import Asked
from modelparams.cli.output import Output, facts, note, result, size, table
from modelparams.cli.reporting import reporting
from modelparams.errors import ArenaExhausted
from modelparams.manifest import Manifest, VerifiedManifest, spelled
from modelparams.pointers import list_pointers
from modelparams.pull import pull
from modelparams.sealed import SealedRelease, read_index
from modelparams.store import existing_store
from modelparams.tensors import TensorSpec
from modelparams.verify import verify_release


def check(asked: Asked, keys: Path | None, key_ref: str, workers: int, output: Output) -> None:
    """Verify a whole version, and with `keys` open it in memory."""
    opening = keys is not None
    sealed = asked.opened(keys, key_ref) if opening else None  # a key that is missing is told before all is read
    with reporting() as progress:
        checked = verify_release(
            asked.store, asked.digest, trust=asked.trust, expect=asked.expect, workers=workers, progress=progress
        )
        if sealed is not None:
            pull(sealed, _memory(sealed.layout.total), workers=workers, progress=progress)
    found = _described(checked.manifest)
    told = {**found, "verified": True, "opened": opening, "readBytes": checked.size_bytes}
    title = f"{found['model']} {found['version']} is as signed" + (", and opens" if opening else "")
    result(told, facts(title, _rows(found)), output)


def _memory(total: int) -> memoryview:
    """Of so many bytes. Not closed by hand: the traceback of a failed pull still holds views of it."""
    left = memory_limit.room()
    if left is not None and not memory_limit.fits(total, left):
        raise _exhausted(total, f"the container's memory limit leaves {size(left)}")
    try:
        return memoryview(mmap.mmap(-1, total))
    except OSError as error:
        raise _exhausted(total, error.strerror) from error


def _exhausted(total: int, why: str | None) -> ArenaExhausted:
    return ArenaExhausted(
        f"no memory for {size(total)}: {why}",
        hint="verify without --keys needs none; with them use a machine with more memory",
    )


def list_versions(store: str, output: Output) -> None:
    """All that the store's pointers name."""
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


def show(verified: VerifiedManifest, more: dict[str, Any], shown: Table | None, output: Output) -> None:
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


def show_tensors(sealed: SealedRelease, output: Output) -> None:
    """The same, with what only the key shows."""
    index = read_index(sealed)
    shown = table("", "#>", "tensor", "dtype", "shape", "blob>", "offset>")
    for number, tensor in enumerate(index.tensors):
        shown.add_row(
            str(number), tensor.name, tensor.dtype, shape_of(tensor.spec), str(tensor.blob), str(tensor.offset)
        )
    for asset in index.assets:
        shown.add_row("", asset.name, "file", size(asset.size), "", "")
    plain = index.model_dump(mode="json", by_alias=True, exclude={"salt"})
    show(sealed.manifest, {"index": plain}, shown, output)


def shape_of(spec: TensorSpec) -> str:
    """As people write it."""
    return "x".join(map(str, spec.shape)) or "scalar"
