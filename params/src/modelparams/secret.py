"""Key bytes that do not leak by accident: not by repr, str, pickle, copy, comparison, exception or core file."""

from __future__ import annotations

import hmac
import os
import sys
from typing import NoReturn, Self

SECRET_SIZE = 32


class Secret32:
    """32 secret bytes. Only `expose` gives them out, so that a reader finds every use by its name.

    Python cannot promise to erase them from memory; a program that holds keys begins with `leave_no_core_file`.

    Raises:
        ValueError: another number of bytes; the bytes are not in the message.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_SIZE:
            raise ValueError(f"a key has {SECRET_SIZE} bytes, not {len(secret)}")
        self._secret = bytes(secret)

    @classmethod
    def random(cls) -> Self:
        """A fresh key from the operating system's generator."""
        return cls(os.urandom(SECRET_SIZE))

    def expose(self) -> bytes:
        """The bytes, for a cryptographic call and nothing else."""
        return self._secret

    def __repr__(self) -> str:
        return "<32 secret bytes>"

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret32):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    __hash__ = None  # type: ignore[assignment]  # a hash would be an oracle, and a key is no key of a dict

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is never pickled or copied")


def leave_no_core_file() -> None:
    """Have this process, and what it starts, leave none when it crashes: it would hold keys, parameters, prompts."""
    if sys.platform != "win32":  # which has neither
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
