"""Stores: addresses, the directory store, and what boto3's errors become. Real servers: tests/integration."""

from __future__ import annotations

import errno
import io
import itertools
import os
import stat
import threading
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError
from urllib3.exceptions import ProtocolError

from builders.unprivileged import unprivileged
from modelparams.errors import BlobSizeMismatch, ObjectMissing, StoreDenied, StoreUnavailable, UsageError
from modelparams.store import Credentials, FileStore, ObjectStore, existing_store, open_store, source_of
from modelparams.store.s3_answers import AnswerRefused
from modelparams.store.s3_errors import translated


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path.as_uri())


def test_an_s3_address_names_bucket_prefix_endpoint_and_region() -> None:
    source = source_of("s3://models/a/b/?endpoint=http://127.0.0.1:9000&region=eu-west-1")
    assert (source.bucket, source.prefix, source.endpoint, source.region) == (
        "models",
        "a/b",
        "http://127.0.0.1:9000",
        "eu-west-1",
    )


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://b?endpiont=x",
        "s3://key:secret@b/p",
        "https://b/p",
        "file://host/p",
        "s3://b#p",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_with_the_way_to_write_one(url: str) -> None:
    with pytest.raises(UsageError, match="s3://BUCKET/PREFIX"):
        open_store(url)


def test_a_refused_address_does_not_repeat_its_query() -> None:
    with pytest.raises(UsageError) as caught:
        open_store("s3://b?secret=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://b/p?endpont=https://hunter2", "takes endpoint and region as parameters, and was given 'endpont'"),
        ("s3://b/p?endpoint=https://s&Region=hunter2", "and was given 'Region'"),
        ("s3://b/p?hunter2/key=x", "and was given one that is no word"),
        ("s3://b/p?region=hunter2&region=x", "was given a parameter twice"),
        ("file:///d?endpoint=hunter2", "takes no parameters"),
    ],
)
def test_a_parameter_that_is_none_is_named_and_no_value_is(url: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hunter2@models/tiny",
        "s3://AKIA:hun/hunter2@models/tiny",
        "s3://AKIA:hunter2/models",
        "s3://AKIA:hunter2?region=x&x=y",
        "s3://models/tiny#hunter2",
        "s3://models/tiny?region=x#hunter2",
        "s3://models/tiny?secret=a@hunter2",
        "https://user:hunter2@host/p",
        "https://user:p#hunter2@host/p",
        "https://host/p#hunter2",
        "https://host/p?X-Amz-Signature=hunter2",
        "file://user:hunter2@host/p",
        "file:///p#hunter2",
        "AKIA:hunter2@models/tiny",
    ],
)
def test_of_a_mistyped_address_nothing_is_repeated_that_may_be_a_secret(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "hunter2" not in f"{caught.value} {caught.value.next_step} {caught.value.__cause__}"
    assert str(caught.value).lstrip("'").startswith(url.partition(":")[0]), "the rest is enough to find it by"


def test_who_reads_is_told_of_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=f"there is no directory {tmp_path.as_uri()}/none"):
        existing_store(tmp_path / "none")
    assert str(existing_store(tmp_path)) == tmp_path.as_uri()


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file, and a store is a directory"):
        open_store(str(tmp_path / "file"))


def test_credentials_do_not_show_their_secret() -> None:
    assert "hunter2" not in repr(Credentials("ak", "hunter2", "hunter2"))


def test_an_object_is_read_back_whole_and_in_parts(store: ObjectStore) -> None:
    assert store.put_new("a/b", b"0123456789")
    part = memoryview(bytearray(4))
    assert store.read_into("a/b", 3, part) == 10
    assert (bytes(part), store.get("a/b", limit=10), store.size("a/b")) == (b"3456", b"0123456789", 10)


def test_a_new_object_never_replaces_another(store: ObjectStore) -> None:
    assert store.put_new("k", b"first")
    assert not store.put_new("k", b"second")
    assert store.get("k", limit=9) == b"first"


