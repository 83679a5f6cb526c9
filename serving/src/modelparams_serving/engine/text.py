"""Tokens to text as they come: whole characters only, and cut at the first stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextStream:
    """Push token ids, take text. Holds back what may yet become a stop string."""

    def __init__(self, backend: Any, stop: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend, self._stop = backend, tuple(stop)
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._held = ""
        self.stopped = False
        """True once a stop string was found; nothing more comes out."""

    def push(self, ids: Sequence[int]) -> str:
        """Give the text that is certain after `ids`."""
        for token in ids:
            if not self.stopped:
                self._held += self._decoder.step(self._backend, token) or ""
                self._cut()
        keep = 0 if self.stopped else self._doubtful()
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text

    def flush(self) -> str:
        """Give what was held back; the end has come without a stop string."""
        text, self._held = self._held, ""
        return text

    def _cut(self) -> None:
        found = [at for at in (self._held.find(word) for word in self._stop) if at >= 0]
        if found:
            self._held, self.stopped = self._held[: min(found)], True

    def _doubtful(self) -> int:
        """Length of the longest tail that begins a stop string."""
        longest = max((len(word) for word in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(word.startswith(self._held[-length:]) for word in self._stop):
                return length
        return 0
