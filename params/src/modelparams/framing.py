"""One way to join byte strings so that no two lists of them give the same bytes."""

from __future__ import annotations

LENGTH_SIZE = 8


def length_prefix(size: int) -> bytes:
    """`size` in eight bytes, big-endian."""
    return size.to_bytes(LENGTH_SIZE, "big")


def length_prefixed(*parts: bytes | str) -> bytes:
    """Each part behind its length; text in UTF-8.

    Without the lengths, ("ab", "c") and ("a", "bc") would be one context, and a key
    derived for the one would serve the other.
    """
    encoded = (part.encode() if isinstance(part, str) else part for part in parts)
    return b"".join(length_prefix(len(part)) + part for part in encoded)
