"""A store in S3, or in anything that speaks its protocol: boto3's classic client, one retry policy, exact lengths.

Not `boto3[crt]`: it goes to AWS whatever the endpoint says (boto3 issue 4839).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from http.client import HTTPException
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

import boto3
import stamina
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import BotoCoreError, ClientError, ProfileNotFound

from modelparams.api.release import S3Source
from modelparams.errors import BlobSizeMismatch, ModelParamsError, ObjectMissing, StoreUnavailable, UsageError
from modelparams.store.contract import Credentials, Reader, checked_key, parts_of
from modelparams.store.s3_deadline import expect_within, rest, watch_answers
from modelparams.store.s3_errors import code_of, status_of, translated
from modelparams.store.s3_get import DirectGet

T = TypeVar("T")

_CONNECT_SECONDS, _SILENT_SECONDS = 5, 20
# A stream slower than this is as good as broken: 8 MiB may take half a minute and two minutes more.
_GRACE_SECONDS, _SLOWEST_BYTES_PER_SECOND = 30.0, 64 << 10
_ALL = "the list of keys"
_SINGLE_PUT, _PART = 32 << 20, 16 << 20

_session_lock = threading.Lock()


class S3Store:
    """Objects `<prefix>/<key>` of one bucket. Safe for several threads."""

    def __init__(self, client: Any, source: S3Source, *, credentials: Any = None, attempts: int = 5) -> None:
        self._client, self._source, self._attempts = client, source, attempts
        self._credentials = credentials
        self._direct: DirectGet | None = None
        self._prefix = parts_of(source.prefix)

    @classmethod
    def from_source(cls, source: S3Source, credentials: Credentials | None = None, *, attempts: int = 5) -> S3Store:
        """Open what `source` names.

        Raises:
            UsageError: no endpoint, region or bucket can be as written.
        """
        try:
            with _session_lock:  # boto3's default session makes clients one at a time
                client = boto3.client(
                    "s3",
                    endpoint_url=source.endpoint or None,
                    region_name=source.region,
                    config=_config(source),
                    **_given(credentials),
                )
        except ProfileNotFound as error:
            raise UsageError(f"no S3 client for bucket {source.bucket}: {error}", hint="correct AWS_PROFILE") from error
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"no S3 client for bucket {source.bucket}: {error}", hint=_HOW) from error
        watch_answers(client._endpoint.http_session)
        return cls(client, source, credentials=_signing(credentials), attempts=attempts)

    def __str__(self) -> str:
        at = f" at {self._source.endpoint}" if self._source.endpoint else ""
        return f"s3://{self._source.bucket}/{self._prefix}{at}"

    def get(self, key: str, *, limit: int) -> bytes:
        """See `ObjectStore`."""
        return self.tried(key, lambda name: self._get_once(key, name, limit))

    @contextmanager
    def reader(self, key: str, start: int, end: int) -> Iterator[Reader]:
        """See `ObjectStore`. A stream that breaks is opened again where the last `fill` ended."""
        reader = _S3Reader(self, checked_key(key), start, end)
        try:
            yield reader
        finally:
            reader.close()

    def read_into(self, key: str, offset: int, into: memoryview) -> int:
        """See `ObjectStore`."""
        with self.reader(key, offset, offset + len(into)) as reader:
            reader.fill(into)
            return reader.object_size

    def size(self, key: str) -> int:
        """See `ObjectStore`."""
        return self.tried(key, self._head)

    def exists(self, key: str) -> bool:
        """See `ObjectStore`."""
        try:
            self.size(key)
        except ObjectMissing:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore`."""
        top = self._name(parts_of(prefix)) + "/" if prefix.strip("/") else (self._prefix and self._prefix + "/")
        token: dict[str, str] = {}
        while True:
            page = self.tried(prefix or _ALL, partial(self._page, top, token))
            yield from (entry["Key"].removeprefix(self._prefix).lstrip("/") for entry in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
        """See `ObjectStore`: `If-None-Match: *` on the one request that makes the object visible."""
        source = BytesIO(data) if isinstance(data, bytes) else data
        big = source.seek(0, 2) > _SINGLE_PUT
        try:
            self._put_parts(key, source) if big else self._put_whole(key, source, IfNoneMatch="*")
        except _Exists:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        """See `ObjectStore`."""
        self._put_whole(key, BytesIO(data))

    # --- one request each -------------------------------------------------------------------------------------------

    def _get_once(self, key: str, name: str, limit: int) -> bytes:
        answer = self._get_object(name)
        with closing(answer["Body"]) as body:
            size = _length(answer, f"{key} in {self}")
            if size > limit:
                raise BlobSizeMismatch(f"{key} in {self} holds {size} bytes, more than {limit}")
            data = bytearray(size)
            read_exactly(body, memoryview(data), f"{key} from {self}")
            _keep_connection(body)
        return bytes(data)

    def open_part(self, key: str, name: str, start: int, end: int) -> tuple[Any, int]:
        """One ranged GET: its body and the whole object's size. For `_S3Reader`, inside `tried`."""
        answer = self._get_object(name, f"bytes={start}-{end - 1}")
        _, _, size = answer.get("ContentRange", "").partition("/")
        if not size.isdecimal() or int(size) < end:
            answer["Body"].close()
            if size.isdecimal():
                raise BlobSizeMismatch(f"{key} in {self} has {size} bytes, at least {end} are expected")
            raise StoreUnavailable(f"{self} does not answer ranged reads", hint="use a store that does")
        return answer["Body"], int(size)

    def _get_object(self, name: str, part: str = "") -> dict[str, Any]:
        """As boto3's `get_object` answers; by it only when the short way did not do."""
        if self._credentials is not None:
            # Threads that race make two; either will do.
            self._direct = self._direct or DirectGet(self._client, self._source.bucket, self._credentials)
            if answer := self._direct.open(name, part):
                return answer
        ranged = {"Range": part} if part else {}
        return dict(self._client.get_object(Bucket=self._source.bucket, Key=name, **ranged))

    def _page(self, top: str, token: dict[str, str], _: str) -> Any:
        return self._client.list_objects_v2(Bucket=self._source.bucket, Prefix=top, **token)

    def _head(self, name: str) -> int:
        try:
            return _length(self._client.head_object(Bucket=self._source.bucket, Key=name), f"{name} in {self}")
        except ClientError as error:
            if status_of(error) not in (400, 403, 404):
                raise
        # HEAD has no body to name the cause in, and some servers say 404 to an unknown access key: ask by GET.
        answer = self._client.get_object(Bucket=self._source.bucket, Key=name)
        with closing(answer["Body"]):
            return _length(answer, f"{name} in {self}")

    def _put_whole(self, key: str, source: BinaryIO, **condition: str) -> None:
        def put(name: str) -> None:
            source.seek(0)
            self._client.put_object(Bucket=self._source.bucket, Key=name, Body=source, **condition)

        self.tried(key, put)

    def _put_parts(self, key: str, source: BinaryIO) -> None:
        where = {"Bucket": self._source.bucket, "Key": self._name(key)}
        upload = self.tried(key, lambda _: self._client.create_multipart_upload(ChecksumAlgorithm="CRC32", **where))
        where["UploadId"] = upload["UploadId"]
        try:
            source.seek(0)
            pieces = enumerate(iter(lambda: source.read(_PART), b""), start=1)
            parts = {"Parts": [self._put_part(key, where, number, piece) for number, piece in pieces]}
            self.tried(
                key, lambda _: self._client.complete_multipart_upload(MultipartUpload=parts, IfNoneMatch="*", **where)
            )
        except BaseException:
            self._abandon(where)
            raise

    def _put_part(self, key: str, where: dict[str, str], number: int, piece: bytes) -> dict[str, Any]:
        done = self.tried(key, lambda _: self._client.upload_part(PartNumber=number, Body=piece, **where))
        return {"PartNumber": number, **{name: done[name] for name in ("ETag", "ChecksumCRC32") if name in done}}

    def _abandon(self, where: dict[str, str]) -> None:
        # What failed before is what the caller must hear of; the bucket's lifecycle rule clears left parts.
        with suppress(ClientError, BotoCoreError):
            self._client.abort_multipart_upload(**where)

    # --- the one retry policy ---------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def tried(self, key: str, request: Callable[[str], T]) -> T:
        """Do `request` with the object's full name, again after what may pass."""
        name = self._name(key if key == _ALL else checked_key(key.strip("/")))
        try:
            return self._once(key, name, request)
        except StoreUnavailable as failure:
            return self._again(key, name, request, failure)

    def _again(self, key: str, name: str, request: Callable[[str], T], failure: StoreUnavailable) -> T:
        """After a first failure; only then is the retry context made: it costs as much as a look at a segment does."""
        for attempt in stamina.retry_context(
            on=StoreUnavailable, attempts=self._attempts, timeout=60, wait_initial=0.1, wait_max=5, wait_jitter=0.4
        ):
            with attempt:
                if attempt.num == 1:
                    raise failure
                return self._once(key, name, request)
        raise AssertionError("a retry context ends by returning or raising")

    def _once(self, key: str, name: str, request: Callable[[str], T]) -> T:
        try:
            return request(name)
        except ModelParamsError:
            raise
        except (ClientError, BotoCoreError, HTTPException, OSError) as error:
            if isinstance(error, ClientError) and code_of(error) == "PreconditionFailed":
                raise _Exists from error
            raise translated(error, f"{key} in {self}") from error


class _S3Reader:
    """One part of an object as a stream, opened at the first `fill` and again after a fault."""

    def __init__(self, store: S3Store, key: str, start: int, end: int) -> None:
        self._store, self._key, self._next, self._end = store, key, start, end
        self._body: Any = None
        self.object_size = 0

    def __str__(self) -> str:
        return f"{self._key} from {self._store}"

    def fill(self, into: memoryview) -> None:
        """See `Reader`."""
        self._store.tried(self._key, partial(self._fill_once, into))
        self._next += len(into)

    def _fill_once(self, into: memoryview, name: str) -> None:
        try:
            if self._body is None:
                self._body, self.object_size = self._store.open_part(self._key, name, self._next, self._end)
            read_exactly(self._body, into, self)
        except BaseException:
            self.close()
            raise
        if self._next + len(into) == self._end:
            _keep_connection(self._body)

    def close(self) -> None:
        """End the stream."""
        if self._body is not None:
            self._body.close()
            self._body = None


def read_exactly(body: Any, into: memoryview, what: object) -> None:
    """Fill `into` from a response's body; `what`, for people, is made text only when it fails.

    Raises:
        StoreUnavailable: it ended early, or came too slowly to be of use.
        OSError, HTTPException: the connection broke.
    """
    # The stream below urllib3's reads into our buffer without a copy; it tells a cut only by ending early.
    stream = getattr(body._raw_stream, "_fp", body._raw_stream)
    connection = body._raw_stream.connection
    until = expect_within(connection, _GRACE_SECONDS + len(into) / _SLOWEST_BYTES_PER_SECOND)
    done = 0
    try:
        while done < len(into):
            if not (n := stream.readinto(into[done:])):
                raise StoreUnavailable(f"{what} was cut after {done} of {len(into)} bytes")
            done += n
    except (OSError, StoreUnavailable) as error:
        if time.monotonic() >= until:
            raise StoreUnavailable(f"{what} comes too slowly: {done} of {len(into)} bytes") from error
        raise
    finally:
        rest(connection)


def _keep_connection(body: Any) -> None:
    """All was read: let the connection serve the next request, where the server allows it."""
    body._raw_stream.release_conn()


def _length(answer: dict[str, Any], what: str) -> int:
    if (length := answer.get("ContentLength")) is None:
        raise StoreUnavailable(f"the answer for {what} does not say how long it is")
    return int(length)


class _Exists(Exception):
    """The condition of a write did not hold."""


_HOW = "check endpoint, region and bucket, such as s3://BUCKET/PREFIX?endpoint=https://HOST&region=us-east-1"


def _config(source: S3Source) -> Config:
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if source.endpoint else "auto"},
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_SILENT_SECONDS,
        retries={"total_max_attempts": 1},  # `tried` is the only one that tries again
        response_checksum_validation="when_required",  # ranges have none, and our own digests cover every byte
        max_pool_connections=32,
        tcp_keepalive=True,
    )


def _signing(credentials: Credentials | None) -> Any:
    """As botocore's signers take them; without any given, what boto3's default session finds and renews, or None."""
    if credentials is None:
        return boto3.DEFAULT_SESSION.get_credentials()
    given = credentials.access_key_id, credentials.secret_access_key, credentials.session_token
    return BotoCredentials(*given)


def _given(credentials: Credentials | None) -> dict[str, str | None]:
    if credentials is None:
        return {}
    return {
        "aws_access_key_id": credentials.access_key_id,
        "aws_secret_access_key": credentials.secret_access_key,
        "aws_session_token": credentials.session_token,
    }
