"""ParamLoader: newer and good is applied, anything else leaves the module as it was."""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import mmap
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from builders.modules import Repository, Small, seeded, tensors_of
from cluster.process import wait_until
from modelparams import errors, memory_limit
from modelparams.digest import Digest
from modelparams.store import FileStore
from modelparams.trust import SigningKey
from modelparams.verify import manifest_key
from modelparams_serving import loader as loader_module
from modelparams_serving import module_tensors
from modelparams_serving.loader import ParamLoader
from modelparams_serving.private_arena import PrivateArena

pytestmark = pytest.mark.model
TOKENS = torch.arange(8)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def loader_of(repository: Repository, module: nn.Module, **options: object) -> ParamLoader:
    return ParamLoader(module, repository.store, repository.keys, trust=repository.trust, **options)  # type: ignore[arg-type]


def answer(module: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = module(TOKENS)
    return result


def says_what_a_program_can_do(error: errors.ModelParamsError) -> None:
    """No agent tries again here, and there is no object of Kubernetes to correct."""
    assert not [word for word in ("is tried again", "spec.", "keyRef") if word in str(error)]


def holds(module: nn.Module, other: nn.Module) -> bool:
    mine, wanted = tensors_of(module), tensors_of(other)
    return mine.keys() == wanted.keys() and all(torch.equal(mine[name], wanted[name]) for name in mine)


@pytest.mark.parametrize("in_place", [False, True], ids=["by-pointer", "in-place"])
def test_newer_is_true_not_newer_is_false_and_going_back_is_exact(repository: Repository, in_place: bool) -> None:
    one, two = seeded(1), seeded(2)
    repository.publish("1.0.0", one)
    published = repository.publish("1.1.0", two)
    module = seeded(9)
    loader = loader_of(repository, module, in_place=in_place)
    addresses = [tensor.data_ptr() for tensor in module.parameters()]

    assert loader.live is None
    assert loader.update("1.0.0") is True
    assert torch.equal(answer(module), answer(one))
    assert loader.update("1.0.0") is False
    assert loader.update(published.manifest_digest) is True
    assert torch.equal(answer(module), answer(two))
    assert loader.live
    assert (loader.live.version.text, loader.live.sequence) == ("1.1.0", 2)

    assert loader.rollback().version.text == "1.0.0"
    assert torch.equal(answer(module), answer(one))
    assert loader.update("1.1.0") is False, "a loop that asks for the newest must not undo a rollback"
    assert loader.rollback().version.text == "1.1.0"
    assert holds(module, two)
    assert ([tensor.data_ptr() for tensor in module.parameters()] == addresses) is in_place


def test_tied_weights_stay_tied_and_are_sealed_once(repository: Repository) -> None:
    repository.publish("1.0.0", seeded(1))
    module = seeded(2)
    loader_of(repository, module).update("1.0.0")
    assert module.head.weight is module.embed.weight
    assert torch.equal(module.head.weight, seeded(1).embed.weight)


def test_buffers_that_are_not_saved_are_left_alone(repository: Repository) -> None:
    repository.publish("1.0.0", seeded(1))
    module = seeded(2)
    module.scratch.fill_(5)
    loader_of(repository, module).update("1.0.0")
    assert module.scratch.tolist() == [5, 5, 5]


def flip(repository: Repository) -> None:
    blob = repository.blobs()[-1]
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)


def cut(repository: Repository) -> None:
    blob = repository.blobs()[-1]
    blob.write_bytes(blob.read_bytes()[:-1])


def lose(repository: Repository) -> None:
    repository.blobs()[-1].unlink()


def plain(repository: Repository) -> None:
    repository.blobs()[-1].write_bytes((repository.folder / "v1.1.0" / "model.safetensors").read_bytes())


def lose_key(repository: Repository) -> None:
    (repository.keys / "kek").write_bytes(bytes(32))


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        (flip, errors.BlobDigestMismatch),
        (cut, errors.BlobSizeMismatch),
        (lose, errors.ObjectMissing),
        (plain, errors.BlobSizeMismatch),
        (lose_key, errors.KeyUnavailable),
    ],
)
def test_a_bad_version_raises_and_the_old_one_is_still_live(
    repository: Repository, harm: Callable[[Repository], None], error: type[errors.ModelParamsError]
) -> None:
    one, module = seeded(1), seeded(9)
    repository.publish("1.0.0", one)
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    before = set(repository.blobs())
    repository.publish("1.1.0", seeded(2))
    for old in before:
        old.unlink()  # what the two have in common is copied from memory
    harm(repository)
    with pytest.raises(error) as raised:
        loader.update("1.1.0")
    says_what_a_program_can_do(raised.value)
    assert holds(module, one)
    assert loader.live
    assert loader.live.version.text == "1.0.0"
    assert torch.equal(answer(module), answer(one))


