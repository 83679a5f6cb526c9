"""From an S3 server on the same cores to a live torch module: ours, beside the obvious way."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from safetensors import safe_open
from safetensors.torch import load as load_safetensors
from transformers import AutoModelForCausalLM

from bench.measure import interleaved, median_cpu, median_ratio, median_seconds, timed
from bench.report import Figure
from bench.world import BUCKET, KEY_REF, MODEL, World, altered, world
from modelparams.tensors import is_finite
from modelparams_serving.loader import ParamLoader
from models import smollm2

_ROUNDS = 5


def figures(folder: Path) -> Iterator[Figure]:
    """Both install 269 MB of SmolLM2 into a module whose parameters are compared with the source afterwards."""
    with world(folder) as place:
        file = smollm2.base() / "model.safetensors"
        obvious = _Obvious(place, file)
        ours = _Ours(place, file)
        cases = {"obvious": obvious.update, "ours": ours.update, "reading": obvious.read}
        timings = interleaved(cases, rounds=_ROUNDS)
        obvious.check(file)
        ours.check()
        size = file.stat().st_size
    ratio, speed = median_ratio(timings["obvious"], timings["ours"]), size / median_seconds(timings["ours"]) / 1e6
    beside = f"obvious: download_file, sha256, AES-GCM, safetensors load, load_state_dict; {_ROUNDS} paired rounds"
    yield Figure(
        "S3 → verified, opened, live, 269 MB", ratio, "× the obvious way", ">= 2.5", f"{speed:.0f} MB/s; {beside}"
    )
    cpu, theirs, reading = (median_cpu(timings[name]) / (size / 1e9) for name in ("ours", "obvious", "reading"))
    least = f"in it, at the least: the libraries' part, from RAM, {_primitives():.2f}; reading the bytes, {reading:.2f}"
    yield Figure("the same in CPU time", cpu, "CPU s/GB", "<= 1.2", f"this process alone; {least}")
    how = f"the obvious way {theirs:.2f} CPU s/GB; 3.8 where the reach of 1.2 was set, so 0.32 of it on any processor"
    yield Figure("that beside the obvious way's", cpu / theirs, "×", "<= 0.32", how)


def _primitives() -> float:
    """CPU s/GB of hashing, opening, looking for NaN and hashing again, and nothing else: what this processor allows."""
    piece, rounds, cipher, nonce = 1 << 20, 128, AESGCM(os.urandom(32)), os.urandom(12)
    sealed = cipher.encrypt(nonce, np.ones(piece // 2, "<u2").tobytes(), None)
    arena = memoryview(bytearray(rounds * piece))

    def once() -> None:
        again = blake3()
        for start in range(0, len(arena), piece):
            part = arena[start : start + piece]
            blake3(sealed).digest()
            cipher.decrypt_into(nonce, sealed, None, part)
            assert is_finite(part, "BF16")
        again.update(arena)

    return median_cpu([timed(once) for _ in range(_ROUNDS)]) / (len(arena) / 1e9)


class _Obvious:
    """One object sealed as a whole, and what one writes first."""

    def __init__(self, place: World, file: Path) -> None:
        self._client, self._key, self._nonce = place.server.client(), os.urandom(32), os.urandom(12)
        sealed = AESGCM(self._key).encrypt(self._nonce, file.read_bytes(), None)
        self._digest, self._target = hashlib.sha256(sealed).hexdigest(), place.folder / "downloaded"
        (place.folder / "whole").write_bytes(sealed)
        self._client.upload_file(str(place.folder / "whole"), BUCKET, "whole")
        self.module = AutoModelForCausalLM.from_pretrained(file.parent, dtype="auto")

    def update(self) -> None:
        """Fetch, check, open, load."""
        self._client.download_file(BUCKET, "whole", str(self._target))
        sealed = self._target.read_bytes()
        assert hashlib.sha256(sealed).hexdigest() == self._digest
        tensors = load_safetensors(AESGCM(self._key).decrypt(self._nonce, sealed, None))
        self.module.load_state_dict(tensors, strict=False)

    def read(self) -> None:
        """Take the bytes from the server and do nothing with them: what the kernel and its TCP need."""
        buffer = bytearray(1 << 20)
        body = self._client.get_object(Bucket=BUCKET, Key="whole")["Body"]
        while body.readinto(buffer):
            pass

    def check(self, file: Path) -> None:
        """The module has what the file holds."""
        _compare(self.module, file)


class _Ours:
    """`ParamLoader.update` to a next version each time, in which every tensor differs: nothing can be reused."""

    def __init__(self, place: World, file: Path) -> None:
        self._files = [file, altered(file, place.folder / "altered")]
        self._versions = iter(range(_ROUNDS + 2))
        for number in range(_ROUNDS + 2):
            directory = place.folder / f"v{number}"
            shutil.copytree(file.parent, directory, ignore=shutil.ignore_patterns("*.safetensors"))
            (directory / "model.safetensors").symlink_to(self._files[number % 2])
            place.publish(directory, f"1.{number}.0")
        self.module = AutoModelForCausalLM.from_pretrained(file.parent, dtype="auto")
        self._loader = ParamLoader(
            self.module, place.store, place.keys, trust=place.trust, model=str(MODEL), key_ref=KEY_REF
        )
        self._last = -1
        self.update()  # the arenas are made once and live on

    def update(self) -> None:
        """The next version."""
        self._last = next(self._versions)
        assert self._loader.update(f"1.{self._last}.0")

    def check(self) -> None:
        """The module has what the last version's file holds."""
        _compare(self.module, self._files[self._last % 2])


def _compare(module: torch.nn.Module, file: Path) -> None:
    live = module.state_dict()
    with safe_open(file, "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
            assert torch.equal(live[name], tensors.get_tensor(name)), name
