"""Why something is as it is: one code for a condition, its event, its log line and the error behind it."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A CamelCase code that users may build on. Values are API: never rename one."""

    # A version's bytes are not what was promised. These stall; only another object cures them.
    MANIFEST_DIGEST_MISMATCH = "ManifestDigestMismatch"
    MANIFEST_INVALID = "ManifestInvalid"
    SIGNATURE_INVALID = "SignatureInvalid"
    SIGNER_UNKNOWN = "SignerUnknown"
    TOO_FEW_SIGNATURES = "TooFewSignatures"
    WRONG_MODEL = "WrongModel"
    WRONG_VERSION = "WrongVersion"
    SEQUENCE_TOO_LOW = "SequenceTooLow"
    EXPIRED = "Expired"
    FORMAT_UNSUPPORTED = "FormatUnsupported"
    BLOB_SIZE_MISMATCH = "BlobSizeMismatch"
    BLOB_DIGEST_MISMATCH = "BlobDigestMismatch"
    SEAL_BROKEN = "SealBroken"
    KEY_MISMATCH = "KeyMismatch"
    INDEX_INVALID = "IndexInvalid"
    LAYOUT_MISMATCH = "LayoutMismatch"
    NOT_FINITE = "NotFinite"
    PARAMS_HASH_MISMATCH = "ParamsHashMismatch"
    VERSION_EXISTS = "VersionExists"

    # The world around is not ready. These are tried again.
    OBJECT_MISSING = "ObjectMissing"
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    SOURCE_DENIED = "SourceDenied"
    KEY_UNAVAILABLE = "KeyUnavailable"
    TRUST_UNAVAILABLE = "TrustUnavailable"
    ARENA_EXHAUSTED = "ArenaExhausted"
    SLOT_BUSY = "SlotBusy"
    ENGINE_UNAVAILABLE = "EngineUnavailable"
    API_UNAVAILABLE = "APIUnavailable"

    # What a user wrote cannot be used.
    INVALID_NAME = "InvalidName"
    INVALID_VERSION = "InvalidVersion"
    INVALID_SPEC = "InvalidSpec"
    USAGE = "Usage"

    # A swap inside a pod.
    ILLEGAL_TRANSITION = "IllegalTransition"
    STALE_TERM = "StaleTerm"
    SWAP_FAILED = "SwapFailed"

    # States of a version.
    VERIFYING = "Verifying"
    VERIFIED = "Verified"
    STANDBY = "Standby"
    LIVE = "Live"
    NO_ROLLOUT = "NoRollout"
    ROLLING_OUT = "RollingOut"
    SUPERSEDED = "Superseded"
    WITHDRAWN = "Withdrawn"

    # States of a rollout.
    STAGING = "Staging"
    SWAPPING = "Swapping"
    STEP_PAUSE = "StepPause"
    AWAITING_APPROVAL = "AwaitingApproval"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    PROMOTED = "Promoted"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    NO_PODS = "NoPods"
    NO_VERSION_SELECTED = "NoVersionSelected"
    PINNED_VERSION_MISSING = "PinnedVersionMissing"
    PINNED_VERSION_WITHDRAWN = "PinnedVersionWithdrawn"
    PODS_CLAIMED_TWICE = "PodsClaimedTwice"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    PODS_SERVING = "PodsServing"
    PODS_NOT_SERVING = "PodsNotServing"

    INTERNAL_ERROR = "InternalError"
