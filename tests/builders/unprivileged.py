"""As a user whom the modes of files bind: root reads and writes them all, and CI often is root."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION_3 = 0x2008_0522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_Words = ctypes.c_uint32 * 6  # effective, permitted, inheritable of capabilities 0 to 31, then of 32 to 63


@contextmanager
def unprivileged() -> Iterator[None]:
    """Take from this thread what lets root pass over modes, for a while. Source: capabilities(7), capget(2)."""
    if os.geteuid() != 0:
        yield
        return
    header, words = (ctypes.c_uint32 * 2)(_VERSION_3, 0), _Words()
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.capget(header, words))
    before = words[0]
    words[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    _done(libc.capset(header, words))
    try:
        yield
    finally:
        words[0] = before
        _done(libc.capset(header, words))


def _done(failed: int) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), "capabilities")
