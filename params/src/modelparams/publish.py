"""Seal a directory and put it into a store, signed: what a training pipeline does.

    check the directory against its config.json → lay tensors into blobs → name each blob by its content
    → take over what the last publish has already → seal and send the rest → sign → claim a sequence → commit

The commit is one conditional write of `versions/<semver>`. Everything before it is invisible to readers, so a publish
that is killed anywhere leaves nothing half: run again, it sends only what its journal does not know as sent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from modelparams.assets import TOKENIZER, check_assets
from modelparams.commit import Draft, commit, require_end, require_floor, require_same
from modelparams.digest import Digest
from modelparams.errors import IndexInvalid, ObjectMissing, UsageError, VersionExists
from modelparams.hashes import open_checked
from modelparams.history import Past
from modelparams.journal import Journal, cache_directory
from modelparams.keys import KeyProvider
from modelparams.manifest import BlobEntry, Epoch, Manifest, ModelId
from modelparams.model_keys import publisher_keys
from modelparams.names import ModelName, Version
from modelparams.plaintext import PlainVersion, read_plain
from modelparams.pointers import list_versions
from modelparams.progress import NoProgress, Progress
from modelparams.sealing import NamedVersion, Sending, lost_blobs, named
from modelparams.store.contract import ObjectStore
from modelparams.trust import SigningKey, TrustPolicy
from modelparams.wording import counted

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish` did. Bytes are sealed ones."""

    model: ModelName
    version: Version
    manifest_digest: Digest
    sequence: int
    bytes_total: int
    blobs_new: int = 0
    blobs_reused: int = 0
    """Taken over from the publish before."""
    blobs_resumed: int = 0
    """Sent by an earlier run of this publish that did not end."""
    bytes_sent: int = 0
    was_there: bool = False
    """The store had this very version; nothing was written."""
    is_other_layout: bool = False
    """Its tensors' names, shapes or dtypes are not those of the publish before: pods that serve that refuse it."""


def publish(
    directory: Path,
    store: ObjectStore,
    *,
    model: ModelName,
    version: Version,
    keys: KeyProvider,
    key_ref: str,
    signers: Sequence[SigningKey],
    trust: TrustPolicy | None = None,
    floor: int | None = None,
    not_after: datetime | None = None,
    workers: int = 4,
    progress: Progress | None = None,
    cache: Path | None = None,
    check_finite: bool = True,
    reuse: bool = True,
    now: datetime | None = None,
) -> Published:
    """Publish `directory` as `version` of `model`. Publishing the same again is a success that writes nothing.

    Args:
        directory: as `save_pretrained` wrote it, with hashes in its config.json.
        store: of this one model; the first publish makes the model's keys in it.
        model: its name, the same at every publish.
        version: one that the store does not have; it may be lower than others.
        keys: wraps and unwraps the model's keys.
        key_ref: the key-encryption key to use; pods need one of that name.
        signers: sign the manifest.
        trust: what earlier manifests must satisfy, and the new one will; by default, one of `signers`.
        floor: the lowest sequence that may be served from now on; by default as before. It can only rise, and only by
            a version that is not there yet.
        not_after: when pods begin to refuse the version; as it was, if that is there.
        workers: threads that seal and send.
        progress: told of plain bytes under "read", and of sealed bytes under "send".
        cache: where the journal is kept; by default the user's cache directory.
        check_finite: False lets NaN and infinity through, which pods then refuse.
        reuse: False seals every blob anew, whatever the store has: a blob that was damaged there is left behind.
        now: what the manifest says of when it was made; by default the clock's time.

    Raises:
        ParamsHashMismatch, UsageError, NotFinite: the directory is not fit to be published, or nobody could serve it.
        VersionExists: the store has other parameters under that version.
        ObjectMissing: the store has the same under that version, but lost some of its blobs.
        StoreError, KeyUnavailable: try again; what was sent is not sent twice.
        IntegrityError: no earlier version, or not the new manifest, satisfies `trust`.
    """
    trust, report, now = trust or TrustPolicy.of(*signers), progress or NoProgress(), now or datetime.now(UTC)
    files = open_checked(directory)
    plain = read_plain(directory, files)
    _check_servable(directory, plain)
    versions = list_versions(store)
    if version not in versions:
        require_end(not_after, now)
        trust.require(signer.key_id for signer in signers)  # before anything is sent
    model_keys = publisher_keys(store, keys, key_ref)
    past = Past(store, model, model_keys.uid, trust)
    history = past.read(versions)
    if history.manifest:
        model_keys.check_past(history.manifest, store)
    content = named(plain, model_keys, workers=workers, report=report, check_finite=check_finite)
    for file in files.values():  # from here on, sealing sees to it that no byte changes
        file.require_unchanged()
    if version in versions:
        return _found(past, content, version, floor, not_after)
    require_floor(history, floor)
    journal = Journal((cache or cache_directory()) / "publish", store, model, version)
    sending = Sending(store, model_keys, journal, _blobs(history.manifest if reuse else None), report)
    draft = Draft(
        ModelId(uid=model_keys.uid, name=model),
        version,
        content.schema_digest,
        (*_epochs(history.manifest), model_keys.commitment),
        sending.run(content.blobs, workers=workers),
        floor,
        now,
        not_after,
    )
    try:
        manifest, digest = commit(draft, past, history, signers)
    except VersionExists:  # another publisher was faster; with the same parameters, that is what was asked for
        return _found(past, content, version, floor, not_after)
    journal.forget()
    return _is_new(manifest, digest, sending.counts, history.manifest)


