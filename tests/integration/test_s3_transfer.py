"""Publish, verify and pull against real S3 servers, through every fault that a network and a bucket can have."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builders.publishing import KEY_REF, MODEL, Publisher, Tensors, layered, safetensors
from cluster.faults import FaultProxy
from cluster.process import wait_until
from modelparams.api.release import S3Source
from modelparams.arena import ReadableArena
from modelparams.errors import (
    BlobDigestMismatch,
    BlobSizeMismatch,
    ModelParamsError,
    ObjectMissing,
    StoreDenied,
    StoreUnavailable,
    VersionExists,
)
from modelparams.pointers import list_pointers
from modelparams.publish import Published
from modelparams.pull import pull
from modelparams.store import Credentials
from modelparams.store import s3_bodies as bodies_module
from modelparams.store import s3_client as client_module
from modelparams.store.s3 import S3Store
from modelparams.tensors import TensorSpec
from modelparams.verify import verify_release

pytestmark = pytest.mark.integration


def bytes_of(count: int, size: int) -> dict[str, tuple[TensorSpec, bytes]]:
    """A model of `count` layers of random bytes."""
    return {f"model.layers.{n}.weight": (TensorSpec("U8", (size,)), os.urandom(size)) for n in range(count)}


def store_of(bucket: Any, endpoint: str = "", attempts: int = 2, secret: str = "", access: str = "") -> S3Store:
    """The bucket's store; through a proxy, or with other credentials."""
    server = bucket.server
    source = S3Source(endpoint=endpoint or server.endpoint, bucket=bucket.name, prefix="models/tiny")
    credentials = Credentials(access or server.login.access_key, secret or server.login.secret_key)
    return S3Store.from_source(source, credentials, attempts=attempts)


class Shop:
    """A publisher whose store is a bucket, and a reader who may come another way."""

    def __init__(self, home: Path, bucket: Any) -> None:
        self.bucket = bucket
        self.publisher = Publisher(home, store_of(bucket))

    def publish(self, tensors: Tensors, version: str = "1.0.0") -> Published:
        return self.publisher.publish(version, tensors)

    def verify(self, published: Published, store: S3Store | None = None) -> None:
        verify_release(
            store or self.publisher.store,
            published.manifest_digest,
            trust=self.publisher.trust,
            expect=self.publisher.expect(),
            workers=2,
        )

    def pull(self, published: Published, store: S3Store | None = None) -> dict[str, bytes]:
        """Open, pull, and give the tensors; when it fails, the arena has nothing of them."""
        release = self.publisher.open(published, store=store or self.publisher.store)
        arena = bytearray(b"\xaa" * release.layout.total)
        try:
            pulled = pull(release, memoryview(arena), workers=2)
        except BaseException:
            assert set(arena) <= {0, 0xAA}
            raise
        readable = ReadableArena(memoryview(arena), pulled.layout.index)
        return {name: bytes(readable.tensor(name)) for name in readable.specs}

    def object_of(self, blob: Any) -> Path:
        path: Path = self.bucket.server.object_path(self.bucket.name, f"models/tiny/{blob.object_key}")
        return path


@pytest.fixture
def shop(tmp_path: Path, bucket: Any) -> Shop:
    return Shop(tmp_path, bucket)


def plain(tensors: Tensors) -> Mapping[str, bytes]:
    return {name: data for name, (_, data) in tensors.items()}


# --- what a store promises, on each server ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [5, 40 << 20], ids=["one request", "many parts"])
def test_an_object_is_made_once_and_never_replaced(any_bucket: Any, size: int) -> None:
    store, data = store_of(any_bucket), os.urandom(size)
    assert store.put_new("blobs/x", io.BytesIO(data))
    assert not store.put_new("blobs/x", io.BytesIO(bytes(size)))
    whole = memoryview(bytearray(size))
    assert store.read_into("blobs/x", 0, whole) == store.size("blobs/x") == size
    assert whole == data


def test_a_key_is_signed_as_it_is_spelled(any_bucket: Any) -> None:
    store = store_of(any_bucket)
    store.put("versions/1.0.0-rc.1+a_b", b"spelled")
    assert store.get("versions/1.0.0-rc.1+a_b", limit=7) == b"spelled"


def test_keys_are_listed_below_the_prefix_alone(any_bucket: Any) -> None:
    store = store_of(any_bucket)
    any_bucket.server.client().put_object(Bucket=any_bucket.name, Key="models/tinyother/x", Body=b"")
    for key in ("versions/1.0.0", "versions/1.1.0", "keys/id.json"):
        store.put(key, b"x")
    assert list(store.list("versions/")) == ["versions/1.0.0", "versions/1.1.0"]
    assert list(store.list("")) == ["keys/id.json", "versions/1.0.0", "versions/1.1.0"]