def wider(module: Small) -> dict[str, Tensor]:
    return {**tensors_of(module), "inner.bias": torch.ones(5)}


def missing(module: Small) -> dict[str, Tensor]:
    tensors = tensors_of(module)
    del tensors["inner.bias"]
    return tensors


def extra(module: Small) -> dict[str, Tensor]:
    return {**tensors_of(module), "inner.extra": torch.ones(4)}


def other_dtype(module: Small) -> dict[str, Tensor]:
    return {**tensors_of(module), "inner.bias": torch.ones(4, dtype=torch.float16)}


def untied(module: Small) -> dict[str, Tensor]:
    return {**tensors_of(module), "head.weight": torch.ones(8, 4)}


@pytest.mark.parametrize("change", [wider, missing, extra, other_dtype, untied])
def test_another_layout_is_refused(repository: Repository, change: Callable[[Small], dict[str, Tensor]]) -> None:
    one, module = seeded(1), seeded(9)
    repository.publish("1.0.0", one)
    repository.publish("1.1.0", change(seeded(2)))
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    with pytest.raises(errors.LayoutMismatch):
        loader.update("1.1.0")
    assert holds(module, one)


def test_a_layout_s_difference_is_told_in_one_spelling(repository: Repository) -> None:
    repository.publish("1.0.0", wider(seeded(2)))
    with pytest.raises(errors.LayoutMismatch, match=r"inner\.bias is F32\[5\] instead of F32\[4\]"):
        loader_of(repository, seeded(9)).update("1.0.0")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(repository: Repository, value: float) -> None:
    bad = seeded(2)
    with torch.no_grad():
        bad.inner.weight[1, 2] = value
    repository.publish("1.0.0", bad, check_finite=False)
    module, before = seeded(9), seeded(9)
    with pytest.raises(errors.NotFinite):
        loader_of(repository, module).update("1.0.0")
    assert holds(module, before)


def test_a_signer_whom_nobody_trusts_is_refused(repository: Repository) -> None:
    repository.publish("1.0.0", seeded(1), signers=[SigningKey.generate()])
    with pytest.raises(errors.SignerUnknown):
        loader_of(repository, seeded(2)).update("1.0.0")


def test_another_model_in_the_same_place_is_refused(repository: Repository, tmp_path: Path) -> None:
    repository.publish("1.0.0", seeded(1))
    with pytest.raises(errors.WrongModel) as raised:
        loader_of(repository, seeded(2), model="large").update("1.0.0")
    says_what_a_program_can_do(raised.value)


def test_a_directory_that_is_not_there_is_told_of_and_not_the_version(repository: Repository, tmp_path: Path) -> None:
    loader = ParamLoader(seeded(9), tmp_path / "none", repository.keys, trust=repository.trust)
    for version in ("1.0.0", f"sha256:{'0' * 64}", Digest.of(b"")):
        with pytest.raises(errors.ObjectMissing, match=r"there is no directory .*/none") as raised:
            loader.update(version)
        assert "call update again" in raised.value.next_step


