"""Everything that this package raises on purpose.

    ModelParamsError
    ├── UsageError               what a person wrote cannot be used
    │   ├── InvalidName
    │   ├── InvalidVersion
    │   ├── ParamsHashMismatch       a directory's bytes differ from its config.json
    │   ├── VersionExists            the store holds another version of that name
    │   ├── InvalidSpec              an object's spec that the CRD let pass and we cannot use
    │   └── SourceNotAllowed         an object names a store that this operator may not call
    ├── StoreError               the object store did not answer as hoped
    │   ├── StoreUnavailable         network, 5xx, throttling, a stream cut short: try again
    │   ├── StoreDenied              credentials or rights: try again, slowly
    │   └── ObjectMissing            the key is not there
    ├── KeyUnavailable           no provider here holds the key-encryption key
    ├── TrustUnavailable         a running pod cannot use its trust policy
    ├── APIError                 the Kubernetes API server did not do what was asked
    │   ├── APIUnavailable           network, 5xx, throttling, a late answer: try again
    │   ├── APIDenied                401, 403: try again, slowly
    │   ├── APIMissing               404: the object, or its kind, is not there
    │   ├── APIConflict              409: the object changed meanwhile, or exists: look again
    │   ├── APIGone                  410: the resource version is too old: list again
    │   └── APIInvalid               the server refuses what we wrote: a bug, or CRDs of another release
    ├── IntegrityError           the bytes are not what was promised: never retried into acceptance
    │   ├── ManifestDigestMismatch, ManifestInvalid, FormatUnsupported
    │   ├── SignatureInvalid, SignerUnknown, TooFewSignatures
    │   ├── WrongModel, WrongVersion, SequenceTooLow, Expired
    │   ├── BlobSizeMismatch, BlobDigestMismatch, SealBroken, KeyMismatch
    │   └── IndexInvalid, LayoutMismatch, NotFinite
    └── SwapError                an engine could not take a version
        ├── ArenaExhausted, SlotBusy, EngineUnavailable, IllegalTransition, StaleTerm
        └── SwapFailed

A message names the object and what happened; `hint` says what to do next. Neither ever holds a key,
a token, a URL's query or plaintext. What an error means for a loop is in `modelparams.failure`.

It is one long file on purpose: a table with a row a kind and no logic, read across its branches by whoever catches,
documents or counts errors.
"""

from __future__ import annotations

from typing import ClassVar

from modelparams.reasons import Reason


class ModelParamsError(Exception):
    """The root. `reason` is the code that a condition, an event and a log line show."""

    reason: ClassVar[Reason] = Reason.INTERNAL_ERROR
    hint: ClassVar[str] = "this is a bug: please report it with the log around it"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = hint or self.hint

    def __str__(self) -> str:
        return f"{self.message}. {self.next_step[0].upper()}{self.next_step[1:]}."


class UsageError(ModelParamsError):
    """What a person wrote cannot be used."""

    reason = Reason.USAGE
    hint = "see the command's --help"


class InvalidName(UsageError):
    """No model name."""

    reason = Reason.INVALID_NAME
    hint = "use lower-case letters, digits and inner dashes, at most 63 characters"


class InvalidVersion(UsageError):
    """No semantic version, or no range of them."""

    reason = Reason.INVALID_VERSION
    hint = "write MAJOR.MINOR.PATCH[-prerelease] in lower case without build metadata, such as 1.4.2"


class ParamsHashMismatch(UsageError):
    """A directory's bytes differ from the hashes in its config.json."""

    reason = Reason.PARAMS_HASH_MISMATCH
    hint = "if the new bytes are wanted, run 'modelparams hash DIRECTORY' and review the change; else restore the file"


class VersionExists(UsageError):
    """The store holds a different version of that name; versions are never overwritten."""

    reason = Reason.VERSION_EXISTS
    hint = "publish under a higher version"


class InvalidSpec(UsageError):
    """An object's spec passed the CRD's schema and cannot be used."""

    reason = Reason.INVALID_SPEC
    hint = "correct the object's spec"


class SourceNotAllowed(UsageError):
    """An object names a store that this operator may not call."""

    reason = Reason.INVALID_SPEC
    hint = "use an endpoint of the operator's allow-list, or have its administrator add this one"


