"""What boto3 raises, in this package's terms. Texts hold the server's error code alone: its message may name keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.client import HTTPException
from ssl import SSLCertVerificationError

import urllib3.exceptions
from botocore import exceptions as boto
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from modelparams.errors import (
    BlobSizeMismatch,
    ModelParamsError,
    ObjectMissing,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from modelparams.store.s3_answers import AnswerRefused

# By code first, since some servers answer an unknown access key with 404 (versitygw: XAdminUserNotFound).
_DENIED = {
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "XAdminUserNotFound",
}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.TokenRetrievalError,
    boto.SSOError,
)
_CODE = re.compile(r"[A-Za-z0-9.]{0,64}")
# What the kind of error alone does not say.
_HINTS = {
    "ExpiredToken": "get new credentials; it is tried again",
    "InsufficientStorage": "make room in the store; it is tried again",
    "RequestTimeTooSkewed": "set the clock of this machine, or the store's; it is tried again",
}
# The first match counts: botocore's kinds are each other's children.
_HAPPENED: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (boto.ConnectTimeoutError, "no connection to the endpoint came about in time"),
    (boto.ReadTimeoutError, "the endpoint did not answer in time"),
    (boto.EndpointConnectionError, "the endpoint cannot be reached: its name does not resolve, or nothing listens"),
    (boto.ConnectionClosedError, "the endpoint closed the connection without an answer"),
    (boto.ProxyConnectionError, "the proxy cannot be reached"),
    (boto.SSLError, "no TLS connection to the endpoint came about"),
    (boto.IncompleteReadError, "the answer ended early"),
    (boto.ResponseStreamingError, "the answer ended early"),
    (HTTPException, "the answer ended early or was no HTTP"),
    (urllib3.exceptions.TimeoutError, "the endpoint did not answer in time"),
    (urllib3.exceptions.HTTPError, "the answer ended early or was no HTTP"),
    (
        (AttributeError, LookupError, RuntimeError, ResponseParserError, TypeError, ValueError),
        "the answer is not one of S3",
    ),
)
_REFUSED = "the answer is longer than one of a store can be, or defines entities"
_SET_THEM = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role; it is tried again"


_NO_BUCKET = "check the bucket's name and the endpoint, or make the bucket; it is tried again"


def code_of(error: ClientError) -> str:
    """The S3 error code, such as NoSuchKey; after HEAD only the status as text. Anything else is no code."""
    found = str(error.response.get("Error", {}).get("Code", ""))
    return found if _CODE.fullmatch(found) else "no code of S3"


def status_of(error: ClientError) -> int:
    """The HTTP status; 0 when there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def translated(error: Exception, what: str) -> ModelParamsError:
    """The error to raise for `error`, which happened to `what` (an object's key and its store)."""
    if isinstance(error, ClientError):
        return _answered(code_of(error), status_of(error), what)
    if isinstance(error, _NO_CREDENTIALS):
        return StoreDenied(f"{what}: no usable credentials", hint=_SET_THEM)
    if isinstance(error, boto.ParamValidationError):
        return UsageError(f"{what} is not a name that S3 takes", hint="check bucket and prefix")
    if untrusted := next((one for one in _origins(error) if isinstance(one, SSLCertVerificationError)), None):
        told = f"{what}: the endpoint's certificate is not trusted ({untrusted.verify_message})"
        return StoreUnavailable(told, hint="name the file of its CA by AWS_CA_BUNDLE; it is tried again")
    return StoreUnavailable(f"{what}: {_happened(error)}")


def _happened(error: Exception) -> str:
    """What a person may look for; the error's own text may hold a URL's query."""
    if any(isinstance(one, AnswerRefused) for one in _origins(error)):
        return _REFUSED
    told = next((said for kind, said in _HAPPENED if isinstance(error, kind)), None)
    if told is None and isinstance(error, OSError) and error.strerror:
        return f"the connection failed: {error.strerror}"
    return told or f"the request failed ({type(error).__name__})"


def _origins(error: BaseException | None) -> Iterator[BaseException]:
    """It and what it came from, since libraries wrap errors in theirs; not what an earlier try ended with."""
    while error is not None and not isinstance(error, ModelParamsError):
        yield error
        within = getattr(error, "kwargs", {}).get("error")  # botocore's; in a later try its context is the one before
        if isinstance(within, BaseException):
            yield from _origins(within)
        error = error.__cause__ or error.__context__


def _answered(code: str, status: int, what: str) -> ModelParamsError:
    if code in _DENIED or status in (401, 403):
        return StoreDenied(f"{what}: the store answered {code or status}", hint=_HINTS.get(code))
    if code == "NoSuchBucket":
        return ObjectMissing(f"{what}: there is no such bucket", hint=_NO_BUCKET)
    if code == "InvalidRange" or status == 416:
        return BlobSizeMismatch(f"{what} ends before the bytes that are expected")
    if status == 404:
        return ObjectMissing(f"{what} is not there")
    if status in (301, 307):
        return StoreUnavailable(f"{what}: the bucket is in another region", hint="correct the region")
    return StoreUnavailable(f"{what}: the store answered {code} ({status})", hint=_HINTS.get(code))
