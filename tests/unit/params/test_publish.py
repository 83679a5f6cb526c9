"""Publishing: what it sends, what it reuses, what it never overwrites, and how it goes on after a kill."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from builders.publishing import INF, KEY_REF, MODEL, NAN, Publisher, layered, safetensors
from builders.sealed import bf16
from builders.unprivileged import unprivileged
from modelparams.arena import ReadableArena
from modelparams.errors import (
    BlobSizeMismatch,
    KeyMismatch,
    KeyUnavailable,
    NotFinite,
    ObjectMissing,
    ParamsHashMismatch,
    SignatureInvalid,
    SignerUnknown,
    StoreUnavailable,
    TooFewSignatures,
    UsageError,
    VersionExists,
)
from modelparams.grouping import plan_blobs
from modelparams.hashes import write_hashes
from modelparams.journal import cache_directory
from modelparams.keys import KEY_OBJECT_LIMIT, KeyContext, LocalKeyProvider, write_key_object
from modelparams.names import ModelName
from modelparams.plaintext import PlainVersion, read_plain
from modelparams.pointers import list_pointers, resolve
from modelparams.progress import NoProgress
from modelparams.publish import Published
from modelparams.secret import Secret32
from modelparams.store import FileStore, source_of
from modelparams.tensors import SHARD_INDEX, TensorSpec
from modelparams.trust import SigningKey, TrustPolicy
from modelparams.verify import verify_release
from modelparams.version_object import manifest_object, manifest_yaml


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def test_the_first_publish_sends_a_blob_for_each_layer_and_can_be_pulled_back_bit_for_bit(publisher: Publisher) -> None:
    tensors = layered()
    published = publisher.publish("1.0.0", tensors)
    pulled, arena = publisher.pull(published)
    readable = ReadableArena(arena, pulled.layout.index)
    assert {name: bytes(readable.tensor(name)) for name in readable.specs} == {n: d for n, (_, d) in tensors.items()}
    assert readable.assets().keys() == {"config.json", "tokenizer.json"}
    assert (published.sequence, published.blobs_new, published.blobs_reused) == (1, 3 + 1 + 2, 0)
    assert published.bytes_sent == published.bytes_total == pulled.fetched_bytes


def test_an_unchanged_layer_keeps_its_blob_and_only_the_changed_one_is_sent(publisher: Publisher) -> None:
    publisher.publish("1.0.0", layered())
    published = publisher.publish("1.1.0", layered(layer1=0x3E80))
    before, after = publisher.manifest("1.0.0"), publisher.manifest("1.1.0")
    changed = [
        position for position, pair in enumerate(zip(before.blobs, after.blobs, strict=True)) if len(set(pair)) > 1
    ]
    assert len([position for position in changed if position < after.index]) == 1
    assert (published.blobs_new, published.blobs_reused) == (3, 3)  # the layer, the index, config.json with its hash
    assert published.bytes_sent == sum(after.blobs[position].size for position in changed)
    assert not published.is_other_layout


def test_sequence_rises_and_each_manifest_names_the_one_before(publisher: Publisher) -> None:
    first = publisher.publish("2.0.0")
    publisher.publish("1.9.0", layered(layer0=0x3E80))
    manifest = publisher.manifest("1.9.0")
    assert (manifest.sequence, manifest.previous) == (2, first.manifest_digest)
    assert [str(pointer.version) for pointer in list_pointers(publisher.store)] == ["2.0.0", "1.9.0"]


def test_the_same_again_is_a_success_that_writes_nothing(publisher: Publisher) -> None:
    first = publisher.publish("1.0.0")
    before = set(publisher.store.list(""))
    again = publisher.publish("1.0.0")
    assert (again.manifest_digest, again.was_there, again.bytes_sent) == (first.manifest_digest, True, 0)
    assert set(publisher.store.list("")) == before


@pytest.mark.parametrize("change", [{"tensors": layered(layer0=0x3E80)}, {"directory": "assets"}])
def test_another_content_never_takes_the_place_of_a_version(publisher: Publisher, change: dict[str, object]) -> None:
    first = publisher.publish("1.0.0")
    if change == {"directory": "assets"}:
        change = {"directory": publisher.directory("1.0.0", tokenizer='{"other": 1}')}
    with pytest.raises(VersionExists, match=r"other parameters as tiny 1\.0\.0"):
        publisher.publish("1.0.0", **change)  # type: ignore[arg-type]
    assert resolve(publisher.store, "v1.0.0") == first.manifest_digest


@pytest.mark.parametrize("has_one", [True, False])
def test_a_directory_that_no_engine_could_serve_for_want_of_a_tokenizer_is_told_of(
    publisher: Publisher, caplog: pytest.LogCaptureFixture, has_one: bool
) -> None:
    directory = publisher.directory("1.0.0")
    if not has_one:
        (directory / "tokenizer.json").unlink()
    publisher.publish("1.0.0", directory=directory)
    assert ("has no tokenizer.json: a program can take it, and no engine serves it" in caplog.text) is not has_one


def test_of_two_publishers_of_the_same_at_once_the_second_succeeds_by_the_first_s(
    publisher: Publisher, tmp_path: Path
) -> None:
    others: list[Published] = []

    class Late(FileStore):
        """Somebody else commits just before we do."""

        def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
            if key.startswith("versions/") and not others:
                others.append(publisher.publish("1.0.0", cache=tmp_path / "other"))
            return super().put_new(key, data)

    published = publisher.publish("1.0.0", store=Late(tmp_path / "store"))
    assert (published.was_there, published.manifest_digest) == (True, others[0].manifest_digest)
    assert resolve(publisher.store, "v1.0.0") == others[0].manifest_digest


def test_a_commit_whose_answer_was_lost_is_recognized_as_ours(publisher: Publisher, tmp_path: Path) -> None:
    class Deaf(FileStore):
        """Each commit is done, but the first answer is lost and the retry finds it done."""

        def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
            done = super().put_new(key, data)
            return False if key.startswith("versions/") else done

    published = publisher.publish("1.0.0", store=Deaf(tmp_path / "store"))
    assert resolve(publisher.store, "1.0.0") == published.manifest_digest


class Dying(FileStore):
    """A store whose connection dies after some blobs."""

    def __init__(self, directory: Path, blobs: int) -> None:
        super().__init__(directory)
        self.left = blobs

    def put_new(self, key: str, data: bytes | BinaryIO) -> bool:
        if key.startswith("blobs/"):
            if self.left == 0:
                raise StoreUnavailable("the store is away")
            self.left -= 1
        return super().put_new(key, data)


def test_a_publish_that_was_cut_off_sends_only_what_is_missing(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 4), workers=1)
    assert list_pointers(publisher.store) == []
    resumed = publisher.publish("1.0.0")
    assert (resumed.blobs_resumed, resumed.blobs_new) == (4, 2)
    assert resumed.bytes_sent < resumed.bytes_total
    verify_release(publisher.store, resumed.manifest_digest, trust=publisher.trust, expect=publisher.expect())
    publisher.pull(resumed)
    assert list(publisher.journal.iterdir()) == []


def test_a_journal_is_believed_only_as_far_as_the_store_confirms_it(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 4), workers=1)
    lost, cut, *_ = sorted((tmp_path / "store" / "blobs" / "sha256").iterdir())
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    (journal,) = publisher.journal.iterdir()
    with journal.open("ab") as file:
        file.write(b'{"sha256": "torn by a ki')
    resumed = publisher.publish("1.0.0")
    assert (resumed.blobs_resumed, resumed.blobs_new) == (2, 4)
    publisher.pull(resumed)


def test_a_line_that_a_kill_cut_short_spoils_no_other(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 2), workers=1)
    (journal,) = publisher.journal.iterdir()
    journal.write_bytes(b'{"sha256": "torn by a ki' + b"\n" + journal.read_bytes() + b'{"sha256": "torn by another')
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 1), workers=1)
    resumed = publisher.publish("1.0.0")
    assert (resumed.blobs_resumed, resumed.blobs_new) == (3, 3)


class Adding(NoProgress):
    """Adds up what was announced and what was told as done, by task."""

    def __init__(self) -> None:
        self._told: list[tuple[str, str, int]] = []

    def start(self, task: str, total: int) -> None:
        self._told.append(("start", task, total))

    def advance(self, task: str, n: int) -> None:
        self._told.append(("advance", task, n))

    def sums(self, kind: str) -> Counter[str]:
        sums = Counter[str]()
        for told, task, n in self._told:
            sums.update({task: n} if told == kind else {})
        return sums


def test_progress_adds_up_to_what_was_announced_whatever_is_resumed_or_reused(
    publisher: Publisher, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 4), workers=1)
    resumed, going_on = Adding(), Adding()
    first = publisher.publish("1.0.0", progress=resumed)
    assert first.blobs_resumed == 4
    assert resumed.sums("start") == resumed.sums("advance")
    assert resumed.sums("start")["send"] == first.bytes_total
    second = publisher.publish("1.1.0", layered(layer1=0x3E80), progress=going_on)
    assert going_on.sums("start") == going_on.sums("advance")
    assert going_on.sums("start")["send"] == second.bytes_sent < second.bytes_total
    assert going_on.sums("start")["read"] == sum(blob.pt_size for blob in publisher.manifest("1.1.0").tensor_blobs)


def test_a_publish_to_another_store_forgets_nothing_of_one_that_was_cut_off(
    publisher: Publisher, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 4), workers=1)
    publisher.publish("1.0.0", store=FileStore(tmp_path / "staging"))
    assert publisher.publish("1.0.0").blobs_resumed == 4


def test_a_journal_of_a_lost_model_key_is_not_believed(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 4), workers=1)
    (tmp_path / "store" / "keys" / "e1.json").unlink()  # the blobs keep their content ids, by which they are sought
    resumed = publisher.publish("1.0.0")
    assert (resumed.blobs_resumed, resumed.blobs_new) == (0, 6)
    publisher.pull(resumed)


def blob_file(publisher: Publisher, version: str, position: int) -> Path:
    return publisher.home / "store" / publisher.manifest(version).blobs[position].object_key


def cut(blob: Path) -> None:
    blob.write_bytes(blob.read_bytes()[:-1])


def lengthen(blob: Path) -> None:
    blob.write_bytes(blob.read_bytes() + b"x")


HARMED = pytest.mark.parametrize("harm", [Path.unlink, cut, lengthen], ids=["lost", "cut", "longer"])


@HARMED
def test_a_blob_that_the_store_has_no_more_is_sealed_and_sent_anew(
    publisher: Publisher, harm: Callable[[Path], None]
) -> None:
    publisher.publish("1.0.0")
    harm(blob_file(publisher, "1.0.0", 0))
    published = publisher.publish("1.1.0", layered(layer1=0x3E80))
    assert (published.blobs_new, published.blobs_reused) == (4, 2)
    verify_release(publisher.store, published.manifest_digest, trust=publisher.trust, expect=publisher.expect())
    publisher.pull(published)


def test_without_reuse_every_blob_is_sealed_anew_and_damage_in_the_store_is_left_behind(publisher: Publisher) -> None:
    first = publisher.publish("1.0.0")
    damaged = blob_file(publisher, "1.0.0", 0)
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    published = publisher.publish("1.0.1", reuse=False)
    assert (published.blobs_new, published.blobs_reused) == (first.blobs_new, 0)
    assert published.bytes_sent == published.bytes_total
    verify_release(publisher.store, published.manifest_digest, trust=publisher.trust, expect=publisher.expect())
    old, new = ({blob.sha256 for blob in publisher.manifest(version).blobs} for version in ("1.0.0", "1.0.1"))
    assert not old & new


@pytest.mark.parametrize("which", [0, 2])
@HARMED
def test_publishing_again_what_has_lost_a_blob_says_that_it_cannot_be_made_good(
    publisher: Publisher, harm: Callable[[Path], None], which: int
) -> None:
    publisher.publish("1.0.0")
    blob = blob_file(publisher, "1.0.0", which)
    harm(blob)
    with pytest.raises(ObjectMissing, match=f"1 blob of tiny 1.0.0.*{blob.name}.*publish .* another version"):
        publisher.publish("1.0.0")
    verify_release(
        publisher.store, publisher.publish("1.0.1").manifest_digest, trust=publisher.trust, expect=publisher.expect()
    )


def test_what_a_version_has_lost_is_counted_by_blobs_however_many_layers_share_one(publisher: Publisher) -> None:
    alike = layered(layer0=0x3E80, layer1=0x3E80)
    assert publisher.publish("1.0.0", alike).blobs_new == 5, "two equal layers are sent once"
    shared, other = blob_file(publisher, "1.0.0", 1), blob_file(publisher, "1.0.0", 3)
    assert shared == blob_file(publisher, "1.0.0", 2)
    shared.unlink()
    with pytest.raises(ObjectMissing, match=f"has lost 1 blob of tiny 1.0.0: blobs/sha256/{shared.name}[.]"):
        publisher.publish("1.0.0", alike)
    other.unlink()
    with pytest.raises(ObjectMissing, match=r"has lost 2 blobs of tiny 1.0.0: blobs/sha256/\w+ and others"):
        publisher.publish("1.0.0", alike)


def rewrite_journal(publisher: Publisher, **changed: str) -> None:
    """Give every blob of the journal other facts."""
    (journal,) = publisher.journal.iterdir()
    entries = [json.loads(line) for line in journal.read_bytes().splitlines() if line]
    journal.write_text("".join(json.dumps(entry | changed) + "\n" for entry in entries))


def test_a_journaled_blob_whose_key_the_model_key_does_not_open_is_sent_anew(
    publisher: Publisher, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 4), workers=1)
    rewrite_journal(publisher, wrappedKey="00" * 40)
    resumed = publisher.publish("1.0.0")
    assert (resumed.blobs_resumed, resumed.blobs_new) == (0, 6)
    publisher.pull(resumed)


def test_a_journaled_blob_of_another_epoch_is_sent_anew(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        publisher.publish("1.0.0", store=Dying(tmp_path / "store", 4), workers=1)
    rewrite_journal(publisher, epoch="e0")
    resumed = publisher.publish("1.0.0")
    assert (resumed.blobs_resumed, resumed.blobs_new) == (0, 6)
    assert {blob.epoch for blob in publisher.manifest("1.0.0").blobs} == {"e1"}
    publisher.pull(resumed)


@pytest.mark.parametrize("key", ["keys/e1.json", "keys/id.json"])
def test_where_versions_are_a_lost_key_is_never_made_anew(publisher: Publisher, key: str) -> None:
    publisher.publish("1.0.0")
    (publisher.home / "store" / key).unlink()
    before = set(publisher.store.list(""))
    with pytest.raises(ObjectMissing, match=f"{key} is not in .* Restore {key} from the bucket's versioning"):
        publisher.publish("1.1.0", layered(layer1=0x3E80))
    assert set(publisher.store.list("")) == before


def test_a_key_that_takes_another_s_place_is_noticed_before_anything_is_sent(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    key = publisher.home / "store" / "keys" / "e1.json"
    context = KeyContext.of_model_key(publisher.manifest("1.0.0").model.uid, "e1")
    key.write_bytes(write_key_object(Secret32.random(), context, publisher.keys, [KEY_REF]))
    before = set(publisher.store.list(""))
    with pytest.raises(KeyMismatch, match="epoch e1"):
        publisher.publish("1.1.0", layered(layer1=0x3E80))
    assert set(publisher.store.list("")) == before


def add_epoch(publisher: Publisher, epoch: str) -> None:
    """What a rotation of the model key leaves in the store."""
    context = KeyContext.of_model_key(publisher.manifest("1.0.0").model.uid, epoch)
    key = write_key_object(Secret32.random(), context, publisher.keys, [KEY_REF])
    (publisher.home / "store" / "keys" / f"{epoch}.json").write_bytes(key)


@pytest.mark.parametrize("epoch", ["e1", "e2"])
def test_a_lost_key_of_an_epoch_in_use_neither_leads_back_to_another_nor_is_passed_over(
    publisher: Publisher, epoch: str
) -> None:
    publisher.publish("1.0.0")
    add_epoch(publisher, "e2")
    publisher.pull(publisher.publish("1.1.0", layered(layer1=0x3E80)))
    (publisher.home / "store" / "keys" / f"{epoch}.json").unlink()
    with pytest.raises(ObjectMissing, match=rf"keys/{epoch}\.json is not in "):
        publisher.publish("1.2.0", layered(layer2=0x3E80))


def test_blobs_of_an_older_epoch_are_taken_over_unless_the_store_has_lost_them(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    add_epoch(publisher, "e2")
    blob_file(publisher, "1.0.0", 0).unlink()
    published = publisher.publish("1.1.0", layered(layer1=0x3E80))
    assert (published.blobs_new, published.blobs_reused) == (4, 2)
    assert [blob.epoch for blob in publisher.manifest("1.1.0").blobs] == ["e2", "e1", "e2", "e1", "e2", "e2"]
    verify_release(publisher.store, published.manifest_digest, trust=publisher.trust, expect=publisher.expect())
    publisher.pull(published)


def test_the_newest_epoch_is_that_of_the_highest_number(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    for epoch in ("e9", "e10"):
        add_epoch(publisher, epoch)
    publisher.publish("1.1.0", reuse=False)
    assert {blob.epoch for blob in publisher.manifest("1.1.0").blobs} == {"e10"}


@pytest.mark.parametrize("name", ["e7.json.bak", "e07.json", "e0.json", "old.json"])
def test_what_lies_beside_the_keys_under_another_name_is_no_epoch(publisher: Publisher, name: str) -> None:
    publisher.publish("1.0.0")
    (publisher.home / "store" / "keys" / name).write_text("{}")
    publisher.publish("1.1.0", reuse=False)
    assert {blob.epoch for blob in publisher.manifest("1.1.0").blobs} == {"e1"}


def of_a_stranger(publisher: Publisher, model: str | None = None) -> bytes:
    """A well-formed key of epoch e5, of another model or under a key that we do not have."""
    keys = publisher.home / "stranger's"
    keys.mkdir()
    (keys / KEY_REF).write_bytes(os.urandom(32))
    context = KeyContext.of_model_key(model or publisher.manifest("1.0.0").model.uid, "e5")
    return write_key_object(Secret32.random(), context, LocalKeyProvider(keys), [KEY_REF])


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(lambda _: b"{}", id="no-key"),
        pytest.param(lambda _: b" " * (KEY_OBJECT_LIMIT + 1), id="too-large"),
        pytest.param(lambda publisher: of_a_stranger(publisher), id="under-another-key"),
        pytest.param(lambda publisher: of_a_stranger(publisher, str(uuid.uuid4())), id="of-another-model"),
    ],
)
def test_a_key_that_anybody_may_have_put_there_is_named_with_when_to_delete_it(
    publisher: Publisher, junk: Callable[[Publisher], bytes]
) -> None:
    publisher.publish("1.0.0")
    planted = publisher.home / "store" / "keys" / "e5.json"
    planted.write_bytes(junk(publisher))
    what_to_do = (
        r"keys/e5\.json .*If no version lists the epoch e5 .'modelparams inspect VERSION'., delete keys/e5\.json"
    )
    with pytest.raises((KeyMismatch, KeyUnavailable, BlobSizeMismatch), match=what_to_do):
        publisher.publish("1.1.0", layered(layer1=0x3E80))
    planted.unlink()
    assert publisher.publish("1.1.0").sequence == 2


def test_changed_bytes_are_refused_before_anything_is_written(publisher: Publisher) -> None:
    directory = publisher.directory("1.0.0")
    (directory / "model.safetensors").write_bytes(safetensors(layered(layer0=0x3E80)))
    with pytest.raises(ParamsHashMismatch):
        publisher.publish("1.0.0", directory=directory)
    assert list(publisher.store.list("")) == []


def test_the_bytes_that_were_checked_are_sealed_though_their_name_moves_to_others(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors, directory = layered(), publisher.directory("1.0.0")
    (directory / "model.safetensors").rename(directory / ".reviewed")
    (directory / ".others").write_bytes(safetensors(layered(layer0=0x3E80)))
    (directory / "model.safetensors").symlink_to(".reviewed")

    def read_late(*given: Any) -> PlainVersion:
        (directory / "model.safetensors").unlink()
        (directory / "model.safetensors").symlink_to(".others")
        return read_plain(*given)

    monkeypatch.setattr("modelparams.publish.read_plain", read_late)
    pulled, arena = publisher.pull(publisher.publish("1.0.0", directory=directory))
    readable = ReadableArena(arena, pulled.layout.index)
    assert {name: bytes(readable.tensor(name)) for name in readable.specs} == {n: d for n, (_, d) in tensors.items()}


class Meanwhile(NoProgress):
    """Does something else when a task starts: "read", after the files were checked; "send", after they were read."""

    def __init__(self, task: str, act: Callable[[], object]) -> None:
        self._acts = {task: act}

    def start(self, task: str, total: int) -> None:
        if act := self._acts.get(task):
            act()


def overwrite(file: Path) -> None:
    """Other parameters in place, as a writer who is not done yet would leave them."""
    with file.open("r+b") as open_file:
        open_file.seek(-64, os.SEEK_END)
        open_file.write(bytes(64))
    os.utime(file, (1, 1))  # else a clock that ticks slowly could give it the times that it had


def overwrite_under_the_old_times(file: Path) -> None:
    """As a copy that keeps times does. Only the kernel says then that it changed, by a clock that ticks slowly."""
    before = file.stat()
    overwrite(file)
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def overwrite_and_take_away(file: Path) -> None:
    overwrite(file)
    file.unlink()


@pytest.mark.parametrize("change", [overwrite, overwrite_under_the_old_times, overwrite_and_take_away])
def test_a_file_that_changes_after_it_was_checked_is_refused(
    publisher: Publisher, change: Callable[[Path], None]
) -> None:
    file = publisher.directory("1.0.0") / "model.safetensors"
    with pytest.raises(UsageError, match=r"model\.safetensors changed while it was published"):
        publisher.publish("1.0.0", directory=file.parent, progress=Meanwhile("read", lambda: change(file)))
    assert list(publisher.store.list("blobs/")) == []


def test_a_file_that_changes_before_it_is_sealed_leaves_no_blob_under_another_content_id(publisher: Publisher) -> None:
    file, tensors = publisher.directory("1.0.0") / "model.safetensors", layered()
    whole = file.read_bytes()
    changed = list(tensors)[-1]
    with pytest.raises(UsageError, match=r"the tensors of model\.layers\.2 changed while they were published"):
        publisher.publish("1.0.0", directory=file.parent, progress=Meanwhile("send", lambda: overwrite(file)))
    assert list_pointers(publisher.store) == []
    file.write_bytes(whole)
    pulled, arena = publisher.pull(publisher.publish("1.0.0", directory=file.parent))
    assert bytes(ReadableArena(arena, pulled.layout.index).tensor(changed)) == tensors[changed][1]


def test_a_file_that_only_looks_changed_is_published(publisher: Publisher) -> None:
    file = publisher.directory("1.0.0") / "model.safetensors"
    publisher.publish("1.0.0", directory=file.parent, progress=Meanwhile("read", lambda: os.utime(file, (1, 1))))
    publisher.publish("1.1.0", progress=Meanwhile("read", file.unlink), directory=file.parent)


def test_nan_behind_the_first_blob_of_a_tensor_is_refused_by_the_tensor_s_name(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelparams.plaintext.plan_blobs", lambda sizes: plan_blobs(sizes, limit=4096))
    spec, data = bf16(64, 64)
    with pytest.raises(NotFinite, match=r"head\.weight holds NaN"):
        publisher.publish("1.0.0", {"head.weight": (spec, data[:-2] + NAN.to_bytes(2, "little"))})


def test_a_tensor_of_another_shape_makes_another_layout_though_no_byte_of_it_differs(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    tensors = layered()
    spec, data = tensors["model.norm.weight"]
    tensors["model.norm.weight"] = (TensorSpec(spec.dtype, (1, *spec.shape)), data)
    published = publisher.publish("1.1.0", tensors)
    assert published.is_other_layout
    assert published.blobs_reused == 4


@pytest.mark.parametrize("pattern", [NAN, INF])
def test_nan_and_infinity_are_refused_by_the_tensor_s_name(publisher: Publisher, pattern: int) -> None:
    with pytest.raises(NotFinite, match=r"model\.layers\.1\.mlp\.weight holds NaN"):
        publisher.publish("1.0.0", layered(layer1=pattern))
    assert list_pointers(publisher.store) == []


def test_tied_matrices_are_sealed_once_and_found_under_both_names(publisher: Publisher) -> None:
    tensors = layered()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    pulled, arena = publisher.pull(publisher.publish("1.0.0", tensors))
    readable = ReadableArena(arena, pulled.layout.index)
    assert readable.offset("lm_head.weight") == readable.offset("model.embed_tokens.weight")
    assert bytes(readable.tensor("lm_head.weight")) == tensors["lm_head.weight"][1]


def test_three_names_of_one_matrix_have_one_place(publisher: Publisher) -> None:
    tensors = {f"{name}.weight": bf16(16, 8) for name in ("decoder", "encoder", "shared")}
    pulled, arena = publisher.pull(publisher.publish("1.0.0", tensors))
    readable = ReadableArena(arena, pulled.layout.index)
    assert {readable.offset(name) for name in tensors} == {0}


@pytest.mark.parametrize("at", [0, 70, -1])
def test_matrices_that_differ_in_one_byte_are_not_tied(publisher: Publisher, at: int) -> None:
    spec, data = bf16(16, 64)
    other = bytearray(data)
    other[at] ^= 1
    tensors = {"lm_head.weight": (spec, bytes(other)), "model.embed_tokens.weight": (spec, data)}
    pulled, arena = publisher.pull(publisher.publish("1.0.0", tensors))
    readable = ReadableArena(arena, pulled.layout.index)
    assert {name: bytes(readable.tensor(name)) for name in tensors} == {name: d for name, (_, d) in tensors.items()}


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({"head.weight": bf16(64), "tail.weight": bf16(64)}, id="vectors"),
        pytest.param({"model.layers.0.weight": bf16(8, 8), "model.layers.1.weight": bf16(8, 8)}, id="layers"),
        pytest.param({"head.weight": bf16(4, 16), "tail.weight": bf16(16, 4)}, id="shapes"),
    ],
)
def test_what_is_equal_by_chance_is_not_tied(
    publisher: Publisher, tensors: dict[str, tuple[TensorSpec, bytes]]
) -> None:
    pulled, arena = publisher.pull(publisher.publish("1.0.0", tensors))
    readable, (one, other) = ReadableArena(arena, pulled.layout.index), tensors
    assert readable.offset(one) != readable.offset(other)


def test_equal_vectors_of_two_layers_stay_apart_so_that_one_may_change_alone(publisher: Publisher) -> None:
    tensors = layered()
    publisher.publish("1.0.0", tensors)
    tensors["model.layers.0.norm.weight"] = bf16(64, fill=0x3E80)
    published = publisher.publish("1.1.0", tensors)
    assert published.blobs_new == 3


def test_shards_are_read_as_one_model(publisher: Publisher) -> None:
    directory, tensors = publisher.directory("1.0.0"), layered()
    (directory / "model.safetensors").unlink()
    names = list(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for file, inside in shards.items():
        (directory / file).write_bytes(safetensors({name: tensors[name] for name in inside}))
    weight_map = {name: file for file, inside in shards.items() for name in inside}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    write_hashes(directory)
    pulled, arena = publisher.pull(publisher.publish("1.0.0", directory=directory))
    readable = ReadableArena(arena, pulled.layout.index)
    assert {name: bytes(readable.tensor(name)) for name in readable.specs} == {n: d for n, (_, d) in tensors.items()}
    assert "model.safetensors.index.json" not in readable.assets()


def test_sharding_otherwise_changes_no_blob_of_tensors(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    directory = publisher.directory("1.1.0")
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(layered(), "model-00001-of-00001.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    write_hashes(directory)
    assert publisher.publish("1.1.0", directory=directory).blobs_new == 2


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "modeling_tiny.py",
        "modeling_tiny.pyc",
        "kernels.so",
        "last.ckpt",
        "scaler.joblib",
        "scaler.pickle",
        "scaler.pth",
        "sub/optimizer.pt",
        "2_Dense/model.safetensors",
    ],
)
def test_pickles_programs_and_hidden_away_parameters_do_not_travel(publisher: Publisher, name: str) -> None:
    directory = publisher.directory("1.0.0")
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=name.rpartition("/")[2]):
        publisher.publish("1.0.0", directory=directory)


DEEP = b"[" * 101 + b"]" * 101


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("generation_config.json", b'{"x": %b}' % DEEP, "nested deeper than 100 levels"),
        ("tokenizer_config.json", b"{", "is no JSON"),
        ("tokenizer_config.json", b"[]", "is no JSON object"),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1", "is no JSON"),
        ("tokenizer.json", '{"a": 1}'.encode("utf-16"), "is not UTF-8"),
        ("1_Pooling/config.json", b"null", "is no JSON object"),
        ("modules.json", b"{}", "is no JSON list"),
        ("config.json", b'{"rms_norm_eps": NaN}', "says that rms_norm_eps is NaN or infinite"),
        ("config.json", b'{"rope": {"theta": [1, 1e999]}}', "says that theta is NaN or infinite"),
        ("config.json", b'{"eps": {"__float__": "NaN"}}', "says that eps is NaN or infinite"),
        ("config.json", b'{"time_step_limit": [0.0, NaN]}', "says that time_step_limit is NaN or infinite"),
        ("sentence_bert_config.json", b'{"x": %b}' % DEEP, "nested deeper"),
        ("chat_template.jinja", b"{{ caf\xe9 }}", "is not UTF-8"),
    ],
)
def test_a_small_file_that_every_engine_refuses_is_named_before_anything_is_written(
    publisher: Publisher, name: str, data: bytes, why: str
) -> None:
    directory = publisher.directory("1.0.0")
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(data)
    if name == "config.json":
        write_hashes(directory)
    with pytest.raises(UsageError, match=f"no engine could serve .*: the asset {name} .*{why}"):
        publisher.publish("1.0.0", directory=directory)
    assert list(publisher.store.list("")) == []


@pytest.mark.parametrize("infinity", ["Infinity", '{"__float__": "Infinity"}'])
def test_a_step_without_a_limit_is_infinite_as_the_library_writes_it(publisher: Publisher, infinity: str) -> None:
    directory = publisher.directory("1.0.0")
    (directory / "config.json").write_text('{"time_step_limit": [0.0, %s]}' % infinity)  # noqa: UP031 -- braces
    write_hashes(directory)
    publisher.pull(publisher.publish("1.0.0", directory=directory))


def test_a_label_with_half_a_character_is_refused_since_no_answer_could_carry_it(publisher: Publisher) -> None:
    directory = publisher.directory("1.0.0")
    config = directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"id2label": {"0": "bad\ud800"}}))
    with pytest.raises(UsageError, match="lone surrogate in a text, such as a label"):
        publisher.publish("1.0.0", directory=directory)
    with pytest.raises(UsageError, match="lone surrogate"):
        write_hashes(directory)
    assert "ud800" in config.read_text()


def test_a_small_file_that_no_engine_reads_may_hold_anything(publisher: Publisher) -> None:
    directory = publisher.directory("1.0.0")
    (directory / "README.md").write_bytes(b"caf\xe9")
    (directory / "vocab.json").write_bytes(DEEP)
    publisher.pull(publisher.publish("1.0.0", directory=directory))


@pytest.mark.parametrize("name", ["tokenizer.json", "1_Pooling", "model.safetensors"])
def test_what_may_not_be_read_is_named_and_not_left_out(publisher: Publisher, name: str) -> None:
    directory = publisher.directory("1.0.0")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling/config.json").write_bytes(b"{}")
    (directory / name).chmod(0)
    with unprivileged(), pytest.raises(UsageError, match=f"{name} cannot be read .Permission denied"):
        publisher.publish("1.0.0", directory=directory)
    (directory / name).chmod(0o700)
    assert list(publisher.store.list("")) == []


def test_small_files_that_are_too_large_together_are_refused_with_what_to_keep(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = publisher.directory("1.0.0", vocab="[" + "0" * 1000 + "]", merges="[" + "0" * 1000 + "]")
    size = sum(path.stat().st_size for path in directory.glob("*.json"))
    monkeypatch.setattr("modelparams.plaintext.ASSETS_LIMIT", size - 1)
    with pytest.raises(UsageError, match=r"small files of .* are more than .*[Kk]eep only parameters, configuration"):
        read_plain(directory)
    monkeypatch.setattr("modelparams.plaintext.ASSETS_LIMIT", size)
    assert len(read_plain(directory).asset_bytes) == size


@pytest.mark.parametrize("name", ["read me.txt", "naïve.json", ",".join("x" * 128)])
def test_a_file_whose_name_cannot_travel_is_named(publisher: Publisher, name: str) -> None:
    directory = publisher.directory("1.0.0")
    (directory / name).touch()
    with pytest.raises(UsageError, match=f"holds '{name}', a name that cannot travel"):
        publisher.publish("1.0.0", directory=directory)


def test_a_link_is_not_followed_out_of_the_directory(publisher: Publisher) -> None:
    directory = publisher.directory("1.0.0")
    (directory / "vocab.txt").symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match="is a link"):
        publisher.publish("1.0.0", directory=directory)


def test_a_linked_directory_is_no_less_a_link(publisher: Publisher, tmp_path: Path) -> None:
    directory, pool = publisher.directory("1.0.0"), tmp_path / "pool"
    pool.mkdir()
    (pool / "config.json").write_text("{}")
    (directory / "1_Pooling").symlink_to(pool)
    with pytest.raises(UsageError, match="1_Pooling is a link"):
        publisher.publish("1.0.0", directory=directory)
    (directory / "1_Pooling").rename(directory / ".pool")
    publisher.publish("1.0.0", directory=directory)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.pkl", "a pickle or a program"),
        ("pytorch_model.BIN", "a pickle or a program"),
        ("Tool.Py", "a pickle or a program"),
        ("adapter.SafeTensors", "parameters that would not be read"),
        ("below/model.safetensors", "parameters that would not be read"),
    ],
)
def test_what_never_travels_is_refused_however_it_is_spelled(publisher: Publisher, name: str, says: str) -> None:
    directory = publisher.directory("1.0.0")
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).touch()
    with pytest.raises(UsageError, match=f"{re.escape(name)} (is|holds) {says}"):
        publisher.publish("1.0.0", directory=directory)


@pytest.mark.parametrize("name", ["fifo.json", "model-2.safetensors", SHARD_INDEX, "config.json"])
def test_a_pipe_is_refused_and_not_waited_for(publisher: Publisher, name: str) -> None:
    directory = publisher.directory("1.0.0")
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with pytest.raises(UsageError, match=f"{name} is no regular file"):
        publisher.publish("1.0.0", directory=directory)


def test_files_below_travel_by_their_path_and_hidden_ones_stay(publisher: Publisher) -> None:
    directory = publisher.directory("1.0.0")
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text("{}")
    (directory / ".gitattributes").write_text("x")
    (directory / ".cache").mkdir()
    (directory / ".cache" / "y").write_text("x")
    pulled, arena = publisher.pull(publisher.publish("1.0.0", directory=directory))
    assets = ReadableArena(arena, pulled.layout.index).assets()
    assert assets.keys() == {"1_Pooling/config.json", "config.json", "tokenizer.json"}


def test_no_name_and_no_plaintext_is_in_the_store(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish("1.0.0")
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"embed_tokens" not in data
            assert b"model_type" not in data
            assert b"\x00\x3f\x00\x3f\x00\x3f\x00\x3f" not in data


def test_two_models_share_no_content_id(tmp_path: Path) -> None:
    first, second = Publisher(tmp_path / "a"), Publisher(tmp_path / "b")
    first.publish("1.0.0")
    second.publish("1.0.0")
    ids = [{blob.content_id for blob in one.manifest("1.0.0").blobs} for one in (first, second)]
    assert not ids[0] & ids[1]


def test_a_store_belongs_to_one_model(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    with pytest.raises(UsageError, match="another model than other"):
        publisher.publish("1.1.0", model=ModelName("other"))


def test_a_last_publish_by_a_stranger_is_not_built_upon(publisher: Publisher) -> None:
    publisher.publish("1.0.0", signers=[SigningKey.generate()])
    with pytest.raises(SignerUnknown):
        publisher.publish("1.1.0", layered(layer0=0x3E80))


def test_a_manifest_that_no_cluster_would_accept_is_not_written(publisher: Publisher) -> None:
    other = SigningKey.generate()
    with pytest.raises(TooFewSignatures):
        publisher.publish("1.0.0", trust=TrustPolicy.of(publisher.signer, other, threshold=2))
    assert list(publisher.store.list("")) == [], "and no blob was sent for it"
    publisher.publish(
        "1.0.0", signers=[publisher.signer, other], trust=TrustPolicy.of(publisher.signer, other, threshold=2)
    )


def test_a_manifest_that_its_signer_signed_wrongly_is_not_written(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a key service could that holds another key of that name."""
    monkeypatch.setattr(SigningKey, "sign", lambda self, payload: CryptoSigner.sign(self, payload + b"."))
    with pytest.raises(SignatureInvalid):
        publisher.publish("1.0.0")
    assert list(publisher.store.list("manifests/")) == list_pointers(publisher.store) == []