def test_more_keys_than_a_page_are_all_listed(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(bucket)
    for number in range(7):
        store.put(f"versions/1.0.{number}", b"x")
    listed = store._client.list_objects_v2
    monkeypatch.setattr(store._client, "list_objects_v2", lambda **options: listed(**options, MaxKeys=3))
    assert len(list(store.list("versions/"))) == 7


def test_what_is_missing_is_told_from_what_is_denied(any_bucket: Any) -> None:
    store = store_of(any_bucket)
    store.put("k", b"12345")
    assert (store.exists("k"), store.exists("absent")) == (True, False)
    with pytest.raises(ObjectMissing):
        store.get("absent", limit=1)
    for bad in (store_of(any_bucket, secret="wrong"), store_of(any_bucket, access="AKIANOBODY")):
        for act in (lambda: bad.size("k"), lambda: bad.get("k", limit=9), lambda: list(bad.list(""))):  # noqa: B023
            with pytest.raises(StoreDenied) as caught:
                act()
            assert "AKIANOBODY" not in str(caught.value)


def test_an_object_at_rest_that_is_too_short_or_too_large_is_told_so(any_bucket: Any) -> None:
    store = store_of(any_bucket)
    store.put("k", b"12345")
    for offset, size in ((0, 6), (3, 3), (5, 1), (9, 1)):
        with pytest.raises(BlobSizeMismatch):
            store.read_into("k", offset, memoryview(bytearray(size)))
    with pytest.raises(BlobSizeMismatch):
        store.get("k", limit=4)


def test_a_bucket_that_is_none_is_missing(bucket: Any) -> None:
    nowhere = type(bucket)("no-such-bucket", bucket.server)
    with pytest.raises(ObjectMissing, match="no such bucket"):
        list(store_of(nowhere).list(""))


def test_a_version_travels_from_directory_to_memory(tmp_path: Path, any_bucket: Any) -> None:
    shop, tensors = Shop(tmp_path, any_bucket), {**layered(), **bytes_of(2, 3 << 20)}
    published = shop.publish(tensors)
    shop.verify(published)
    assert shop.pull(published) == plain(tensors)
    assert shop.publisher.publish("1.0.0", tensors).was_there
    with pytest.raises(VersionExists):
        shop.publish(layered())


# --- a bucket that was tampered with ------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


Tamper = Callable[[Path, Path], object]
TAMPERING: dict[str, tuple[Tamper, type[ModelParamsError]]] = {
    "missing": (lambda path, other: path.unlink(), ObjectMissing),
    "cut": (lambda path, other: os.truncate(path, path.stat().st_size - 1), BlobSizeMismatch),
    "longer": (lambda path, other: os.truncate(path, path.stat().st_size + 1), BlobSizeMismatch),
    "flipped": (lambda path, other: _flip(path), BlobDigestMismatch),
    "swapped": (lambda path, other: path.write_bytes(other.read_bytes()), BlobDigestMismatch),
    "plain": (lambda path, other: path.write_bytes(safetensors(bytes_of(1, 2 << 20))), BlobSizeMismatch),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_blob_that_was_tampered_with_is_refused_by_operator_and_pod(shop: Shop, how: str) -> None:
    tamper, reason = TAMPERING[how]
    published = shop.publish(bytes_of(2, 2 << 20))
    one, other, *_ = shop.publisher.open(published).manifest.manifest.blobs
    tamper(shop.object_of(one), shop.object_of(other))
    with pytest.raises(reason, match=one.sha256):
        shop.verify(published)
    with pytest.raises(reason, match=one.sha256):
        shop.pull(published)


# --- a network that fails -----------------------------------------------------------------------------------------

MIDDLE = 700_000  # a byte in the middle of a blob's stream


@pytest.mark.parametrize("fault", ["cut", "rst"])
def test_a_stream_that_breaks_once_is_taken_up_where_it_ended(shop: Shop, s3_faults: FaultProxy, fault: str) -> None:
    tensors = bytes_of(1, 3 << 20)
    published = shop.publish(tensors)
    store = store_of(shop.bucket, s3_faults.endpoint, attempts=3)
    getattr(s3_faults, fault)(2 * MIDDLE, times=1)
    assert shop.pull(published, store) == plain(tensors)
    getattr(s3_faults, fault)(MIDDLE, times=1)
    shop.verify(published, store_of(shop.bucket, s3_faults.endpoint, attempts=3))
    assert s3_faults.done[fault] == 2


@pytest.mark.parametrize("fault", ["cut", "rst"])
def test_a_stream_that_always_breaks_is_unavailable_and_leaves_nothing(
    shop: Shop, s3_faults: FaultProxy, fault: str
) -> None:
    published = shop.publish(bytes_of(1, 3 << 20))
    getattr(s3_faults, fault)(MIDDLE)
    for act in (shop.pull, shop.verify):
        with pytest.raises(StoreUnavailable):
            act(published, store_of(shop.bucket, s3_faults.endpoint))
    assert s3_faults.done[fault] >= 4
    s3_faults.heal()
    shop.pull(published, store_of(shop.bucket, s3_faults.endpoint))


def test_throttling_is_waited_out_and_endless_throttling_is_unavailable(shop: Shop, s3_faults: FaultProxy) -> None:
    tensors = layered()
    published = shop.publish(tensors)
    s3_faults.http503(2)
    assert shop.pull(published, store_of(shop.bucket, s3_faults.endpoint, attempts=4)) == plain(tensors)
    assert s3_faults.done["http503"] == 2
    s3_faults.http503(1000)
    with pytest.raises(StoreUnavailable, match="SlowDown"):
        shop.pull(published, store_of(shop.bucket, s3_faults.endpoint))


def test_a_store_that_falls_silent_is_unavailable(
    shop: Shop, s3_faults: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = shop.publish(bytes_of(1, 3 << 20))
    monkeypatch.setattr(client_module, "_SILENT_SECONDS", 0.3)
    s3_faults.stall(MIDDLE)
    with pytest.raises(StoreUnavailable):
        shop.pull(published, store_of(shop.bucket, s3_faults.endpoint))
    assert s3_faults.done["stall"] >= 2


def test_a_trickle_is_unavailable_and_a_slow_store_is_only_slow(
    shop: Shop, s3_faults: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = bytes_of(1, 1 << 20)
    published = shop.publish(tensors)
    s3_faults.slow(4 << 20)
    assert shop.pull(published, store_of(shop.bucket, s3_faults.endpoint)) == plain(tensors)
    monkeypatch.setattr(bodies_module, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(bodies_module, "_SLOWEST_BYTES_PER_SECOND", 64 << 20)
    with pytest.raises(StoreUnavailable, match="too slowly"):
        shop.pull(published, store_of(shop.bucket, s3_faults.endpoint))


def test_a_bit_that_flips_on_the_way_is_noticed_and_the_store_stays_sound(shop: Shop, s3_faults: FaultProxy) -> None:
    tensors = bytes_of(1, 3 << 20)
    published = shop.publish(tensors)
    s3_faults.flip(2 * MIDDLE)
    with pytest.raises(BlobDigestMismatch):
        shop.verify(published, store_of(shop.bucket, s3_faults.endpoint))
    with pytest.raises(BlobDigestMismatch):
        shop.pull(published, store_of(shop.bucket, s3_faults.endpoint))
    s3_faults.heal()
    assert shop.pull(published, store_of(shop.bucket, s3_faults.endpoint)) == plain(tensors)


def test_each_worker_keeps_its_connection(shop: Shop, s3_faults: FaultProxy) -> None:
    published = shop.publish(bytes_of(20, 300_000))
    store = store_of(shop.bucket, s3_faults.endpoint)
    shop.pull(published, store)
    shop.verify(published, store)
    assert s3_faults.connections <= 3  # two workers, and the one that opened the release


def test_a_store_that_is_away_is_unavailable(shop: Shop, s3_faults: FaultProxy) -> None:
    published = shop.publish(layered())
    s3_faults.refuse()
    with pytest.raises(StoreUnavailable):
        shop.pull(published, store_of(shop.bucket, s3_faults.endpoint))


def test_credentials_that_are_withdrawn_are_denied(shop: Shop) -> None:
    published = shop.publish(layered())
    with pytest.raises(StoreDenied):
        shop.pull(published, store_of(shop.bucket, secret="wrong"))


# --- the command ---------------------------------------------------------------------------------------------------


class Command:
    """`modelparams publish` as a pipeline runs it: a process with credentials in its environment."""

    def __init__(self, shop: Shop, tmp_path: Path, endpoint: str = "") -> None:
        self.shop, self.home = shop, tmp_path
        self.store = f"s3://{shop.bucket.name}/models/tiny?endpoint={endpoint or shop.bucket.server.endpoint}"
        shop.publisher.signer.save(tmp_path / "release.pem")
        self.environment = {
            "PATH": os.defpath,
            "XDG_CACHE_HOME": str(tmp_path / "xdg"),
            **shop.bucket.server.environment,
        }

    @property
    def arguments(self) -> list[str]:
        program = [sys.executable, "-c", "from modelparams.cli import main; main()", "publish"]
        keys = ["--keys", str(self.shop.publisher.keys_directory), "--key-ref", KEY_REF]
        made = ["--sign", str(self.home / "release.pem"), "--report", str(self.home / "report.json")]
        return [*program, str(self.home / "params" / str(MODEL) / "v1.0.0"), "--store", self.store, *keys, *made]

    def run(self, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.arguments, *more],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def report(self) -> Any:
        return json.loads((self.home / "report.json").read_text())

    def sent(self) -> int:
        """Blobs that the journal knows as sent."""
        return sum(path.read_bytes().count(b"sha256") for path in (self.home / "xdg").rglob("*.jsonl"))


def test_publish_prints_the_object_to_apply_and_nothing_else(shop: Shop, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    shop.publisher.directory("1.0.0", layered())
    ran = Command(shop, tmp_path).run("-n", "serving", "--cluster-endpoint", "http://s3.storage.svc:9000")
    assert ran.returncode == 0, ran.stderr
    found = yaml.safe_load(ran.stdout)
    assert (found["kind"], found["metadata"]) == ("ModelParamVersion", {"name": "tiny-1.0.0", "namespace": "serving"})
    assert found["spec"]["source"]["s3"]["endpoint"] == "http://s3.storage.svc:9000"
    assert list_pointers(shop.publisher.store)[0].digest.text == found["spec"]["manifestDigest"]


def test_publish_with_wrong_credentials_says_so_in_its_exit_code(shop: Shop, tmp_path: Path) -> None:
    shop.publisher.directory("1.0.0", layered())
    ran = Command(shop, tmp_path).run(AWS_SECRET_ACCESS_KEY="wrong")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "SourceDenied" in ran.stderr
    assert shop.bucket.server.login.access_key not in ran.stderr


def test_a_publish_that_was_killed_goes_on_where_it_ended(shop: Shop, tmp_path: Path, s3_faults: FaultProxy) -> None:
    tensors = bytes_of(60, 300_000)
    shop.publisher.directory("1.0.0", tensors)
    command = Command(shop, tmp_path, s3_faults.endpoint)
    with subprocess.Popen(
        [*command.arguments, "--workers", "1"], env=command.environment, stdout=subprocess.DEVNULL
    ) as killed:
        wait_until(lambda: command.sent() >= 5, "five blobs in the journal", seconds=30)
        s3_faults.stall(0)
        killed.kill()
    s3_faults.heal()
    sent = command.sent()
    assert sent < 62
    assert list_pointers(shop.publisher.store) == []
    ran = command.run()
    assert ran.returncode == 0, ran.stderr
    assert (command.report["blobsResumed"], command.report["blobsNew"]) == (sent, 62 - sent)
    (pointer,) = list_pointers(shop.publisher.store)
    release = shop.publisher.open(Published(MODEL, pointer.version, pointer.digest, 1, 0))
    arena = memoryview(bytearray(release.layout.total))
    pull(release, arena)
    readable = ReadableArena(arena, release.layout.index)
    assert {name: bytes(readable.tensor(name)) for name in readable.specs} == plain(tensors)


# --- memory ---------------------------------------------------------------------------------------------------------

_PULLING = """
import json, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from modelparams.digest import Digest
from modelparams.keys import LocalKeyProvider
from modelparams.manifest import Expectation
from modelparams.names import ModelName
from modelparams.pull import open_release, pull
from modelparams.store import open_store
from modelparams.trust import TrustPolicy

url, digest, trust, keys, key_ref = sys.argv[1:]
expect, policy = Expectation(ModelName("tiny"), now=datetime.now(UTC)), TrustPolicy.parse(trust.encode())
provider = LocalKeyProvider(Path(keys))
release = open_release(open_store(url), Digest(digest), trust=policy, expect=expect, keys=provider, key_ref=key_ref)
arena = bytearray(b"x") * release.layout.total
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pull(release, memoryview(arena), workers=4)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_pulling_takes_little_memory_beyond_the_arena(shop: Shop) -> None:
    published = shop.publish(bytes_of(6, 16 << 20))
    url = f"s3://{shop.bucket.name}/models/tiny?endpoint={shop.bucket.server.endpoint}"
    publisher = shop.publisher
    arguments = [url, str(published.manifest_digest), publisher.trust.to_json().decode(), str(publisher.keys_directory)]
    ran = subprocess.run(
        [sys.executable, "-c", _PULLING, *arguments, KEY_REF],
        env={"PATH": os.defpath, **shop.bucket.server.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) <= 64 << 20