class StoreError(ModelParamsError):
    """The object store did not answer as hoped."""

    reason = Reason.SOURCE_UNAVAILABLE
    hint = "check the endpoint and the store's health; it is tried again"


class StoreUnavailable(StoreError):
    """Network, 5xx, throttling, or a stream that ended early."""


class StoreDenied(StoreError):
    """The store refused the credentials, or they lack the right."""

    reason = Reason.SOURCE_DENIED
    hint = "check the access key, its secret and its rights on the bucket and prefix; it is tried again"


class ObjectMissing(StoreError):
    """The key is not in the store."""

    reason = Reason.OBJECT_MISSING
    hint = "check bucket and prefix; restore it from the bucket's versions, or publish anew; it is tried again"


class KeyUnavailable(ModelParamsError):
    """No provider here holds the key-encryption key that the model's key is wrapped with."""

    reason = Reason.KEY_UNAVAILABLE
    hint = "mount the key that encryption.keyRef names; it is tried again"


class TrustUnavailable(ModelParamsError):
    """The trust policy that is mounted in the pod cannot be used, or does not count who signed; the operator's does."""

    reason = Reason.TRUST_UNAVAILABLE
    hint = (
        "compare trust.json in the namespace's ConfigMap modelparams-trust with the operator's; a changed one takes a "
        "minute to reach the pod; 'modelparams keys trust' writes one; it is tried again"
    )


class APIError(ModelParamsError):
    """The Kubernetes API server did not do what was asked."""

    reason = Reason.API_UNAVAILABLE
    hint = "check the API server's health; it is tried again"


class APIUnavailable(APIError):
    """Network, 5xx, throttling, or no answer in time."""


class APIDenied(APIError):
    """The identity is not accepted, or lacks the right."""

    hint = "check the service account's token and its RBAC rules; it is tried again"


class APIMissing(APIError):
    """The object, or its kind, is not there."""

    hint = "check that the CRDs of this release are installed and the object exists; it is tried again"


class APIConflict(APIError):
    """The object changed since it was read, or exists already."""

    hint = "it is read and tried again"


class APIGone(APIError):
    """The resource version asked for is no longer kept."""

    hint = "it is listed again"


class APIInvalid(APIError):
    """The server refuses the object as written."""

    hint = "check that the CRDs are those of this release; it is tried again"


class IntegrityError(ModelParamsError):
    """The bytes are not what was promised."""

    reason = Reason.MANIFEST_INVALID
    hint = "publish the version again under a new number; nothing was applied"


class ManifestDigestMismatch(IntegrityError):
    """The manifest's bytes do not hash to the pinned digest."""

    reason = Reason.MANIFEST_DIGEST_MISMATCH
    hint = (
        "take manifestDigest from what 'modelparams publish' printed; if it is right, the store was changed: restore "
        "the manifest; either way delete the ModelParamVersion and apply it again"
    )


class ManifestInvalid(IntegrityError):
    """The manifest does not follow its schema."""

    reason = Reason.MANIFEST_INVALID


class FormatUnsupported(IntegrityError):
    """A blob has parameters that this release does not open."""

    reason = Reason.FORMAT_UNSUPPORTED
    hint = "upgrade modelparams, or publish in a format of this release"


class SignatureInvalid(IntegrityError):
    """A known key's signature does not verify."""

    reason = Reason.SIGNATURE_INVALID
    hint = "sign the manifest again with a trusted key; if it was right before, the store was changed"


class SignerUnknown(IntegrityError):
    """No signature is by a key of the trust policy."""

    reason = Reason.SIGNER_UNKNOWN
    hint = "sign with a trusted key, or add the signer to the trust policy"


class TooFewSignatures(IntegrityError):
    """Fewer trusted keys signed than the policy's threshold."""

    reason = Reason.TOO_FEW_SIGNATURES
    hint = "publish with one --sign for each of the required keys"


class WrongModel(IntegrityError):
    """The manifest is for another model."""

    reason = Reason.WRONG_MODEL
    hint = "correct spec.modelName or spec.manifestDigest"


class WrongVersion(IntegrityError):
    """The manifest is for another version of the model."""

    reason = Reason.WRONG_VERSION
    hint = "correct spec.version or spec.manifestDigest"


