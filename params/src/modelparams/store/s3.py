"""A store in S3, or in anything that speaks its protocol: boto3's classic client, one retry policy, exact lengths.

Not `boto3[crt]`: it goes to AWS whatever the endpoint says (boto3 issue 4839).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

import stamina
from botocore.exceptions import ClientError

from modelparams.api.release import S3Source
from modelparams.errors import BlobSizeMismatch, ModelParamsError, ObjectMissing, StoreDenied, StoreUnavailable
from modelparams.store.contract import Credentials, Reader, checked_key, parts_of
from modelparams.store.s3_bodies import keep_connection, length_of, read_exactly
from modelparams.store.s3_client import open_client, signing_credentials
from modelparams.store.s3_errors import code_of, status_of, translated
from modelparams.store.s3_get import DirectGet
from modelparams.store.s3_parsed import Page, page_of, text_in

T = TypeVar("T")

_ALL = "the list of keys"
_SINGLE_PUT, _PART = 32 << 20, 16 << 20


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
        client = open_client(source, credentials)
        return cls(client, source, credentials=signing_credentials(credentials), attempts=attempts)

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
            yield from (key.removeprefix(self._prefix).lstrip("/") for key in page.keys)
            if page.is_last:
                return
            if page.next in ("", token.get("ContinuationToken")):
                raise StoreUnavailable(f"{self} says that its list goes on, and not where")
            token = {"ContinuationToken": page.next}

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
            size = length_of(answer, f"{key} in {self}")
            if size > limit:
                raise BlobSizeMismatch(f"{key} in {self} holds {size} bytes, more than {limit}")
            data = bytearray(size)
            read_exactly(body, memoryview(data), f"{key} from {self}")
            keep_connection(body)
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

    def _page(self, top: str, token: dict[str, str], _: str) -> Page:
        return page_of(self._client.list_objects_v2(Bucket=self._source.bucket, Prefix=top, **token), top)

    def _head(self, name: str) -> int:
        try:
            return length_of(self._client.head_object(Bucket=self._source.bucket, Key=name), f"{name} in {self}")
        except ClientError as error:
            if status_of(error) not in (400, 403, 404):
                raise
        # HEAD has no body to name the cause in, and some servers say 404 to an unknown access key: ask by GET.
        answer = self._client.get_object(Bucket=self._source.bucket, Key=name)
        with closing(answer["Body"]):
            return length_of(answer, f"{name} in {self}")

    def _put_whole(self, key: str, source: BinaryIO, **condition: str) -> None:
        def put(name: str) -> None:
            source.seek(0)
            self._client.put_object(Bucket=self._source.bucket, Key=name, Body=source, **condition)

        (self._tried if condition else self.tried)(key, put)

    def _put_parts(self, key: str, source: BinaryIO) -> None:
        where = {"Bucket": self._source.bucket, "Key": self._name(key)}
        where["UploadId"] = self.tried(key, lambda _: self._begin_parts(where))
        try:
            source.seek(0)
            pieces = enumerate(iter(lambda: source.read(_PART), b""), start=1)
            parts = {"Parts": [self._put_part(key, where, number, piece) for number, piece in pieces]}
            self._tried(
                key, lambda _: self._client.complete_multipart_upload(MultipartUpload=parts, IfNoneMatch="*", **where)
            )
        except BaseException:
            self._abandon(where)
            raise

    def _begin_parts(self, where: dict[str, str]) -> str:
        return text_in(self._client.create_multipart_upload(ChecksumAlgorithm="CRC32", **where), "UploadId")

    def _put_part(self, key: str, where: dict[str, str], number: int, piece: bytes) -> dict[str, Any]:
        done = self.tried(key, lambda _: self._client.upload_part(PartNumber=number, Body=piece, **where))
        return {"PartNumber": number, **{name: done[name] for name in ("ETag", "ChecksumCRC32") if name in done}}

    def _abandon(self, where: dict[str, str]) -> None:
        # What failed before is what the caller must hear of; the bucket's lifecycle rule clears left parts.
        with suppress(Exception):
            self._client.abort_multipart_upload(**where)

    # --- the one retry policy ---------------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def tried(self, key: str, request: Callable[[str], T]) -> T:
        """Do `request`, which makes no condition, with the object's full name, again after what may pass."""
        try:
            return self._tried(key, request)
        except _Exists as error:
            raise StoreDenied(f"{key} in {self}: the store answered that a condition does not hold") from error

    def _tried(self, key: str, request: Callable[[str], T]) -> T:
        """The same with conditions."""
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
        except (ModelParamsError, MemoryError):
            raise  # memory is short here, not in the store; to ask for as much again at once would be no help
        except Exception as error:  # an answer can be anything, and what reads one fails in its own ways
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
            keep_connection(self._body)

    def close(self) -> None:
        """End the stream."""
        if self._body is not None:
            self._body.close()
            self._body = None


class _Exists(Exception):
    """The condition of a write did not hold."""
