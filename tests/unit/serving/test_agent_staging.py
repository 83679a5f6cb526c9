"""Staging with real stores, seals and arena files: what is left behind when it ends, however it ends."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders.agent_pod import digest_of
from builders.fake_engine import FakeEngine
from builders.fake_engine_process import digest_in
from builders.sealed import envelope_of
from modelparams import errors
from modelparams.api.release import Encryption, KeyReference, Release, S3Source, Source
from modelparams.arena import small_hash
from modelparams.digest import Digest
from modelparams.failure import classify
from modelparams.floe import sealed_size
from modelparams.keys import LocalKeyProvider
from modelparams.names import ModelName, Version
from modelparams.protocol import EngineState, Reserve, Slot, SlotState
from modelparams.publish import publish
from modelparams.reasons import Reason
from modelparams.store import FileStore, ObjectStore
from modelparams.strictjson import dumps
from modelparams.trust import SigningKey, TrustPolicy
from modelparams.verify import manifest_key
from modelparams_serving.agent import arena as arena_module
from modelparams_serving.agent import staging
from modelparams_serving.agent.arena import inode_of, mapped
from modelparams_serving.agent.background import NICE, in_background
from modelparams_serving.agent.staging import Staged, Stager, Ticket

SAMPLES = Path(__file__).parents[3] / "params" / "samples" / "params" / "tiny-llama"
MODEL = ModelName("tiny-llama")
Json = dict[str, Any]


class Shop:
    """A store in a directory with two versions, and a stager that opens it whatever the source says."""

    def __init__(self, folder: Path, floor: int | None = None, not_after: datetime | None = None) -> None:
        self.folder, self.runtime = folder, folder / "run"
        self.runtime.mkdir()
        (folder / "keys").mkdir()
        (folder / "keys" / "kek").write_bytes(os.urandom(32))
        self.signer = signer = SigningKey.generate()
        (folder / "trust.json").write_bytes(TrustPolicy.of(signer).to_json())
        self.store = FileStore(folder / "store")
        self.releases = {
            "1.0.0": self._publish("1.0.0", signer),
            "1.1.0": self._publish("1.1.0", signer, floor=floor, not_after=not_after),
        }
        self.engine = FakeEngine(self.runtime, look=digest_in)
        self.engine.slots = {slot: SlotState() for slot in Slot}
        self.opened: list[S3Source] = []

    def _publish(
        self, version: str, signer: SigningKey, floor: int | None = None, not_after: datetime | None = None
    ) -> Release:
        published = publish(
            SAMPLES / f"v{version}",
            self.store,
            model=MODEL,
            version=Version(version),
            keys=LocalKeyProvider(self.folder / "keys"),
            key_ref="kek",
            signers=[signer],
            floor=floor,
            not_after=not_after,
            cache=self.folder / "cache",
        )
        return Release(
            version_name=f"tiny-llama-{version}",
            model_name=MODEL,
            version=Version(version),
            manifest_digest=published.manifest_digest,
            source=Source(s3=S3Source(bucket="params")),
            encryption=Encryption(key_ref=KeyReference(name="kek")),
        )

    def signed(self, version: str, blobs: Callable[[list[Json]], list[Json]]) -> Release:
        """The version with other blobs in its manifest, signed by the very key that pods trust."""
        release = self.releases[version]
        envelope = json.loads(self.store.get(manifest_key(release.manifest_digest), limit=1 << 20))
        statement = json.loads(base64.b64decode(envelope["payload"]))
        statement["predicate"]["blobs"] = blobs(statement["predicate"]["blobs"])
        signed = envelope_of(dumps(statement), self.signer)
        digest = Digest.of(signed)
        self.store.put_new(manifest_key(digest), io.BytesIO(signed))
        return release.model_copy(update={"manifest_digest": digest})

    def stager(self) -> Stager:
        stager = Stager.of(self.runtime, self.folder / "trust.json", self.folder / "keys", 2)
        return replace(stager, open_source=self._open)

    def _open(self, source: S3Source) -> ObjectStore:
        self.opened.append(source)
        return self.store

    async def reserve(self, request: Reserve) -> EngineState:
        answer = self.engine.answer(request.model_dump_json(by_alias=True).encode())
        if answer.refusal:
            raise errors.by_reason(answer.refusal.reason, answer.refusal.message)
        assert answer.state
        return answer.state

    def stage(self, version: str, stager: Stager | None = None, **ticket: object) -> Staged:
        one = Ticket(self.releases[version], **ticket)  # type: ignore[arg-type]
        return asyncio.run((stager or self.stager()).stage(one, self.reserve))

    def arena(self, slot: Slot = Slot.A) -> memoryview:
        return memoryview((self.runtime / slot.file_name).read_bytes())

    def blobs(self) -> list[Path]:
        return sorted((self.folder / "store" / "blobs" / "sha256").iterdir(), key=lambda file: file.stat().st_size)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_what_is_staged_is_what_was_published(shop: Shop) -> None:
    staged = shop.stage("1.0.0")
    assert digest_in(shop.arena(), staged.filled.index)
    assert staged.filled.fetched_bytes > 250_000
    assert staged.filled.slot is Slot.A


def test_it_says_which_file_it_filled(shop: Shop) -> None:
    assert shop.stage("1.0.0").filled.inode == (shop.runtime / Slot.A.file_name).stat().st_ino


@pytest.mark.parametrize("name", ["index", "assets"])
def test_it_knows_index_and_small_files_again_and_no_others(shop: Shop, name: str) -> None:
    filled, path = shop.stage("1.0.0").filled, shop.runtime / Slot.A.file_name
    assert small_hash(shop.arena(), filled.index, filled.assets) == filled.small_hash
    part = filled.index if name == "index" else filled.assets
    with path.open("r+b") as arena:
        arena.seek(part.offset + part.size - 2)
        arena.write(b"~")
    assert small_hash(shop.arena(), filled.index, filled.assets) != filled.small_hash


def test_an_arena_that_is_made_anew_while_it_is_filled_is_not_taken_for_the_filled_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena, pull = shop.runtime / Slot.A.file_name, staging.pull

    def replaced(*arguments: Any, **named: Any) -> Any:
        new = arena.with_name("new")
        new.write_bytes(bytes(arena.stat().st_size))
        new.replace(arena)
        return pull(*arguments, **named)

    monkeypatch.setattr(staging, "pull", replaced)
    assert shop.stage("1.0.0").filled.inode != arena.stat().st_ino


def test_progress_goes_up_and_never_says_done_before_it_is(shop: Shop) -> None:
    ticket = Ticket(shop.releases["1.0.0"])
    asyncio.run(shop.stager().stage(ticket, shop.reserve))
    assert ticket.percent == 99


def test_equal_blobs_are_copied_from_the_served_version_also_by_an_agent_that_did_not_stage_it(shop: Shop) -> None:
    first = shop.stage("1.0.0")
    served = (shop.releases["1.0.0"], first.filled.slot)
    shop.engine.slots[Slot.A] = shop.engine.slots[Slot.A].model_copy(update={"phase": "Current", "filling": None})
    second = shop.stage("1.1.0", stager=shop.stager(), resident=served)
    assert second.filled.slot is Slot.B
    assert second.filled.fetched_bytes < first.filled.fetched_bytes / 2
    assert digest_in(shop.arena(Slot.B), second.filled.index)


def flip(shop: Shop) -> None:
    largest = shop.blobs()[-1].stat().st_size  # both versions have one of that size, and only one of them is staged
    for blob in shop.blobs():
        if blob.stat().st_size == largest:
            data = bytearray(blob.read_bytes())
            data[-20] ^= 1
            blob.write_bytes(data)


def lose(shop: Shop) -> None:
    for blob in shop.blobs():
        blob.unlink()


def no_key(shop: Shop) -> None:
    (shop.folder / "keys" / "kek").unlink()


def no_trust(shop: Shop) -> None:
    (shop.folder / "trust.json").unlink()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (flip, Reason.BLOB_DIGEST_MISMATCH),
        (lose, Reason.OBJECT_MISSING),
        (no_key, Reason.KEY_UNAVAILABLE),
        (no_trust, Reason.TRUST_UNAVAILABLE),
    ],
)
def test_whatever_fails_leaves_no_plaintext(shop: Shop, harm: Callable[[Shop], None], reason: Reason) -> None:
    harm(shop)
    with pytest.raises(errors.ModelParamsError) as raised:
        shop.stage("1.0.0")
    assert raised.value.reason is reason
    path = shop.runtime / Slot.A.file_name
    assert not path.exists() or not any(shop.arena())


def no_file_left(shop: Shop) -> None:
    (shop.folder / "trust.json").unlink()
    (shop.folder / "trust.json").symlink_to("trust.json")  # ELOOP, for any errno


def a_comma_too_many(shop: Shop) -> None:
    (shop.folder / "trust.json").write_text('{"threshold": 1,, "keys": {}}')


def too_high_a_threshold(shop: Shop) -> None:
    policy = json.loads((shop.folder / "trust.json").read_bytes())
    (shop.folder / "trust.json").write_text(json.dumps(policy | {"threshold": 2}))


def another_signer(shop: Shop) -> None:
    (shop.folder / "trust.json").write_bytes(TrustPolicy.of(SigningKey.generate()).to_json())


def one_signer_more(shop: Shop) -> None:
    policy = json.loads((shop.folder / "trust.json").read_bytes())
    other = json.loads(TrustPolicy.of(SigningKey.generate()).to_json())
    both = policy | {"threshold": 2, "keys": {**policy["keys"], **other["keys"]}}
    (shop.folder / "trust.json").write_text(json.dumps(both))


@pytest.mark.parametrize(
    "harm", [no_trust, no_file_left, a_comma_too_many, too_high_a_threshold, another_signer, one_signer_more]
)
def test_a_policy_that_a_pod_cannot_use_for_now_condemns_no_version(shop: Shop, harm: Callable[[Shop], None]) -> None:
    """A final failure of one pod would turn the whole rollout back, and no correction would bring the version again."""
    path = shop.folder / "trust.json"
    sound = path.read_bytes()
    harm(shop)
    with pytest.raises(errors.TrustUnavailable) as raised:
        shop.stage("1.0.0")
    assert not classify(raised.value).is_final
    assert "ConfigMap modelparams-trust" in str(raised.value)
    assert "--help" not in str(raised.value)
    path.unlink(missing_ok=True)
    path.write_bytes(sound)
    assert shop.stage("1.0.0").filled.fetched_bytes


def test_a_cancelled_staging_leaves_no_plaintext(shop: Shop) -> None:
    ticket = Ticket(shop.releases["1.0.0"])

    async def reserve_and_cancel(request: Reserve) -> EngineState:
        ticket.cancel()
        return await shop.reserve(request)

    with pytest.raises(CancelledError):
        asyncio.run(shop.stager().stage(ticket, reserve_and_cancel))
    assert not any(shop.arena())


def test_a_sequence_below_a_floor_that_the_pod_has_seen_is_refused_whoever_orders_it(shop: Shop) -> None:
    with pytest.raises(errors.SequenceTooLow):
        shop.stage("1.0.0", floor=2)
    assert shop.stage("1.1.0", floor=2).filled.digest == shop.releases["1.1.0"].manifest_digest


def test_nor_one_below_the_floor_of_what_is_served_though_this_agent_never_staged_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path, floor=2)
    with pytest.raises(errors.SequenceTooLow):
        shop.stage("1.0.0", resident=(shop.releases["1.1.0"], Slot.B))


def test_what_is_served_keeps_its_floor_and_its_blobs_when_its_own_time_is_over(tmp_path: Path) -> None:
    """Pods go on to serve it, and an agent that started anew has to read it again."""
    now = datetime.now(UTC).replace(microsecond=0)
    shop = Shop(tmp_path, floor=2, not_after=now + timedelta(days=1))
    first = shop.stage("1.1.0")
    shop.engine.slots[Slot.A] = shop.engine.slots[Slot.A].model_copy(update={"phase": "Current", "filling": None})
    late = replace(shop.stager(), now=lambda: now + timedelta(days=2))
    with pytest.raises(errors.SequenceTooLow):
        shop.stage("1.0.0", stager=late, resident=(shop.releases["1.1.0"], first.filled.slot))
    with pytest.raises(errors.Expired):
        shop.stage("1.1.0", stager=late)


def test_an_order_for_another_version_than_the_manifest_is_refused(shop: Shop) -> None:
    lie = shop.releases["1.0.0"].model_copy(update={"manifest_digest": shop.releases["1.1.0"].manifest_digest})
    with pytest.raises(errors.WrongVersion):
        asyncio.run(shop.stager().stage(Ticket(lie), shop.reserve))


def test_a_digest_that_the_store_does_not_have_is_missing(shop: Shop) -> None:
    lost = shop.releases["1.0.0"].model_copy(update={"manifest_digest": digest_of("lost")})
    with pytest.raises(errors.ObjectMissing):
        asyncio.run(shop.stager().stage(Ticket(lost), shop.reserve))


EMPTY = {"size": sealed_size(0), "ptSize": 0}


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"size": 1 << 63}, id="sealed-more-than-any-file"),
        pytest.param({"size": sealed_size(1 << 63), "ptSize": 1 << 63}, id="opened-more-than-any-file"),
        pytest.param({"size": 10**4000}, id="more-than-a-line-of-digits"),
        pytest.param(EMPTY, id="nothing-at-all"),
    ],
)
def test_sizes_that_no_version_can_have_are_its_signers_fault_and_final(shop: Shop, facts: Json) -> None:
    lie = shop.signed("1.0.0", lambda blobs: [blob | facts for blob in blobs])
    with pytest.raises(errors.ManifestInvalid) as raised:
        asyncio.run(shop.stager().stage(Ticket(lie), shop.reserve))
    assert classify(raised.value).is_final
    assert len(raised.value.message) < 200
    assert shop.engine.heard == []


def test_an_engine_without_the_arena_that_it_named_is_no_harm(shop: Shop) -> None:
    async def reserve(request: Reserve) -> EngineState:
        state = await shop.reserve(request)
        (shop.runtime / Slot.A.file_name).unlink()
        return state

    with pytest.raises(errors.EngineUnavailable):
        asyncio.run(shop.stager().stage(Ticket(shop.releases["1.0.0"]), reserve))


def link_to_file(arena: Path, victim: Path) -> None:
    arena.symlink_to(victim)


def second_name(arena: Path, victim: Path) -> None:
    arena.hardlink_to(victim)


def pipe(arena: Path, _victim: Path) -> None:
    os.mkfifo(arena)


def directory(arena: Path, _victim: Path) -> None:
    arena.mkdir()


def listener(arena: Path, _victim: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(arena))


STRANGE = [link_to_file, second_name, pipe, directory, listener]


@pytest.mark.parametrize("put", STRANGE)
def test_something_else_in_the_arenas_place_is_refused_and_never_written(
    shop: Shop, put: Callable[[Path, Path], None]
) -> None:
    victim, before = shop.folder / "agents-own", b"# the agent's own\n" * 40_000
    victim.write_bytes(before)

    async def reserve(request: Reserve) -> EngineState:
        state = await shop.reserve(request)
        arena = shop.runtime / Slot.A.file_name
        arena.unlink()
        put(arena, victim)
        return state

    with pytest.raises(errors.SwapError, match="arena-a is not one that an engine makes") as raised:
        asyncio.run(shop.stager().stage(Ticket(shop.releases["1.0.0"]), reserve))
    assert raised.value.reason is Reason.SWAP_FAILED
    assert victim.read_bytes() == before


def test_an_arena_on_another_volume_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / Slot.A.file_name
    path.write_bytes(b"of a mount over the file")
    elsewhere = list(path.stat())
    elsewhere[stat.ST_DEV] += 1
    monkeypatch.setattr(arena_module.os, "fstat", lambda _descriptor: os.stat_result(elsewhere))
    with pytest.raises(errors.SwapError, match="another volume"), mapped(path, writable=True):
        pass


@pytest.mark.parametrize("put", STRANGE)
def test_something_else_in_the_served_arenas_place_only_costs_the_reuse(
    shop: Shop, put: Callable[[Path, Path], None]
) -> None:
    victim = shop.folder / "agents-own"
    victim.write_bytes(b"x" * 400_000)
    put(shop.runtime / Slot.B.file_name, victim)
    staged = shop.stage("1.1.0", resident=(shop.releases["1.0.0"], Slot.B))
    assert staged.filled.slot is Slot.A
    assert staged.filled.fetched_bytes == shop.stage("1.1.0").filled.fetched_bytes
    assert digest_in(shop.arena(), staged.filled.index)


def test_a_link_in_an_arenas_place_is_not_taken_for_the_file_it_leads_to(tmp_path: Path) -> None:
    arena, moved = tmp_path / Slot.A.file_name, tmp_path / "moved"
    arena.touch()
    first = inode_of(arena)
    arena.rename(moved)
    assert inode_of(arena) == 0
    arena.symlink_to(moved)
    assert inode_of(moved) == first != inode_of(arena)


def test_background_work_and_its_threads_are_nice_and_the_loop_is_not() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen: list[int] = []

    def work() -> None:
        inner = threading.Thread(target=lambda: seen.append(niceness()))
        inner.start()
        inner.join()
        seen.append(niceness())

    before = niceness()
    asyncio.run(in_background(work))
    assert seen == [NICE, NICE]
    assert niceness() == before


def test_background_work_hands_its_failure_on() -> None:
    def fail() -> None:
        raise errors.SealBroken("it does")

    with pytest.raises(errors.SealBroken):
        asyncio.run(in_background(fail))