class SequenceTooLow(IntegrityError):
    """The version is older than the publisher's floor, or than what it would replace."""

    reason = Reason.SEQUENCE_TOO_LOW
    hint = "publish the parameters again, which gives them a higher sequence"


class Expired(IntegrityError):
    """The manifest's notAfter has passed."""

    reason = Reason.EXPIRED


class BlobSizeMismatch(IntegrityError):
    """A blob is shorter or longer than signed."""

    reason = Reason.BLOB_SIZE_MISMATCH
    hint = (
        "publish the directory under a new number with --no-reuse, which seals every blob anew; or restore the blob, "
        "then delete the refused ModelParamVersion and apply it again, or where pods refused it set another "
        "retryToken; nothing was applied"
    )


class BlobDigestMismatch(IntegrityError):
    """A blob's hash differs from the signed one."""

    reason = Reason.BLOB_DIGEST_MISMATCH
    hint = (
        "publish the directory under a new number with --no-reuse, which seals every blob anew; or restore the blob, "
        "then delete the refused ModelParamVersion and apply it again, or where pods refused it set another "
        "retryToken; nothing was applied"
    )


class SealBroken(IntegrityError):
    """A blob is as signed, and a FLOE header or segment of it does not authenticate."""

    reason = Reason.SEAL_BROKEN
    hint = "publish the directory under a new number with --no-reuse, which seals every blob anew; nothing was applied"


class KeyMismatch(IntegrityError):
    """The unwrapped model key is not the one that the manifest commits to."""

    reason = Reason.KEY_MISMATCH
    hint = "the key object in the store was replaced, or keyRef names another key: restore it"


class IndexInvalid(IntegrityError):
    """The tensor index contradicts itself or the manifest."""

    reason = Reason.INDEX_INVALID


class LayoutMismatch(IntegrityError):
    """Names, dtypes or shapes differ from those of the running model."""

    reason = Reason.LAYOUT_MISMATCH
    hint = "a hot swap needs the same architecture; deploy another one as a new workload"


class NotFinite(IntegrityError):
    """A parameter is NaN or infinite."""

    reason = Reason.NOT_FINITE
    hint = "look for a diverged training run; publish finite parameters under a new number"


class SwapError(ModelParamsError):
    """An engine could not take a version."""

    reason = Reason.SWAP_FAILED
    hint = "the previous version is still live; look at the engine's log"


class ArenaExhausted(SwapError):
    """No memory for an arena of the version's size."""

    reason = Reason.ARENA_EXHAUSTED
    hint = "raise the memory volume (modelparams.dev/memory) and the engine's memory limit to twice the version's size"


class SlotBusy(SwapError):
    """Requests still run on the version whose arena is to be filled."""

    reason = Reason.SLOT_BUSY
    hint = "it is tried again when they have ended"


class EngineUnavailable(SwapError):
    """The engine does not answer on its socket."""

    reason = Reason.ENGINE_UNAVAILABLE
    hint = "it is tried again; look at the engine container's state and log"


class IllegalTransition(SwapError):
    """An order that the engine's state does not allow."""

    reason = Reason.ILLEGAL_TRANSITION
    hint = "the order is made again from the engine's present state"


class StaleTerm(SwapError):
    """An order by an operator that has lost its lease."""

    reason = Reason.STALE_TERM
    hint = "the present leader's order holds; if its rollout says StaleTerm too, restart the operator"


class SwapFailed(SwapError):
    """A commit failed; its outcome is read back from the engine."""

    reason = Reason.SWAP_FAILED


def every_kind() -> tuple[type[ModelParamsError], ...]:
    """All leaf classes, for tables that must cover each of them."""

    def leaves(kind: type[ModelParamsError]) -> list[type[ModelParamsError]]:
        below = kind.__subclasses__()
        return [leaf for sub in below for leaf in leaves(sub)] or [kind]

    return tuple(leaves(ModelParamsError))


def by_reason(reason: str, message: str) -> ModelParamsError:
    """Raise-able again what another process reported by its code and message."""
    for kind in every_kind():
        if kind.reason == reason:
            return kind(message)
    return SwapFailed(f"{reason}: {message}")