def test_without_the_key_encryption_key_nothing_is_published(publisher: Publisher) -> None:
    with pytest.raises(KeyUnavailable):
        publisher.publish("1.0.0", key_ref="absent")
    publisher.publish("1.0.0")
    (publisher.keys_directory / KEY_REF).write_bytes(os.urandom(32))
    with pytest.raises(KeyUnavailable):
        publisher.publish("1.1.0", layered(layer0=0x3E80))


def test_the_floor_is_kept_can_rise_and_never_falls(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    publisher.publish("1.1.0", layered(layer0=0x3E80), floor=2)
    publisher.publish("1.2.0", layered(layer0=0x3E81))
    assert publisher.manifest("1.2.0").floor == 2
    before = set(publisher.store.list(""))
    with pytest.raises(UsageError, match="floor is 2"):
        publisher.publish("1.3.0", layered(layer0=0x3E82), floor=1)
    assert set(publisher.store.list("")) == before


def test_a_floor_is_at_most_the_version_s_own_sequence(publisher: Publisher) -> None:
    with pytest.raises(UsageError, match="the floor 2 is above 1, the sequence that comes next"):
        publisher.publish("1.0.0", floor=2)
    assert publisher.publish("1.0.0", floor=1).sequence == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"floor": 2}, "its options cannot change: it has the floor 1, not 2. Publish the next version with --floor 2"),
        ({"floor": 0}, "the floor is 1 and cannot go down to 0"),
        ({"not_after": datetime(2031, 1, 1, tzinfo=UTC)}, "it has 2030-01-01T00:00:00Z, not 2031-01-01T00:00:00Z"),
    ],
)
def test_what_is_published_gets_no_other_floor_and_no_other_end(
    publisher: Publisher, given: dict[str, Any], says: str
) -> None:
    as_it_is: dict[str, Any] = {"floor": 1, "not_after": datetime(2030, 1, 1, tzinfo=UTC)}
    when = {"now": datetime(2029, 1, 1, tzinfo=UTC)}
    publisher.publish("1.0.0", **as_it_is, **when)
    with pytest.raises(UsageError, match=says):
        publisher.publish("1.0.0", **(as_it_is | given), **when)
    later = publisher.publish("1.0.0", **as_it_is, now=datetime(2030, 6, 1, tzinfo=UTC))
    assert later.was_there


