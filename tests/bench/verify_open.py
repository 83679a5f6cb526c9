"""Verify and open a sealed blob that lies in memory, beside hashing it with SHA-256 alone."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator

from blake3 import blake3

from bench.measure import interleaved, median_ratio
from bench.report import Figure
from modelparams import floe
from modelparams.secret import Secret32

_THREADS, _PLAIN_SIZE, _ROUNDS = 2, 192 << 20, 7
_CONTEXT = b"bench"


def figures() -> Iterator[Figure]:
    """The ratio of speeds: 1 is as fast as SHA-256 alone."""
    key, plain = Secret32.random(), os.urandom(1 << 20) * (_PLAIN_SIZE >> 20)
    sealed = memoryview(b"".join(floe.seal(memoryview(plain), key, _CONTEXT)))
    arenas = [memoryview(bytearray(len(plain))) for _ in range(_THREADS)]

    def verify_and_open(number: int) -> None:
        """As a pull does: hash each segment while it is in the cache, then open it into its place."""
        opener, hasher = floe.Opener(key, _CONTEXT, sealed[: floe.HEADER_SIZE]), blake3(sealed[: floe.HEADER_SIZE])
        for segment in floe.segments(len(plain)):
            part = sealed[segment.sealed_offset : segment.sealed_offset + segment.sealed_size]
            into = arenas[number][segment.plain_offset : segment.plain_offset + segment.plain_size]
            hasher.update(part)
            opener.open_segment_into(part, segment.position, segment.is_final, into)
        hasher.digest()

    def sha256(number: int) -> None:
        hasher = hashlib.sha256()
        for start in range(0, len(sealed), 1 << 20):
            hasher.update(sealed[start : start + (1 << 20)])
        hasher.digest()

    cases = {"ours": lambda: _in_threads(verify_and_open), "sha256": lambda: _in_threads(sha256)}
    timings = interleaved(cases, rounds=_ROUNDS)
    assert all(arena == plain for arena in arenas), "what was opened is not what was sealed"
    yield Figure(
        "verify + open from RAM, 2 threads, beside SHA-256 alone",
        median_ratio(timings["sha256"], timings["ours"]),
        "× its speed",
        ">= 0.8",
        f"{_PLAIN_SIZE >> 20} MiB a thread, BLAKE3 + AES-256-GCM by 1 MiB segments, median of {_ROUNDS} paired rounds",
    )


def _in_threads(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
