"""What a store says, signed, of the publishes before: the sequence, floor and blobs that the next one goes on from.

Pointers and claims are not signed, so they only say where to look. What counts is in the manifests that verify: the
highest sequence and the highest floor of them. One that does not verify is passed over with a warning, since whoever
may write to the bucket could else stop every publish with one bad object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from modelparams.digest import Digest
from modelparams.errors import (
    IntegrityError,
    ManifestInvalid,
    ModelParamsError,
    ObjectMissing,
    SignerUnknown,
    TooFewSignatures,
    UsageError,
    WrongModel,
)
from modelparams.manifest import Expectation, Manifest, VerifiedManifest
from modelparams.names import ModelName, Version
from modelparams.parallel import for_each
from modelparams.pointers import Pointer, claim_key, list_claims, pointer_key, read_claim, read_pointer
from modelparams.store.contract import ObjectStore
from modelparams.trust import TrustPolicy
from modelparams.verify import fetch_manifest

_MANY = 50
"""More versions than these are not all read: only this many at a time, by their claims, until some verify."""
_READERS = 8
_IN_A_ROW = 100
"""Numbers that may be claimed behind the last publish: those of publishers at once, of killed ones, and some junk."""

_CHANGE_KEYS = (
    "to change keys, publish once under a policy that the last version satisfies, such as its own (--trust FILE), "
    "signed by the old keys and the new: from then on there is a version that the new policy takes"
)

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class History:
    """The verified manifest of the highest sequence, and the highest floor of all that verified."""

    last: VerifiedManifest | None = None
    floor: int = 0

    @property
    def manifest(self) -> Manifest | None:
        """The last one's."""
        return self.last.manifest if self.last else None

    @property
    def sequence(self) -> int:
        """The highest; 0 before the first publish."""
        return self.last.manifest.sequence if self.last else 0

    def having(self, found: VerifiedManifest) -> History:
        """With one more."""
        last = found if found.manifest.sequence > self.sequence else self.last
        return History(last, max(self.floor, found.manifest.floor))


@dataclass(frozen=True, slots=True)
class Past:
    """Reads the history of one model from its store. `uid` is the model's, from its keys."""

    store: ObjectStore
    model: ModelName
    uid: str
    trust: TrustPolicy

    def read(self, versions: Sequence[Version]) -> History:
        """The history by the pointers of `versions`, which are all that the store has; by claims if they are many.

        Raises:
            IntegrityError, ObjectMissing, UsageError: there are versions, and none verifies: the first one's error.
            StoreError: the store cannot be read.
        """
        if len(versions) > _MANY and (history := self._by_claims()).last:
            return history
        found, failures = self._read_all(versions, pointer_key, self._of_version)
        if failures and not found:
            raise _under_this_policy(failures[min(failures)])
        return _history(found)

    def of_version(self, version: Version) -> VerifiedManifest:
        """The manifest of one version.

        Raises:
            IntegrityError: it, or its pointer, is not as it should be.
            UsageError: it is of another model.
        """
        pointer, found = self._pointed(version)
        if pointer.sequence != found.manifest.sequence:
            raise ManifestInvalid(_other_sequence(pointer_key(version), pointer.sequence, found))
        return found

    def beyond(self, history: History, sequence: int) -> tuple[History, int]:
        """`history` with what has claimed `sequence` and the numbers behind it; and the next free number.

        One listing, so that junk costs its reading and not a signature each.

        Raises:
            UsageError: more are claimed in a row than publishers make.
        """
        claimed, end = set(list_claims(self.store)), sequence + 1
        while end in claimed:
            end += 1
        if end - sequence > _IN_A_ROW:
            raise UsageError(
                f"{self.store} has {end - sequence} claims in a row from {claim_key(sequence)} on, "
                f"more than the {_IN_A_ROW} that publishers may leave behind the last version",
                hint="delete those that name no manifest, and let nobody but publishers write below sequences/",
            )
        found, _ = self._read_all(range(sequence, end), claim_key, self._of_claim)
        return _history([*found, *([history.last] if history.last else [])], history.floor), end

    def _by_claims(self) -> History:
        """Each publish goes on from those before it, so the newest claims that verify say all."""
        claims = list_claims(self.store)
        for start in range(0, len(claims), _MANY):
            found, _ = self._read_all(claims[start : start + _MANY], claim_key, self._of_claim)
            if found:
                return _history(found)
        return History()

    def _of_version(self, version: Version) -> VerifiedManifest:
        pointer, found = self._pointed(version)
        if pointer.sequence != found.manifest.sequence:
            _log.warning("%s", _other_sequence(pointer_key(version), pointer.sequence, found))
        return found

    def _pointed(self, version: Version) -> tuple[Pointer, VerifiedManifest]:
        pointer = read_pointer(self.store, version)
        return pointer, self._fetch(pointer.digest, version)

    def _of_claim(self, sequence: int) -> VerifiedManifest:
        found = self._fetch(read_claim(self.store, sequence), None)
        if found.manifest.sequence != sequence:
            raise ManifestInvalid(_other_sequence(claim_key(sequence), sequence, found))
        return found

    def _fetch(self, digest: Digest, version: Version | None) -> VerifiedManifest:
        # One that has expired for pods still is what the next is built on: read it as of long ago.
        expect = Expectation(self.model, version=version, now=datetime.fromtimestamp(0, UTC))
        try:
            found = fetch_manifest(self.store, digest, trust=self.trust, expect=expect)
        except WrongModel as error:
            raise _foreign(self.store, self.model) from error
        if found.manifest.model.uid != self.uid:
            raise _foreign(self.store, self.model)
        return found

    def _read_all(
        self, items: Sequence[T], key_of: Callable[[T], str], read: Callable[[T], VerifiedManifest]
    ) -> tuple[list[VerifiedManifest], dict[str, ModelParamsError]]:
        """The manifests that verify, in no order, and why the others do not, by their keys."""
        found: list[VerifiedManifest] = []
        failures: dict[str, ModelParamsError] = {}

        def one(item: T) -> None:
            try:
                found.append(read(item))
            except (IntegrityError, ObjectMissing, UsageError) as error:
                failures[key_of(item)] = error

        for_each(items, lambda _: one, workers=min(_READERS, len(items)))
        for key in sorted(failures):
            _log.warning("%s is passed over: %s", key, failures[key].message)
        return found, failures


def _history(found: Iterable[VerifiedManifest], floor: int = 0) -> History:
    history = History(floor=floor)
    for one in sorted(found, key=lambda one: one.digest.text):  # of twins of one sequence, always the same
        history = history.having(one)
    return history


def _under_this_policy(error: ModelParamsError) -> ModelParamsError:
    if isinstance(error, SignerUnknown | TooFewSignatures):
        error.next_step = _CHANGE_KEYS
    return error


def _other_sequence(key: str, said: int, found: VerifiedManifest) -> str:
    return f"{key} says sequence {said}, and the signed manifest {found.manifest.sequence}"


def _foreign(store: ObjectStore, model: ModelName) -> UsageError:
    return UsageError(f"{store} belongs to another model than {model}", hint="use a prefix for each model")
