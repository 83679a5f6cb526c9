"""Digests as a type: a string that was checked once and is compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Self

DIGEST_PATTERN = r"sha256:[0-9a-f]{64}"
"""The CRDs hold the same (tests/contract)."""
DIGEST_LENGTH = 71

_FORM = re.compile(DIGEST_PATTERN)


class Digest(str):
    """A SHA-256 digest, written ``sha256:<64 lower-case hex>`` as OCI does.

    A string of its own type, so that the planner's many comparisons and look-ups cost what a string's do.

    Raises:
        ValueError: the text has another form.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the form."""
        if not _FORM.fullmatch(text):
            raise ValueError(f"not a sha256 digest: {text[:80]!r}; write sha256:<64 lower-case hex digits>")
        return super().__new__(cls, text)

    @property
    def text(self) -> str:
        """The same as an ordinary string."""
        return str(self)

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        """Hash `data`."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def from_hex(cls, hexadecimal: str) -> Self:
        """Take 64 bare hex digits, as object names and in-toto subjects hold them."""
        return cls("sha256:" + hexadecimal)

    @property
    def hex(self) -> str:
        """The 64 hex digits without the prefix."""
        return self.text.removeprefix("sha256:")

    @property
    def short(self) -> str:
        """Twelve digits for people; never compare them."""
        return self.hex[:12]

    def matches(self, other: Digest) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self.text, other.text)