def test_a_version_without_an_end_gets_none_and_other_parameters_are_told_first(publisher: Publisher) -> None:
    publisher.publish("1.0.0")
    with pytest.raises(UsageError, match="it has no last moment, not 2099-01-01T00:00:00Z"):
        publisher.publish("1.0.0", not_after=datetime(2099, 1, 1, tzinfo=UTC))
    with pytest.raises(VersionExists):
        publisher.publish("1.0.0", layered(layer0=0x3E80), floor=5)


def test_an_expired_version_can_still_be_followed_by_another(publisher: Publisher) -> None:
    publisher.publish("1.0.0", now=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 1, 2, tzinfo=UTC))
    assert publisher.publish("1.1.0", layered(layer0=0x3E80)).sequence == 2


def test_a_version_that_has_expired_already_is_refused_before_anything_is_sent(publisher: Publisher) -> None:
    with pytest.raises(UsageError, match="2020-01-01T00:00:00Z has passed"):
        publisher.publish("1.0.0", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    this_moment = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(UsageError, match="has passed"):
        publisher.publish("1.0.0", not_after=this_moment, now=this_moment)
    assert list(publisher.store.list("")) == []


def test_a_model_without_layers_or_with_empty_tensors_is_published_too(publisher: Publisher) -> None:
    tensors = {"weight": bf16(4, 4), "nothing": bf16(0), "scalar": bf16()}
    pulled, arena = publisher.pull(publisher.publish("1.0.0", tensors))
    assert bytes(ReadableArena(arena, pulled.layout.index).tensor("scalar")) == tensors["scalar"][1]


def test_the_object_to_apply_names_digest_source_and_key(publisher: Publisher) -> None:
    published = publisher.publish("1.0.0-rc.1")
    source = source_of("s3://models/tiny?endpoint=https://s3.example.com")
    found = manifest_object(published, source, KEY_REF, namespace="serving")
    assert found == {
        "apiVersion": "modelparams.dev/v1alpha1",
        "kind": "ModelParamVersion",
        "metadata": {"name": "tiny-1.0.0-rc.1", "namespace": "serving"},
        "spec": {
            "modelName": str(MODEL),
            "version": "1.0.0-rc.1",
            "source": {
                "s3": {
                    "endpoint": "https://s3.example.com",
                    "region": "us-east-1",
                    "bucket": "models",
                    "prefix": "tiny",
                }
            },
            "manifestDigest": str(published.manifest_digest),
            "encryption": {"keyRef": {"name": KEY_REF}},
        },
    }


@pytest.mark.parametrize("namespace", [None, "1e3"])
def test_the_yaml_says_the_same(publisher: Publisher, namespace: str | None) -> None:
    yaml = pytest.importorskip("yaml")
    published, source = publisher.publish("1.0.0"), source_of("s3://models/1.10")
    found = manifest_object(published, source, "1e3", namespace=namespace)
    assert yaml.safe_load(manifest_yaml(published, source, "1e3", namespace=namespace)) == found
    assert found["metadata"] == {"name": "tiny-1.0.0"} | ({"namespace": namespace} if namespace else {})


def test_the_journal_is_among_the_user_s_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_directory() == tmp_path / ".cache" / "modelparams"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_directory() == tmp_path / "caches" / "modelparams"


def test_a_cache_that_cannot_be_written_is_said_once_and_hinders_nothing(
    publisher: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no-directory").write_text("")
    published = publisher.publish("1.0.0", cache=tmp_path / "no-directory")
    assert published.blobs_new == 6
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        f"{tmp_path / 'no-directory' / 'publish'} cannot be written (Not a directory)"
    ]
