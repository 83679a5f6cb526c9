"""The end of a publish: a manifest with a sequence of its own, signed, and the pointer that makes it a version.

    manifests/sha256/<hex> → claim sequences/<n>, and again with the next free number if it is taken → versions/<semver>

The manifest is there before its claim, so whoever finds the number taken can read what took it and go on from that:
of publishers at once each has another sequence, and none lowers another's floor. A kill in between leaves a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from modelparams.digest import Digest
from modelparams.errors import UsageError, VersionExists
from modelparams.history import History, Past
from modelparams.manifest import BlobEntry, Epoch, Expectation, Manifest, ModelId, sign, spelled, verify_manifest
from modelparams.names import Version
from modelparams.pointers import Pointer, claim_sequence, pointer_key
from modelparams.store.contract import ObjectStore
from modelparams.trust import SigningKey
from modelparams.verify import manifest_key


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest but for what depends on the publishes before; `epochs` are all that `blobs` may be of."""

    model: ModelId
    version: Version
    schema_digest: Digest
    epochs: Sequence[Epoch]
    blobs: tuple[BlobEntry, ...]
    floor: int | None
    created_at: datetime
    not_after: datetime | None

    def manifest(self, history: History, sequence: int) -> Manifest:
        """The manifest after `history`.

        Raises:
            UsageError: the floor would fall.
        """
        known = {epoch.id: epoch for epoch in self.epochs}
        return Manifest(
            model=self.model,
            version=self.version,
            sequence=sequence,
            previous=history.last.digest if history.last else None,
            floor=risen(history.floor, self.floor),
            created_at=self.created_at.replace(microsecond=0),
            not_after=self.not_after,
            schema_digest=self.schema_digest,
            epochs=tuple(known[epoch] for epoch in sorted({blob.epoch for blob in self.blobs})),
            index=len(self.blobs) - 2,
            assets=len(self.blobs) - 1,
            blobs=self.blobs,
        )


def require_floor(history: History, floor: int | None) -> None:
    """Refuse a floor that the next manifest cannot have, before anything is sent.

    Raises:
        UsageError: it is lower than before, or above the sequence that comes next, so that nobody may serve it.
    """
    risen(history.floor, floor)
    if floor is not None and floor > history.sequence + 1:
        raise UsageError(
            f"the floor {floor} is above {history.sequence + 1}, the sequence that comes next: nobody could serve it",
            hint="name that sequence at most",
        )


def require_end(end: datetime | None, now: datetime) -> None:
    """Refuse a last moment that has passed, before anything is sent.

    Raises:
        UsageError: no pod would serve the version.
    """
    if end is not None and end <= now:
        raise UsageError(f"{spelled(end)} has passed: no pod would serve the version", hint="name a time to come")


def require_same(published: Manifest, floor: int | None, end: datetime | None) -> None:
    """Refuse to pretend that a version which is there could have another floor or last moment.

    Raises:
        UsageError: one was given, and it is not the published one.
    """
    what = f"{published.model.name} {published.version} is there already, and its options cannot change: it has"
    if risen(published.floor, floor) != published.floor:
        raise UsageError(
            f"{what} the floor {published.floor}, not {floor}", hint=f"publish the next version with --floor {floor}"
        )
    last = spelled(published.not_after) if published.not_after else "no last moment"
    if end is not None and spelled(end) != last:
        raise UsageError(
            f"{what} {last}, not {spelled(end)}", hint=f"publish the next version with --not-after {spelled(end)}"
        )


def risen(least: int, floor: int | None) -> int:
    """The floor that was asked for, None as before.

    Raises:
        UsageError: it is lower.
    """
    if floor is not None and floor < least:
        raise UsageError(f"the floor is {least} and cannot go down to {floor}", hint="leave --floor out to keep it")
    return least if floor is None else floor


def commit(draft: Draft, past: Past, history: History, signers: Sequence[SigningKey]) -> tuple[Manifest, Digest]:
    """Publish the draft after `history`, or after what others have published since that was read.

    Raises:
        VersionExists: somebody else was the first to publish that version.
        IntegrityError: no reader who trusts as `past` does would accept the manifest.
        UsageError, StoreError.
    """
    sequence = history.sequence + 1
    while True:
        manifest = draft.manifest(history, sequence)
        digest = _write(manifest, past, signers)
        if claim_sequence(past.store, sequence, digest):
            break
        history, sequence = past.beyond(history, sequence)
    _point(past.store, Pointer(manifest.version, digest, sequence))
    return manifest, digest


def _write(manifest: Manifest, past: Past, signers: Sequence[SigningKey]) -> Digest:
    """Sign, be the first reader, and write the manifest."""
    envelope = sign(manifest, signers)
    digest = Digest.of(envelope)
    expect = Expectation(manifest.model.name, now=manifest.created_at)
    verify_manifest(envelope, pinned=digest, trust=past.trust, expect=expect)
    past.store.put_new(manifest_key(digest), envelope)
    return digest


def _point(store: ObjectStore, pointer: Pointer) -> None:
    # A write whose answer was lost and that was tried again meets its own object.
    key = pointer_key(pointer.version)
    if not store.put_new(key, pointer.text) and store.get(key, limit=256) != pointer.text:
        raise VersionExists(
            f"somebody else published {pointer.version} meanwhile", hint="run it again to see whether it is the same"
        )
