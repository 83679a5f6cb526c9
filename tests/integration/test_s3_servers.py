"""What the store's tests take for granted of both servers, and that each injected fault really happens."""

from __future__ import annotations

import http.client
import time

import pytest
from botocore.exceptions import ClientError

from cluster.faults import FaultProxy
from cluster.process import wait_until
from cluster.s3 import Login, Versitygw
from cluster.state import disk_root

pytestmark = pytest.mark.integration

_BODY = bytes(range(256)) * 4096  # 1 MiB


def _code(refused: pytest.ExceptionInfo[ClientError]) -> int:
    return int(refused.value.response["ResponseMetadata"]["HTTPStatusCode"])


def test_a_key_is_created_only_once(any_bucket) -> None:
    client, where = any_bucket.server.client(), {"Bucket": any_bucket.name, "Key": "versions/1.0.0"}
    client.put_object(**where, Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as refused:
        client.put_object(**where, Body=b"second", IfNoneMatch="*")
    assert _code(refused) == 412
    assert client.get_object(**where)["Body"].read() == b"first"


def test_a_range_gives_those_bytes(any_bucket) -> None:
    client, where = any_bucket.server.client(), {"Bucket": any_bucket.name, "Key": "blob"}
    client.put_object(**where, Body=_BODY)
    answer = client.get_object(**where, Range="bytes=1000-1999")
    assert answer["ContentLength"] == 1000
    assert answer["Body"].read() == _BODY[1000:2000]


def test_a_wrong_secret_is_refused(any_bucket) -> None:
    server = any_bucket.server
    client = Login(server.login.access_key, "wrong").client(server.endpoint)
    with pytest.raises(ClientError) as refused:
        client.list_objects_v2(Bucket=any_bucket.name)
    assert _code(refused) == 403


def test_versitygw_keeps_an_object_as_a_plain_file(bucket) -> None:
    bucket.server.client().put_object(Bucket=bucket.name, Key="a/b", Body=b"before")
    bucket.server.object_path(bucket.name, "a/b").write_bytes(b"after!")
    answer = bucket.server.client().get_object(Bucket=bucket.name, Key="a/b", Range="bytes=0-4")
    assert answer["Body"].read() == b"after"  # a range: of a whole object boto3 checks the stored CRC


def test_objects_outlive_a_crash_of_the_server(versitygw_tool: None) -> None:
    with Versitygw() as server:
        server.client().put_object(Bucket=server.bucket("kept"), Key="k", Body=b"v")
        server.kill()
        server.restart()
        assert server.client().get_object(Bucket="kept", Key="k")["Body"].read() == b"v"
        folder = server.root
    assert not folder.exists()
    assert folder.is_relative_to(disk_root())


# Faults: by plain HTTP, so that no client library retries or hides them.


@pytest.fixture
def faulty(bucket, s3_faults: FaultProxy) -> tuple[FaultProxy, str]:
    """The proxy, and a presigned path of a 1 MiB object behind it."""
    client = bucket.server.client()
    client.put_object(Bucket=bucket.name, Key="blob", Body=_BODY)
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket.name, "Key": "blob"}, ExpiresIn=600)
    return s3_faults, url.removeprefix(bucket.server.endpoint)


def _get(faulty: tuple[FaultProxy, str], timeout: float = 10) -> bytes:
    proxy, path = faulty
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
    try:
        # The signature is over the upstream's Host, which a proxy in the path of one would keep as well.
        connection.request("GET", path, headers={"Host": f"127.0.0.1:{proxy.upstream_port}"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ConnectionError(answer.status)
        return answer.read()
    finally:
        connection.close()


def test_without_a_fault_all_bytes_pass(faulty) -> None:
    assert _get(faulty) == _BODY
    assert not faulty[0].done


def test_a_cut_ends_the_stream_early(faulty) -> None:
    faulty[0].cut(500_000)
    with pytest.raises(http.client.IncompleteRead) as cut:
        _get(faulty)
    assert 490_000 < len(cut.value.partial) < 500_000
    assert faulty[0].done == {"cut": 1}


def test_a_reset_is_an_error(faulty) -> None:
    faulty[0].rst(500_000)
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        _get(faulty)
    assert faulty[0].done == {"rst": 1}


def test_a_flip_changes_one_bit_once(faulty) -> None:
    faulty[0].flip(500_000, times=1)
    body = _get(faulty)
    changed = [i for i, (a, b) in enumerate(zip(body, _BODY, strict=True)) if a != b]
    assert len(changed) == 1
    assert body[changed[0]] ^ _BODY[changed[0]] == 1
    assert _get(faulty) == _BODY


def test_a_stall_lasts_until_it_is_healed(faulty) -> None:
    faulty[0].stall(500_000)
    with pytest.raises(TimeoutError):
        _get(faulty, timeout=0.3)
    faulty[0].heal()
    assert _get(faulty) == _BODY


def test_slow_takes_its_time(faulty) -> None:
    faulty[0].slow(4 << 20)
    start = time.monotonic()
    assert _get(faulty) == _BODY
    assert time.monotonic() - start >= 0.2


def test_a_throttling_store_answers_503_and_recovers(faulty) -> None:
    faulty[0].http503(times=2)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="503"):
            _get(faulty)
    assert _get(faulty) == _BODY


def test_a_refusing_store_closes_at_once(faulty) -> None:
    faulty[0].refuse()
    with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
        _get(faulty)
    faulty[0].heal()
    wait_until(lambda: _get(faulty) == _BODY, "the store to be back", seconds=5)