def _check_servable(directory: Path, plain: PlainVersion) -> None:
    if TOKENIZER not in plain.assets:
        _log.warning("%s has no %s: a program can take it, and no engine serves it", directory, TOKENIZER)
    try:
        check_assets(plain.assets)
    except IndexInvalid as error:
        raise UsageError(
            f"no engine could serve {directory}: {error.message}", hint="restore the file that save_pretrained wrote"
        ) from error


def _blobs(last: Manifest | None) -> dict[str, BlobEntry]:
    """What may be listed again, by content id."""
    return {blob.content_id: blob for blob in last.blobs} if last else {}


def _epochs(last: Manifest | None) -> tuple[Epoch, ...]:
    return last.epochs if last else ()


def _is_new(manifest: Manifest, digest: Digest, counts: Mapping[str, int], last: Manifest | None) -> Published:
    return Published(
        manifest.model.name,
        manifest.version,
        digest,
        manifest.sequence,
        manifest.size_bytes,
        counts["new"],
        counts["reused"],
        counts["resumed"],
        counts["sent"],
        is_other_layout=last is not None and last.schema_digest != manifest.schema_digest,
    )


def _found(
    past: Past, content: NamedVersion, version: Version, floor: int | None, not_after: datetime | None
) -> Published:
    """Take the version that the store has for the one to publish, if it is the same."""
    twin = past.of_version(version)
    manifest = twin.manifest
    if not _equal(manifest, content):
        raise VersionExists(f"the store has other parameters as {manifest.model.name} {manifest.version}")
    _check_whole(past.store, manifest)
    require_same(manifest, floor, not_after)
    return Published(
        manifest.model.name,
        manifest.version,
        twin.digest,
        manifest.sequence,
        manifest.size_bytes,
        blobs_reused=len(manifest.blobs),
        was_there=True,
    )


def _check_whole(store: ObjectStore, manifest: Manifest) -> None:
    """Sealing draws fresh keys and IVs, so a lost blob's very bytes cannot be made again."""
    if lost := lost_blobs(store, manifest.blobs):
        blobs, more = counted(len(lost), "blob"), " and others" if len(lost) > 1 else ""
        raise ObjectMissing(
            f"{store} has lost {blobs} of {manifest.model.name} {manifest.version}: {lost[0].object_key}{more}",
            hint="restore what is lost from the bucket's versioning or a backup, or publish the directory as another "
            "version: a blob cannot be sealed into the same bytes twice",
        )


def _equal(manifest: Manifest, version: NamedVersion) -> bool:
    """Whether a published version has the same parameters and files. Indexes always differ, by their salt."""

    def facts(content_ids: Sequence[str], schema: Digest) -> tuple[Sequence[str], str, Digest]:
        return content_ids[:-2], content_ids[-1], schema

    published = facts([blob.content_id for blob in manifest.blobs], manifest.schema_digest)
    return published == facts([blob.content_id for blob in version.blobs], version.schema_digest)
