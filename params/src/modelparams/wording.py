"""Words of messages that depend on a number."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 blob`, `2 blobs`, `0 blobs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