def test_of_many_writers_of_one_new_object_exactly_one_wins(store: ObjectStore) -> None:
    won: list[int] = []
    ready = threading.Barrier(8)

    def write(number: int) -> None:
        ready.wait()
        if store.put_new("versions/1.0.0", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("versions/1.0.0", limit=1) == b"%d" % won[0]
    assert len(won) == 1


def test_put_replaces(store: ObjectStore) -> None:
    store.put("k", b"first")
    store.put("k", b"second")
    assert store.get("k", limit=9) == b"second"


def test_an_object_can_be_read_by_other_users(store: ObjectStore, tmp_path: Path) -> None:
    """A share is written by who trains, and read by who serves."""
    store.put_new("new", b"")
    store.put("put", b"")
    assert {stat.S_IMODE((tmp_path / key).stat().st_mode) for key in ("new", "put")} == {0o644}


def test_a_file_is_stored_from_its_start(store: ObjectStore) -> None:
    file = io.BytesIO(b"whole")
    file.seek(3)
    assert store.put_new("k", file)
    assert store.get("k", limit=9) == b"whole"


def test_keys_are_listed_in_order_and_unfinished_files_are_not(store: ObjectStore, tmp_path: Path) -> None:
    for key in ("v/2", "v/1", "w/3"):
        store.put(key, b"")
    (tmp_path / ".unfinished" / "tmpx").write_bytes(b"half")
    assert list(store.list("v/")) == ["v/1", "v/2"]
    assert list(store.list("")) == ["v/1", "v/2", "w/3"]
    assert list(store.list("none/")) == []


def test_nothing_is_left_behind_when_a_name_is_taken(store: ObjectStore, tmp_path: Path) -> None:
    store.put_new("k", b"1")
    store.put_new("k", b"2")
    assert list((tmp_path / ".unfinished").iterdir()) == []


def test_a_missing_object_says_which_and_where(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing, match=r"blobs/x is not in file:///"):
        store.size("blobs/x")
    assert not store.exists("blobs/x")


def test_an_object_shorter_than_asked_for_is_told_from_a_cut_stream(store: ObjectStore) -> None:
    store.put("k", b"12345")
    with pytest.raises(BlobSizeMismatch, match="has 5 bytes, at least 6 are"):
        store.read_into("k", 0, memoryview(bytearray(6)))


def test_an_object_that_is_cut_while_it_is_read_is_named(store: ObjectStore, tmp_path: Path) -> None:
    store.put("blobs/x", b"12345")
    with store.reader("blobs/x", 0, 5) as reader:
        reader.fill(memoryview(bytearray(2)))
        os.truncate(tmp_path / "blobs/x", 3)
        with pytest.raises(BlobSizeMismatch, match=r"blobs/x in file:///.* was cut while it was read"):
            reader.fill(memoryview(bytearray(3)))


def test_an_object_beyond_the_limit_is_not_read(store: ObjectStore) -> None:
    store.put("k", b"12345")
    with pytest.raises(BlobSizeMismatch, match="more than 4"):
        store.get("k", limit=4)


@pytest.mark.parametrize("key", ["../out", "/etc/passwd", "a//b", "a/../b", ".hidden", "", "a\nb"])
def test_no_key_leaves_the_directory(store: ObjectStore, key: str) -> None:
    with pytest.raises(UsageError, match="no object key"):
        store.put_new(key, b"")


def test_an_object_without_rights_is_denied(store: ObjectStore, tmp_path: Path) -> None:
    store.put("k", b"")
    (tmp_path / "k").chmod(0)
    with unprivileged(), pytest.raises(StoreDenied, match=r"k in file:.* may not be opened"):
        store.get("k", limit=1)


ASKS: dict[str, Callable[[ObjectStore], object]] = {
    "all keys": lambda store: store.list(""),
    "some keys": lambda store: store.list("versions/"),
    "an object": lambda store: store.exists("versions/1.0.0.json"),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_a_directory_that_may_not_be_read_is_denied_not_empty(
    store: ObjectStore, tmp_path: Path, ask: Callable[[ObjectStore], object]
) -> None:
    store.put("versions/1.0.0.json", b"")
    (tmp_path / "versions").chmod(0)
    with unprivileged(), pytest.raises(StoreDenied, match="may not be opened"):
        ask(store)
    (tmp_path / "versions").chmod(0o700)


def test_a_store_below_a_directory_that_may_not_be_entered_is_denied_not_new(tmp_path: Path) -> None:
    FileStore(tmp_path / "closed" / "store").put("k", b"")
    (tmp_path / "closed").chmod(0)
    with unprivileged(), pytest.raises(StoreDenied, match=r"its directory in file:.* may not be opened"):
        existing_store(tmp_path / "closed" / "store")
    (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("in_the_way", ["blobs", "blobs/sha256", ".unfinished"])
@pytest.mark.parametrize("put", ["put", "put_new"])
def test_a_file_where_a_directory_should_be_is_named_and_nothing_passes_for_written(
    store: ObjectStore, tmp_path: Path, in_the_way: str, put: str
) -> None:
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).touch()
    with pytest.raises(StoreUnavailable, match=f"{tmp_path / in_the_way} is in its way.* Move that away") as refused:
        getattr(store, put)("blobs/sha256/x", b"1")
    assert "blobs/sha256/x in file:" in str(refused.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_has_an_object_s_name_and_is_none_does_not_pass_for_it(
    store: ObjectStore, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "k")
    with pytest.raises(StoreUnavailable, match=f"{tmp_path / 'k'} is in its way"):
        store.put_new("k", b"1")
    assert list((tmp_path / ".unfinished").iterdir()) == []


@pytest.mark.parametrize("place", ["k", "/dev/zero"], ids=["pipe", "device"])
@pytest.mark.parametrize("ask", [lambda store: store.get("k", limit=9), lambda store: store.size("k")])
def test_a_pipe_is_no_object_and_is_not_waited_for(
    store: ObjectStore, tmp_path: Path, place: str, ask: Callable[[ObjectStore], object]
) -> None:
    if place == "k":
        os.mkfifo(tmp_path / "k")
    else:
        (tmp_path / "k").symlink_to(place)
    with pytest.raises(ObjectMissing, match=r"k in file:.* is no regular file\. Take it away"):
        ask(store)


def test_a_directory_where_an_object_should_be_replaced_is_named(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    with pytest.raises(StoreUnavailable, match=f"{tmp_path / 'k'} is in its way"):
        store.put("k", b"1")


@pytest.mark.parametrize(("code", "says"), [(errno.ENOSPC, "No space left"), (errno.EDQUOT, "quota exceeded")])
def test_a_full_disk_asks_for_room(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, code: int, says: str) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreUnavailable, match=says) as refused:
        store.put("k", b"1")
    assert refused.value.next_step.startswith("make room there")


def test_a_path_is_a_store_too(tmp_path: Path) -> None:
    assert isinstance(open_store(tmp_path), FileStore)
    assert str(open_store(str(tmp_path))) == tmp_path.as_uri()


def _answer(code: str, status: int) -> ClientError:
    said = {"Code": code, "Message": "The AWS access key AKIAEXAMPLE is unknown"}
    return ClientError({"Error": said, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_answer("NoSuchKey", 404), ObjectMissing),
        (_answer("404", 404), ObjectMissing),
        (_answer("NoSuchBucket", 404), ObjectMissing),
        (_answer("XAdminUserNotFound", 404), StoreDenied),
        (_answer("InvalidAccessKeyId", 403), StoreDenied),
        (_answer("SignatureDoesNotMatch", 403), StoreDenied),
        (_answer("403", 403), StoreDenied),
        (_answer("ExpiredToken", 400), StoreDenied),
        (_answer("InvalidRange", 416), BlobSizeMismatch),
        (_answer("SlowDown", 503), StoreUnavailable),
        (_answer("InternalError", 500), StoreUnavailable),
        (_answer("BadDigest", 400), StoreUnavailable),
        (_answer("ConditionalRequestConflict", 409), StoreUnavailable),
        (_answer("PermanentRedirect", 301), StoreUnavailable),
        (boto.NoCredentialsError(), StoreDenied),
        (boto.EndpointConnectionError(endpoint_url="http://s3?token=x"), StoreUnavailable),
        (boto.ReadTimeoutError(endpoint_url="http://s3?token=x"), StoreUnavailable),
        (ConnectionResetError(104, "reset"), StoreUnavailable),
        (boto.ParamValidationError(report="bad"), UsageError),
    ],
    ids=str,
)
def test_what_boto3_raises_becomes_one_of_our_kinds_and_repeats_no_text_of_the_server(
    error: Exception, kind: type[Exception]
) -> None:
    found = translated(error, "blobs/x in s3://b")
    assert type(found) is kind
    assert "blobs/x in s3://b" in str(found)
    assert "AKIAEXAMPLE" not in str(found)
    assert "token" not in str(found)
    assert "Error" not in str(found).replace("InternalError", "")  # the store's code; no class of Python


@pytest.mark.parametrize(
    "error",
    [
        boto.HTTPClientError(error="GET http://s3/x?token=hunter2 failed"),
        OSError("http://s3/x?token=hunter2"),
        HTTPException("http://s3/x?token=hunter2"),
        ValueError("http://s3/x?token=hunter2"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_of_what_is_of_no_known_kind_the_text_is_not_repeated_which_may_hold_a_url_s_query(error: Exception) -> None:
    found = translated(error, "blobs/x in s3://b")
    assert type(found) is StoreUnavailable
    assert "blobs/x in s3://b: the " in str(found)
    assert "hunter2" not in f"{found} {found.next_step}"


def raised_from(*errors: Exception) -> Exception:
    """The last, which came of the one before, and so on."""
    for before, error in itertools.pairwise(errors):
        error.__context__ = before
    return errors[-1]


def test_what_was_refused_is_told_however_libraries_wrap_it() -> None:
    wrapped = raised_from(
        AnswerRefused(), ProtocolError("aborted"), boto.ConnectionClosedError(endpoint_url="http://s3")
    )
    assert "longer than one of a store can be" in str(translated(wrapped, "blobs/x"))


def test_what_an_earlier_try_met_is_not_told_of_a_later_one() -> None:
    later = raised_from(AnswerRefused(), StoreUnavailable("blobs/x"), boto.ReadTimeoutError(endpoint_url="http://s3"))
    assert "did not answer in time" in str(translated(later, "blobs/x"))


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (_answer("RequestTimeTooSkewed", 403), "set the clock"),
        (_answer("ExpiredToken", 400), "get new credentials"),
        (_answer("InsufficientStorage", 507), "make room"),
    ],
    ids=str,
)
def test_what_the_store_names_has_its_own_next_step(error: Exception, hint: str) -> None:
    assert translated(error, "blobs/x").next_step.startswith(hint)
