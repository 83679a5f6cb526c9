"""Exit codes: what a script can tell apart without reading a message."""

from __future__ import annotations

from enum import IntEnum

from modelparams.errors import (
    APIDenied,
    APIError,
    ArenaExhausted,
    BlobDigestMismatch,
    BlobSizeMismatch,
    IntegrityError,
    KeyUnavailable,
    ManifestDigestMismatch,
    ModelParamsError,
    ObjectMissing,
    ParamsHashMismatch,
    StoreDenied,
    StoreError,
    SwapError,
    UsageError,
    WrongModel,
    WrongVersion,
)


class Exit(IntEnum):
    """0, 2 and 130, Ctrl-C, are as in every program; 1 is as diff(1) has it."""

    OK = 0
    DIFFERENT = 1
    """`diff --exit-code` found a difference. No error of ours ends so."""
    USAGE = 2
    """The command, a name or a directory cannot be used as given. Another try is the same."""
    INTEGRITY = 3
    """Bytes are not what was signed or promised. Nothing was applied. Look before you try again."""
    STORE = 4
    """The store could not be reached or refused us. Another try may help."""
    KEY = 5
    """A key-encryption key is missing."""
    ENGINE = 6
    """An engine could not take a version."""
    API = 7
    """The Kubernetes API server could not be reached or refused us."""
    BUG = 9
    """Something unforeseen: please report it."""
    PIPE = 141
    """Who read the result has gone; as a shell shows a program that SIGPIPE ended."""


# The first match counts; NotFinite at publish is an IntegrityError like any other.
_CODES: tuple[tuple[type[ModelParamsError], Exit], ...] = (
    (ParamsHashMismatch, Exit.INTEGRITY),
    (UsageError, Exit.USAGE),
    (IntegrityError, Exit.INTEGRITY),
    (StoreError, Exit.STORE),
    (KeyUnavailable, Exit.KEY),
    (SwapError, Exit.ENGINE),
    (APIError, Exit.API),
)


def exit_code(error: ModelParamsError) -> Exit:
    """The code for an error; of a kind that only another root knows, it is BUG."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.BUG)


# A pod's or an operator's errors say that they try again, and what to correct in an object. A person at a command line
# has other things at hand. Only where the error brought no hint of its own.
_AGAIN = "restore the store from the bucket's versions or a backup, or publish the directory under a new number"
_ANEW = (
    "restore the blob from the bucket's versions or a backup, or publish the directory under a new number with "
    "--no-reuse: without, the damaged blob would be listed again"
)
_HERE: tuple[tuple[type[ModelParamsError], str], ...] = (
    (StoreDenied, "check the access key, its secret and its rights on the bucket and prefix"),
    (
        ObjectMissing,
        "check --store; if it is right, restore the object from the bucket's versions or a backup, or publish the "
        "directory under a new number",
    ),
    (StoreError, "check the endpoint and the store's health, and run it again"),
    (
        KeyUnavailable,
        "give the key that the model was sealed with, by --keys DIR and --key-ref NAME: no other opens it; only for a "
        "model that was never published does 'modelparams keys kek' make one",
    ),
    (ArenaExhausted, "name a larger tmpfs by --memory, or free some of this one: it takes the version's size"),
    (APIDenied, "check what you may do there: kubectl auth can-i --list"),
    (BlobDigestMismatch, _ANEW),
    (BlobSizeMismatch, _ANEW),
    (WrongModel, "give that model's --model, or another --store"),
    (WrongVersion, f"its pointer below versions/ was changed: {_AGAIN}"),
    (ManifestDigestMismatch, f"give the digest that 'modelparams publish' printed; if it is right, {_AGAIN}"),
)
_LOOP = "; it is tried again"


def next_step(error: ModelParamsError) -> str:
    """What to do, at a command line."""
    if error.next_step != error.hint:
        return error.next_step.removesuffix(_LOOP)
    return next((step for kind, step in _HERE if isinstance(error, kind)), error.next_step.removesuffix(_LOOP))


TABLE = " ".join(
    (
        "Exit codes: 0 done; 1 diff --exit-code found a difference; 2 the command or its input cannot be used;",
        "3 bytes are not what was signed or promised; 4 the store failed or refused; 5 a key is missing;",
        "6 an engine could not take a version; 7 the Kubernetes API failed or refused; 9 a bug;",
        "10 and 11 are status's; 12 audit's: the log has a gap; 130 Ctrl-C; 141 nobody read on.",
    )
)
