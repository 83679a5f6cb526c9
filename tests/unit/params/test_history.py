"""What a publish goes on from: signed manifests alone, whatever others write or publish meanwhile."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from builders.publishing import KEY_REF, MODEL, Publisher, layered
from modelparams.errors import (
    ManifestInvalid,
    ObjectMissing,
    SignerUnknown,
    StoreUnavailable,
    UsageError,
    VersionExists,
)
from modelparams.history import Past
from modelparams.model_keys import publisher_keys
from modelparams.names import Version
from modelparams.pointers import list_claims, list_pointers, list_versions, pointer_key, read_claim, read_pointer
from modelparams.publish import Published
from modelparams.store import FileStore
from modelparams.trust import SigningKey, TrustPolicy


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def write(publisher: Publisher, key: str, text: str) -> None:
    (publisher.home / "store" / key).parent.mkdir(parents=True, exist_ok=True)
    (publisher.home / "store" / key).write_text(text)


def digit(number: int) -> int:
    """A bit pattern that no other number gives."""
    return 0x3E80 + number


class Meanwhile(FileStore):
    """Somebody else acts once, just before we write the first object below `prefix`."""

    def __init__(self, publisher: Publisher, prefix: str, act: Callable[[], object]) -> None:
        super().__init__(publisher.home / "store")
        self._prefix, self._acts = prefix, iter([act])

    def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
        if key.startswith(self._prefix):
            for act in self._acts:
                act()
        return super().put_new(key, data)


@pytest.mark.parametrize("moment", ["blobs/", "manifests/", "sequences/"])
def test_of_publishers_at_once_each_has_a_sequence_and_no_floor_is_lost(publisher: Publisher, moment: str) -> None:
    publisher.publish("1.0.0")
    other = publisher.directory("1.1.0", layered(layer1=0x3E80))
    act = lambda: publisher.publish("1.1.0", directory=other, floor=2)  # noqa: E731
    late = publisher.publish("1.2.0", layered(layer0=0x3E80), store=Meanwhile(publisher, moment, act))
    early, manifest = publisher.manifest("1.1.0"), publisher.manifest("1.2.0")
    assert (early.sequence, early.floor) == (2, 2)
    assert (late.sequence, manifest.sequence, manifest.floor) == (3, 3, 2)
    assert manifest.previous == read_pointer(publisher.store, Version("1.1.0")).digest
    publisher.publish("1.3.0", layered(layer2=0x3E80))
    assert (publisher.manifest("1.3.0").sequence, publisher.manifest("1.3.0").floor) == (4, 2)
    publisher.pull(late)


@pytest.mark.parametrize("moment", ["keys/id.json", "keys/e1.json", "sequences/"])
def test_of_two_first_publishes_at_once_each_has_a_sequence_and_their_keys_are_the_same(
    publisher: Publisher, moment: str
) -> None:
    other = publisher.directory("2.0.0", layered(layer1=0x3E80))
    store = Meanwhile(publisher, moment, lambda: publisher.publish("2.0.0", directory=other))
    publisher.pull(publisher.publish("1.0.0", store=store))
    assert [(str(pointer.version), pointer.sequence) for pointer in list_pointers(publisher.store)] == [
        ("2.0.0", 1),
        ("1.0.0", 2),
    ]


def test_a_floor_that_another_raised_meanwhile_is_not_lowered(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    other = publisher.directory("1.1.0", layered(layer1=0x3E80))
    store = Meanwhile(publisher, "sequences/", lambda: publisher.publish("1.1.0", directory=other, floor=2))
    with pytest.raises(UsageError, match="floor is 2"):
        publisher.publish("1.2.0", layered(layer0=0x3E80), floor=1, store=store)
    assert len(list_versions(publisher.store)) == 2


def test_a_floor_above_that_of_the_last_version_is_not_lost_when_others_are_found(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    past = past_of(publisher, FileStore(publisher.home / "store"))
    known = dataclasses.replace(past.read(list_versions(publisher.store)), floor=7)
    history, _ = past.beyond(known, 2)
    assert (history.sequence, history.floor) == (1, 7)


def test_a_claim_whose_answer_was_lost_is_recognized_as_ours(publisher: Publisher) -> None:
    class Deaf(FileStore):
        def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
            done = super().put_new(key, data)
            return done and key != "sequences/1"

    assert publisher.publish("1.0.0", store=Deaf(publisher.home / "store")).sequence == 1
    assert list_claims(publisher.store) == [1]


def test_a_kill_behind_the_claim_leaves_a_gap_and_its_floor(publisher: Publisher) -> None:
    class Killed(FileStore):
        def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
            if key.startswith("versions/"):
                raise StoreUnavailable("the store is away")
            return super().put_new(key, data)

    publisher.publish("1.0.0")
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.1.0", layered(layer0=0x3E80), floor=2, store=Killed(publisher.home / "store"))
    publisher.publish("1.1.0", layered(layer0=0x3E80))
    manifest = publisher.manifest("1.1.0")
    assert (manifest.sequence, manifest.floor) == (3, 2)
    assert manifest.previous == read_claim(publisher.store, 2)


@pytest.mark.parametrize("claim", ["x", "sha256:" + "0" * 64, "y" * 1000])
def test_a_junk_claim_only_leaves_a_gap(publisher: Publisher, claim: str, caplog: pytest.LogCaptureFixture) -> None:
    write(publisher, "sequences/1", claim)
    assert publisher.publish("1.0.0").sequence == 2
    assert [record.message.partition(":")[0] for record in caplog.records] == ["sequences/1 is passed over"]


def test_junk_claims_cost_one_more_signature_and_not_one_each(publisher: Publisher) -> None:
    for number in range(1, 41):
        write(publisher, f"sequences/{number}", "junk")
    assert publisher.publish("1.0.0").sequence == 41
    assert len(list(publisher.store.list("manifests/"))) == 2


def test_behind_junk_claims_the_floor_of_a_killed_publish_is_found(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    publisher.publish("1.1.0", layered(layer0=digit(1)), floor=2)
    (publisher.home / "store" / pointer_key(Version("1.1.0"))).unlink()
    write(publisher, "sequences/3", "junk")
    manifest = publisher.manifest(str(publisher.publish("1.2.0", layered(layer0=digit(2))).version))
    assert (manifest.sequence, manifest.floor) == (4, 2)


def test_more_claims_in_a_row_than_publishers_leave_are_refused_with_what_to_do(publisher: Publisher) -> None:
    for number in range(1, 102):
        write(publisher, f"sequences/{number}", "junk")
    with pytest.raises(UsageError, match=r"has 101 claims in a row from sequences/1 on.*") as refused:
        publisher.publish("1.0.0")
    assert "delete those that name no manifest" in refused.value.next_step
    (publisher.home / "store/sequences/101").unlink()
    assert publisher.publish("1.0.0").sequence == 101


def test_an_edited_pointer_lowers_neither_sequence_nor_floor(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    first = publisher.publish("1.0.0")
    second = publisher.publish("1.1.0", layered(layer1=0x3E80), floor=2)
    write(publisher, "versions/1.0.0", f"{first.manifest_digest} 999\n")
    publisher.publish("1.2.0", layered(layer0=0x3E80))
    manifest = publisher.manifest("1.2.0")
    assert (manifest.sequence, manifest.floor, manifest.previous) == (3, 2, second.manifest_digest)
    assert "versions/1.0.0 says sequence 999, and the signed manifest 1" in caplog.text


def test_publishing_again_a_version_whose_pointer_was_edited_is_refused(publisher: Publisher) -> None:
    first = publisher.publish("1.0.0")
    write(publisher, "versions/1.0.0", f"{first.manifest_digest} 999\n")
    with pytest.raises(ManifestInvalid, match="sequence 999, and the signed manifest 1"):
        publisher.publish("1.0.0")


@pytest.mark.parametrize("pointer", ["x", "sha256:" + "0" * 64 + " 7\n", "y" * 1000])
def test_one_junk_version_stops_no_publish_but_its_own(
    publisher: Publisher, pointer: str, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.publish("1.0.0")
    write(publisher, "versions/9.9.9", pointer)
    published = publisher.publish("1.1.0", layered(layer1=0x3E80))
    assert (published.sequence, published.blobs_reused) == (2, 3)
    assert "versions/9.9.9 is passed over" in caplog.text
    with pytest.raises((ManifestInvalid, ObjectMissing), match=r"versions/9\.9\.9 in|manifests/sha256/0"):
        publisher.publish("9.9.9", layered(layer0=0x3E80))


def test_a_stranger_s_version_among_ours_is_passed_over(publisher: Publisher, tmp_path: Path) -> None:
    stranger = SigningKey.generate()
    publisher.publish("1.0.0")
    trust = TrustPolicy.of(publisher.signer, stranger)
    publisher.publish("1.1.0", layered(layer1=0x3E80), signers=[stranger], trust=trust, floor=2)
    published = publisher.publish("1.2.0", layered(layer2=0x3E80))
    assert published.sequence == 3
    assert publisher.manifest("1.2.0").floor == 0


def test_a_store_in_which_no_version_verifies_is_not_gone_on_from(publisher: Publisher) -> None:
    publisher.publish("1.0.0", signers=[SigningKey.generate()])
    write(publisher, "versions/9.9.9", "x")
    with pytest.raises(SignerUnknown):
        publisher.publish("1.1.0", layered(layer1=0x3E80))


def test_a_model_of_the_same_name_from_another_store_is_passed_over(publisher: Publisher, tmp_path: Path) -> None:
    other = Publisher(tmp_path / "other", signer=publisher.signer)
    other.publish("5.0.0")
    theirs = other.publish("5.1.0", layered(layer1=0x3E80), floor=2)
    publisher.publish("1.0.0")
    for key in (f"manifests/sha256/{theirs.manifest_digest.hex}", "versions/5.1.0"):
        publisher.store.put_new(key, other.store.get(key, limit=1 << 20))
    publisher.publish("1.1.0", layered(layer0=0x3E80))
    assert (publisher.manifest("1.1.0").sequence, publisher.manifest("1.1.0").floor) == (2, 0)


class Counting(FileStore):
    """Counts what is read."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.read: list[str] = []

    def get(self, key: str, *, limit: int) -> bytes:
        self.read.append(key)
        return super().get(key, limit=limit)


