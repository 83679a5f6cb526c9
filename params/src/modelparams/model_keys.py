"""A model's keys in its store, as the publisher needs them: found, or made at the first publish."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from modelparams.errors import ObjectMissing
from modelparams.keys import (
    KEY_OBJECT_LIMIT,
    KeyContext,
    KeyProvider,
    commit,
    open_key_object,
    parse_key_object,
    unwrap_dek,
    wrap_dek,
    write_key_object,
)
from modelparams.manifest import BlobEntry, Epoch
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

    Raises:
        StoreError, KeyUnavailable, KeyMismatch.
    """

    def get_or_make(key: str, context: Callable[[str], KeyContext]) -> tuple[str, Secret32]:
        """The model's uid and the key at `key`."""
        try:
            data = store.get(key, limit=KEY_OBJECT_LIMIT)
        except ObjectMissing:
            made = write_key_object(Secret32.random(), context(uid), provider, [key_ref])
            store.put_new(key, made)
            data = store.get(key, limit=KEY_OBJECT_LIMIT)
        owner = parse_key_object(data, key).model_uid if key == _ID_KEY else uid
        return owner, open_key_object(data, context(owner), provider, key_ref)

    uid = str(uuid.uuid4())
    uid, content_id_key = get_or_make(_ID_KEY, KeyContext.of_content_id_key)
    epoch = _newest_epoch(store)
    _, model_key = get_or_make(f"keys/{epoch}.json", lambda owner: KeyContext.of_model_key(owner, epoch))
    return PublisherKeys(uid, content_id_key, epoch, model_key)


def _newest_epoch(store: ObjectStore) -> str:
    epochs = [match[1] for key in store.list("keys/") if (match := _EPOCH_KEY.fullmatch(key))]
    return max(epochs, key=lambda epoch: int(epoch[1:]), default="e1")
