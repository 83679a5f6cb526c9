"""One layer of thirty changed: what moves to a pod that has the version before it resident."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.report import Figure
from bench.world import KEY_REF, World, bf16, world, write_model
from modelparams.pull import PulledParams, ReusableArena, open_release, pull

_LAYERS, _WIDTH = 30, 1024


def figures(folder: Path) -> Iterator[Figure]:
    """Bytes moved over the sealed bytes of the blobs that are new in the second version."""
    with world(folder) as place:
        first = place.publish(_model(folder / "v1", changed=-1), "1.0.0")
        second = place.publish(_model(folder / "v2", changed=7), "1.1.0")
        old, arena = _pull(place, first.manifest_digest, "1.0.0", None)
        new, _ = _pull(place, second.manifest_digest, "1.1.0", ReusableArena(old.manifest.manifest, arena))
    known = {blob.sha256 for blob in old.manifest.manifest.blobs}
    changed = [blob.size for blob in new.manifest.manifest.blobs if blob.sha256 not in known]
    yield Figure(
        "one layer of thirty changed: bytes moved",
        new.fetched_bytes / sum(changed),
        "× the changed blobs",
        "<= 1.1",
        f"{new.fetched_bytes / 1e6:.1f} MB of {new.manifest.manifest.size_bytes / 1e6:.0f} MB; the rest is copied",
    )


def _model(directory: Path, *, changed: int) -> Path:
    tensors = {
        f"model.layers.{n}.mlp.weight": bf16(_WIDTH, 3 * _WIDTH, seed=100 + n if n == changed else n)
        for n in range(_LAYERS)
    }
    return write_model(directory, {"model.embed_tokens.weight": bf16(4 * _WIDTH, _WIDTH, seed=99), **tensors})


def _pull(place: World, digest: object, version: str, reuse: ReusableArena | None) -> tuple[PulledParams, memoryview]:
    release = open_release(
        place.store, digest, trust=place.trust, expect=place.expect(version), keys=place.keys, key_ref=KEY_REF
    )
    arena = memoryview(bytearray(release.layout.total))
    return pull(release, arena, reuse=reuse), arena