@pytest.fixture
def many(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> list[Published]:
    """Seven versions where more than three are many; the floor is 4."""
    monkeypatch.setattr("modelparams.history._MANY", 3)
    return [
        publisher.publish(f"1.{number}.0", layered(layer1=digit(number)), floor=4 if number == 4 else None)
        for number in range(7)
    ]


def past_of(publisher: Publisher, store: FileStore) -> Past:
    uid = publisher_keys(store, publisher.keys, KEY_REF).uid
    return Past(store, MODEL, uid, publisher.trust)


def test_of_many_versions_only_the_newest_are_read(publisher: Publisher, many: list[Published]) -> None:
    store = Counting(publisher.home / "store")
    history = past_of(publisher, store).read(list_versions(store))
    assert (history.sequence, history.floor) == (7, 4)
    assert history.last
    assert history.last.digest == many[-1].manifest_digest
    assert sorted(key for key in store.read if not key.startswith(("keys/", "manifests/"))) == [
        "sequences/5",
        "sequences/6",
        "sequences/7",
    ]


def test_junk_and_replayed_claims_hide_no_publish_of_many(publisher: Publisher, many: list[Published]) -> None:
    for number in range(100, 104):
        write(publisher, f"sequences/{number}", f"{many[0].manifest_digest}\n")
    for name in ("x", "8.bak", "008"):
        write(publisher, f"sequences/{name}", "no number")
    history = past_of(publisher, FileStore(publisher.home / "store")).read(list_versions(publisher.store))
    assert (history.sequence, history.floor) == (7, 4)
    assert publisher.publish("2.0.0", layered(layer0=digit(0))).sequence == 8
    assert publisher.manifest("2.0.0").floor == 4


def test_many_versions_from_before_claims_were_are_all_read(publisher: Publisher, many: list[Published]) -> None:
    for number in range(1, 8):
        (publisher.home / "store" / "sequences" / str(number)).unlink()
    assert publisher.publish("2.0.0", layered(layer0=digit(0))).sequence == 8
    assert publisher.manifest("2.0.0").floor == 4


def test_a_version_published_meanwhile_leaves_only_a_gap(publisher: Publisher) -> None:
    other = publisher.directory("1.0.0-other", layered(layer1=0x3E80))
    store = Meanwhile(publisher, "versions/", lambda: publisher.publish("1.0.0", directory=other))
    with pytest.raises(VersionExists, match="other parameters"):
        publisher.publish("1.0.0", store=store)
    assert list_claims(publisher.store) == [2, 1]
    assert read_pointer(publisher.store, Version("1.0.0")).sequence == 2
    assert publisher.store.exists(pointer_key(Version("1.0.0")))


def test_junk_is_not_listed(publisher: Publisher, caplog: pytest.LogCaptureFixture) -> None:
    published = publisher.publish("1.0.0")
    write(publisher, "versions/9.9.9", "x")
    with caplog.at_level(logging.WARNING):
        assert [pointer.digest for pointer in list_pointers(publisher.store)] == [published.manifest_digest]
    assert "versions/9.9.9 is passed over" in caplog.text