def test_where_no_key_lies_the_directory_is_asked_for_and_no_key_s_name(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for keys, told in (
        (tmp_path / "none", "there is no directory .*/none"),
        (repository.keys / "kek", "there is no directory .*/kek"),
        (tmp_path / "empty", "empty holds no key"),
    ):
        with pytest.raises(errors.UsageError, match=rf"{told}\. Give the directory that holds the key"):
            ParamLoader(seeded(9), repository.store, keys, trust=repository.trust)


def test_of_several_keys_the_one_to_use_is_asked_for(repository: Repository) -> None:
    (repository.keys / "another").write_bytes(os.urandom(32))
    with pytest.raises(errors.UsageError, match=r"keys holds 2 keys\. Give key_ref"):
        loader_of(repository, seeded(9))


def test_a_pinned_digest_that_is_not_there_is_missing(repository: Repository) -> None:
    repository.publish("1.0.0", seeded(1))
    with pytest.raises(errors.ObjectMissing, match="then call update again") as raised:
        loader_of(repository, seeded(2)).update(Digest.of(b"another"))
    says_what_a_program_can_do(raised.value)


@pytest.mark.parametrize(
    "replace",
    [
        lambda module: module.load_state_dict({k: v.clone() for k, v in module.state_dict().items()}, assign=True),
        lambda module: setattr(
            module, "head", nn.Linear(module.head.in_features, module.head.out_features, bias=False)
        ),
    ],
    ids=["load-state-dict", "a-submodule"],
)
def test_a_module_that_got_other_tensors_is_told_of_instead_of_half_updated(
    repository: Repository, replace: Callable[[Any], object]
) -> None:
    repository.publish("1.0.0", seeded(1))
    repository.publish("1.1.0", seeded(2))
    module = seeded(9)
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    replace(module)
    for change in (lambda: loader.update("1.1.0"), loader.rollback):
        with pytest.raises(errors.UsageError, match=r"got another tensor as .*Make a new ParamLoader"):
            change()
    assert loader.live is not None
    assert str(loader.live.version) == "1.0.0"


@pytest.mark.parametrize("version", [None, 1.0, b"1.0.0"])
def test_what_is_no_text_is_no_version_either(repository: Repository, version: Any) -> None:
    with pytest.raises(errors.InvalidVersion, match="is no semantic version"):
        loader_of(repository, seeded(2)).update(version)


@pytest.mark.parametrize("version", ["sha256:xyz", "sha256:", "latest"])
def test_what_is_neither_version_nor_digest_is_told_so(repository: Repository, version: str) -> None:
    with pytest.raises(errors.InvalidVersion):
        loader_of(repository, seeded(2)).update(version)


def test_a_manifest_that_nests_too_deep_is_none(repository: Repository) -> None:
    envelope = json.dumps({"payload": base64.b64encode(b"[" * 100_000).decode()}).encode()
    FileStore(repository.store).put_new(manifest_key(Digest.of(envelope)), envelope)
    with pytest.raises(errors.ManifestInvalid, match="does not name its model"):
        loader_of(repository, seeded(2)).update(Digest.of(envelope))


def test_of_a_manifest_that_is_not_the_pinned_one_nothing_is_parsed(repository: Repository) -> None:
    pinned, other = Digest.of(b"{}"), b"[" + b"{}," * 1000 + b"{}]"
    FileStore(repository.store).put_new(manifest_key(pinned), other)
    with pytest.raises(errors.ManifestDigestMismatch):
        loader_of(repository, seeded(2)).update(pinned)


def test_nobody_is_trusted_by_default(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPARAMS_TRUST", raising=False)
    with pytest.raises(errors.UsageError, match="nobody is trusted"):
        ParamLoader(seeded(1), repository.store, repository.keys)
    monkeypatch.setenv("MODELPARAMS_TRUST", str(repository.trust))
    assert ParamLoader(seeded(1), f"file://{repository.store}", str(repository.keys)).live is None


def test_going_back_without_a_version_to_go_to_says_so(repository: Repository) -> None:
    repository.publish("1.0.0", seeded(1))
    loader = loader_of(repository, seeded(2))
    loader.update("1.0.0")
    with pytest.raises(errors.UsageError, match="no version to go back to"):
        loader.rollback()


@pytest.mark.parametrize("in_place", [False, True], ids=["by-pointer", "in-place"])
def test_going_back_below_the_live_version_s_floor_is_refused_and_it_stays_live(
    repository: Repository, in_place: bool
) -> None:
    two, module = seeded(2), seeded(9)
    repository.publish("1.0.0", seeded(1))
    repository.publish("1.1.0", two, floor=2)
    loader = loader_of(repository, module, in_place=in_place)
    loader.update("1.0.0")
    loader.update("1.1.0")
    with pytest.raises(errors.SequenceTooLow, match=r"small 1\.0\.0 has sequence 1, and 1\.1\.0, .* any below 2"):
        loader.rollback()
    assert holds(module, two)
    assert loader.live
    assert loader.live.version.text == "1.1.0"


def test_going_back_to_the_floor_itself_is_allowed(repository: Repository) -> None:
    one = seeded(1)
    repository.publish("1.0.0", one)
    repository.publish("1.1.0", seeded(2), floor=1)
    module = seeded(9)
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    loader.update("1.1.0")
    assert loader.rollback().version.text == "1.0.0"
    assert holds(module, one)


def test_another_model_of_the_same_name_and_signer_is_not_taken_for_a_newer_version(repository: Repository) -> None:
    one, module = seeded(1), seeded(9)
    repository.publish("1.0.0", one)
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    shutil.rmtree(repository.store)
    repository.publish("1.1.0", seeded(2))
    repository.publish("1.2.0", seeded(3))  # its sequence is higher than the live one's
    with pytest.raises(errors.WrongModel, match="another model of that name than the live one"):
        loader.update("1.2.0")
    assert holds(module, one)


def test_tensors_that_do_not_hash_to_their_index_are_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, module = seeded(1), seeded(9)
    repository.publish("1.0.0", one)
    with monkeypatch.context() as patch:
        patch.setattr("modelparams.plaintext.tensors_digest", lambda *_: "5a" * 32)
        repository.publish("1.1.0", seeded(2))  # sealed and signed as it should be, but for the digest within
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    with pytest.raises(errors.IndexInvalid, match="do not hash to the digest in their index"):
        loader.update("1.1.0")
    assert holds(module, one)


def test_an_update_inside_of_a_step_is_refused_instead_of_waiting_for_itself(repository: Repository) -> None:
    repository.publish("1.0.0", seeded(1))
    loader = loader_of(repository, seeded(2))
    with loader.step(), loader.step(), pytest.raises(errors.UsageError, match="inside of a step"):
        loader.update("1.0.0")
    assert loader.update("1.0.0")


def test_a_fork_of_its_process_is_told_to_make_its_own(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = loader_of(repository, seeded(1))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    for change in (loader.rollback, lambda: loader.update("1.0.0")):
        with pytest.raises(errors.UsageError, match="Make a ParamLoader in each process"):
            change()


def test_no_memory_for_a_version_is_an_error_of_its_own(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.publish("1.0.0", seeded(1))
    loader = loader_of(repository, module := seeded(9))

    def exhausted(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", exhausted)
    with pytest.raises(errors.ArenaExhausted, match="Cannot allocate memory"):
        loader.update("1.0.0")
    monkeypatch.undo()
    assert holds(module, seeded(9))
    assert loader.update("1.0.0")


def test_a_version_beyond_the_container_s_memory_limit_is_refused_before_the_kernel_kills_the_program(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit fails no allocation: it kills who writes to what was given."""
    repository.publish("1.0.0", seeded(1))
    loader = loader_of(repository, module := seeded(9))
    monkeypatch.setattr(memory_limit, "room", lambda: 100)
    monkeypatch.setattr(mmap, "mmap", lambda *_, **__: pytest.fail("the kernel kills it here"))
    with pytest.raises(errors.ArenaExhausted, match="the container's memory limit leaves 100") as raised:
        loader.update("1.0.0")
    says_what_a_program_can_do(raised.value)
    monkeypatch.undo()
    assert holds(module, seeded(9))
    assert loader.update("1.0.0")


def test_an_arena_gives_back_its_old_memory_before_it_asks_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most two are there at any time, also where the newer version is the larger."""
    arena, there = PrivateArena(), list[object]()
    arena.emptied(10)
    assert arena.memory
    old = weakref.ref(arena.memory)
    monkeypatch.setattr(memory_limit, "room", lambda: there.append(old()))
    arena.emptied(20)
    assert there == [None]


def test_an_unchanged_blob_is_copied_and_not_fetched(repository: Repository) -> None:
    one, two = seeded(1), seeded(1)
    with torch.no_grad():
        two.inner.weight.add_(1)
    repository.publish("1.0.0", one)
    module = seeded(9)
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    before = set(repository.blobs())
    assert repository.publish("1.1.0", two).blobs_reused > 0
    for old in before:
        old.unlink()
    assert loader.update("1.1.0")
    assert holds(module, two)


def test_an_exchange_that_is_interrupted_is_undone(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    one = seeded(1)
    repository.publish("1.0.0", one)
    repository.publish("1.1.0", seeded(2))
    module = seeded(9)
    loader = loader_of(repository, module, in_place=True)
    loader.update("1.0.0")
    copy, calls = Tensor.copy_, iter([False, False, True])

    def interrupted(self: Tensor, *values: Tensor) -> Tensor:
        if next(calls, False):
            raise KeyboardInterrupt
        return copy(self, *values)

    monkeypatch.setattr(Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loader.update("1.1.0")
    assert holds(module, one)


@pytest.mark.parametrize("change", ["update", "rollback"])
def test_an_update_that_a_signal_s_handler_asks_for_within_another_one_is_refused(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """It would wait for the very thread that runs the handler."""
    repository.publish("1.0.0", seeded(1))
    repository.publish("1.1.0", seeded(2))
    module, two = seeded(9), seeded(2)
    loader = loader_of(repository, module)
    loader.update("1.0.0")
    fetch, refused = ParamLoader._fetch, list[errors.UsageError]()

    def handled(self: ParamLoader, *given: Any) -> Any:
        with pytest.raises(errors.UsageError, match="within another one of this thread") as raised:
            loader.rollback() if change == "rollback" else loader.update("1.1.0")
        refused.append(raised.value)
        return fetch(self, *given)

    monkeypatch.setattr(ParamLoader, "_fetch", handled)
    done = threading.Thread(target=loader.update, args=("1.1.0",), daemon=True)  # one that hangs shall hang no test
    done.start()
    done.join(30)
    assert refused
    assert holds(module, two)
    assert loader.rollback().version.text == "1.0.0"


class _RaisedInHandler(Exception):
    pass


def signalled(change: Callable[[], object], moment: int) -> BaseException:
    """What ends `change` when a handler raises at that moment: Python calls it as C returns, or a function begins."""
    left, files = iter(range(moment)), (loader_module.__file__, contextlib.__file__)

    def handler(frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename in files and next(left, None) is None:
            raise _RaisedInHandler

    try:
        sys.setprofile(handler)
        change()
    except (_RaisedInHandler, errors.UsageError) as raised:
        return raised
    finally:
        sys.setprofile(None)
    raise AssertionError("it was to be refused at its end")


@pytest.mark.parametrize("change", ["update", "rollback"])
def test_a_signal_s_exception_that_somebody_keeps_lets_others_change_the_module(
    repository: Repository, change: str
) -> None:
    """As a prompt keeps the last one, and with it all that waits to be closed."""
    loader = loader_of(repository, module := nn.Linear(1, 1))
    module.bias = nn.Parameter(torch.zeros(1))  # refuses each change, once it is its turn
    ask = loader.rollback if change == "rollback" else lambda: loader.update("1.0.0")
    for moment in count():
        kept = signalled(ask, moment)
        answers = list[BaseException]()
        other = threading.Thread(target=lambda to=answers: to.append(signalled(ask, sys.maxsize)), daemon=True)
        other.start()
        other.join(10)
        assert [str(answer) for answer in answers] == [str(signalled(ask, sys.maxsize))], moment
        assert "another tensor" in str(answers[0])
        if isinstance(kept, errors.UsageError):
            break
    assert moment > 10


def test_a_module_of_inference_mode_is_written_over_in_it(repository: Repository) -> None:
    """The mode is the thread's own, and an exchange has a thread of its own."""
    one, two = seeded(1), seeded(2)
    repository.publish("1.0.0", one)
    repository.publish("1.1.0", two)
    with torch.inference_mode():
        module = seeded(9)
        loader = loader_of(repository, module, in_place=True)
        loader.update("1.0.0")
        loader.update("1.1.0")
        assert holds(module, two)
        loader.rollback()
        assert holds(module, one)


class OnDevice:
    """A tensor's stand-in that notes what is queued for its device."""

    device = torch.device("cuda", 0)

    def __init__(self, queued: list[str]) -> None:
        self.data, self._queued = self, queued

    def copy_(self, _values: object) -> None:
        self._queued.append("copy")


def test_on_a_device_nothing_is_written_over_before_what_ended_steps_have_queued_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step ends when its kernels are queued, and those of a side stream wait for no copy of another one."""
    queued = list[str]()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: queued.append(f"{device} done"))
    staged = [
        module_tensors.Staged(module_tensors.Place((name,), cast("Tensor", OnDevice(queued))), torch.zeros(1))
        for name in "ab"
    ]
    module_tensors.exchange(staged, staged, in_place=False)
    assert queued == ["cuda:0 done", "copy", "copy", "cuda:0 done"]


@pytest.mark.parametrize("in_place", [False, True], ids=["by-pointer", "in-place"])
def test_an_interrupt_right_after_the_exchange_leaves_module_and_loader_of_one_mind(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, interrupting: Callable[[], None], in_place: bool
) -> None:
    for number in (1, 2, 3):
        repository.publish(f"1.{number}.0", seeded(number))
    module, real = seeded(9), loader_module.exchange
    loader = loader_of(repository, module, in_place=in_place)
    loader.update("1.1.0")

    def then_interrupted(*args: Any, **named: Any) -> None:
        real(*args, **named)
        interrupting()

    monkeypatch.setattr(loader_module, "exchange", then_interrupted)
    for change, number in ((lambda: loader.update("1.2.0"), 2), (loader.rollback, 1)):
        with pytest.raises(KeyboardInterrupt):
            change()
        assert loader.live
        assert (loader.live.version.text, holds(module, seeded(number))) == (f"1.{number}.0", True)
    monkeypatch.setattr(loader_module, "exchange", real)
    assert loader.update("1.3.0")
    assert holds(module, seeded(3))


def test_an_update_that_waits_for_a_step_can_be_interrupted_and_asked_for_again(
    repository: Repository, interrupting: Callable[[], None]
) -> None:
    repository.publish("1.0.0", seeded(1))
    module = seeded(9)
    loader = loader_of(repository, module)
    inside, ends, steps = threading.Event(), threading.Event(), loader._steps

    def step() -> None:
        with loader.step():
            inside.set()
            wait_until(steps._gate.locked, "an update that waits", seconds=10)
            interrupting()
            ends.wait(10)

    running = threading.Thread(target=step)
    running.start()
    inside.wait(10)
    with pytest.raises(KeyboardInterrupt):
        loader.update("1.0.0")
    assert (loader.live, holds(module, seeded(9))) == (None, True)
    ends.set()
    running.join(10)
    assert loader.update("1.0.0")
    assert holds(module, seeded(1))


@pytest.mark.parametrize("in_place", [False, True], ids=["by-pointer", "in-place"])
def test_no_answer_mixes_versions_while_versions_change(repository: Repository, in_place: bool) -> None:
    """Every layer of a version holds one number, so an answer of two versions is none of either."""

    def constant(value: float) -> nn.Sequential:
        layers = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(8)))
        with torch.no_grad():
            for layer in layers:
                layer.weight.copy_(torch.eye(16) * value)
        return layers

    for number, value in enumerate((1.0, 2.0, 3.0, 4.0, 5.0)):
        repository.publish(f"1.{number}.0", tensors_of(constant(value)))
    module = constant(1.0)
    loader = loader_of(repository, module, in_place=in_place)
    good = {value**8 for value in (1.0, 2.0, 3.0, 4.0, 5.0)}
    seen: set[float] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with loader.step(), torch.no_grad():
                seen.update(module(torch.ones(1, 16)).unique().tolist())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            assert loader.update(f"1.{number}.0")
            for _ in range(10):
                if loader.previous:
                    loader.rollback()
                    loader.rollback()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert seen <= good
    assert 5.0**8 in seen or len(seen) > 1


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


@st.composite
def _modules(draw: st.DrawFn) -> Callable[[int], nn.Module]:
    shapes = draw(
        st.lists(
            st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(DTYPES), st.booleans()),
            min_size=1,
            max_size=6,
        )
    )

    def make(seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        module = nn.Module()
        for number, (shape, dtype, is_buffer) in enumerate(shapes):
            values = torch.randint(0, 100, shape, generator=generator).to(dtype)
            inner = module if number % 2 else nn.Module()
            if inner is not module:
                module.add_module(f"part{number}", inner)
            if is_buffer or not dtype.is_floating_point:
                inner.register_buffer(f"t{number}", values)
            else:
                inner.register_parameter(f"t{number}", nn.Parameter(values))
        return module

    return make


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return iter(lambda: tmp_path_factory.mktemp("module"), None)


@given(make=_modules(), in_place=st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_module_takes_exactly_what_was_published(
    folders: Iterator[Path], make: Callable[[int], nn.Module], in_place: bool
) -> None:
    repository = Repository(next(folders) / "r")
    one, two, module = make(1), make(2), make(3)
    repository.publish("1.0.0", one)
    repository.publish("2.0.0", two)
    loader = loader_of(repository, module, in_place=in_place)
    loader.update("1.0.0")
    assert holds(module, one)
    loader.update("2.0.0")
    assert holds(module, two)
    loader.rollback()
    assert holds(module, one)
