"""A model's keys in its store, as the publisher needs them: found, or made at the first publish."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from modelparams.errors import BlobSizeMismatch, KeyMismatch, KeyUnavailable, ObjectMissing
from modelparams.keys import (
    KEY_OBJECT_LIMIT,
    KeyContext,
    KeyProvider,
    check_commitment,
    commit,
    open_key_object,
    parse_key_object,
    unwrap_dek,
    wrap_dek,
    write_key_object,
)
from modelparams.manifest import BlobEntry, Epoch, Manifest
from modelparams.pointers import list_versions
from modelparams.secret import Secret32
from modelparams.store.contract import ObjectStore

_ID_KEY = "keys/id.json"
_EPOCH_KEY = re.compile(r"keys/(e[1-9][0-9]{0,8})\.json")


@dataclass(frozen=True, slots=True)
class PublisherKeys:
    """What new blobs are named and sealed with."""

    uid: str
    content_id_key: Secret32
    epoch: str
    model_key: Secret32

    @property
    def commitment(self) -> Epoch:
        """What the manifest says of the model key."""
        return Epoch(id=self.epoch, commit=commit(self.model_key, self.uid, self.epoch).hex())

    def check_past(self, manifest: Manifest, store: ObjectStore) -> None:
        """Refuse to go on from a version whose model keys are not those of the store.

        Raises:
            ObjectMissing: the key of one of its epochs is lost.
            KeyMismatch: the present epoch's key is another one.
        """
        for epoch in manifest.epochs:
            if epoch.id == self.epoch:
                check_commitment(self.model_key, self.uid, self.epoch, bytes.fromhex(epoch.commit))
            elif not store.exists(key := f"keys/{epoch.id}.json"):
                raise _lost(store, key)

    def wrap(self, data_key: Secret32) -> str:
        """A blob's key as the manifest lists it."""
        return wrap_dek(self.model_key, data_key).hex()

    def check(self, entry: BlobEntry) -> None:
        """Refuse a blob that this model key does not open.

        Raises:
            KeyMismatch: it is of another epoch or model.
        """
        unwrap_dek(self.model_key, bytes.fromhex(entry.wrapped_key))


def publisher_keys(store: ObjectStore, provider: KeyProvider, key_ref: str) -> PublisherKeys:
    """The content-id key and the newest epoch's model key; both are made when the store has none.

    Two first publishes at once agree: whoever writes an object first has made the key, the other one reads it.
    Where a version is, its keys were: then none is made, since a second key of an epoch opens no blob of the first.

    Raises:
        ObjectMissing: the store has versions and has lost the key.
        KeyUnavailable, KeyMismatch, BlobSizeMismatch: a key does not open, or is none.
        StoreError.
    """
    has_versions = bool(list_versions(store))  # looked at first: a version is written after its keys

    def get_or_make(key: str, context: Callable[[str], KeyContext]) -> tuple[str, Secret32]:
        """The model's uid and the key at `key`."""
        try:
            data = store.get(key, limit=KEY_OBJECT_LIMIT)
        except ObjectMissing:
            if has_versions:
                raise _lost(store, key) from None
            made = write_key_object(Secret32.random(), context(uid), provider, [key_ref])
            store.put_new(key, made)
            data = store.get(key, limit=KEY_OBJECT_LIMIT)
        owner = parse_key_object(data, key).model_uid if key == _ID_KEY else uid
        return owner, open_key_object(data, context(owner), provider, key_ref)

    uid = str(uuid.uuid4())
    uid, content_id_key = get_or_make(_ID_KEY, KeyContext.of_content_id_key)
    epoch = _newest_epoch(store)
    try:
        _, model_key = get_or_make(f"keys/{epoch}.json", lambda owner: KeyContext.of_model_key(owner, epoch))
    except (KeyUnavailable, KeyMismatch, BlobSizeMismatch) as error:
        raise type(error)(error.message, hint=_listed_or_not(epoch)) from error
    return PublisherKeys(uid, content_id_key, epoch, model_key)


def _listed_or_not(epoch: str) -> str:
    """What to do with a key that does not open. The newest counts, and any writer of the bucket can add one."""
    key = f"keys/{epoch}.json"
    return (
        f"if no version lists the epoch {epoch} ('modelparams inspect VERSION'), delete {key}: nothing needs it; "
        "else restore it, or use the key that it is wrapped under"
    )


def _lost(store: ObjectStore, key: str) -> ObjectMissing:
    return ObjectMissing(
        f"{key} is not in {store}, which has versions: the key that their blobs need is lost",
        hint=f"restore {key} from the bucket's versioning or a backup; a new key would open none of those blobs",
    )


def _newest_epoch(store: ObjectStore) -> str:
    epochs = [match[1] for key in store.list("keys/") if (match := _EPOCH_KEY.fullmatch(key))]
    return max(epochs, key=lambda epoch: int(epoch[1:]), default="e1")
