"""FLOE, byte for byte: random-access authenticated encryption of blobs.

Source: C2SP ``FLOE.md`` (c2sp.org/FLOE; "Random-Access AEAD for Fast Lightweight Online Encryption",
IACR ePrint 2025/2275) with AES-256-GCM and HKDF-Expand-SHA-384. A sealed blob is

    header   10 bytes parameters | 32 bytes IV | 32 bytes header tag, which commits to key, IV and context
    segment  4 bytes length, 0xFFFFFFFF unless final | 12 bytes IV | ciphertext | 16 bytes tag
             associated data: 8 bytes position | 1 byte 0x01 if final else 0x00

The specification warns about random access: whoever names a segment's position and finality wrongly can be shown
a cut blob. So both come from a size that is *signed* (`segments`), never from the blob's own bytes.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from modelparams.errors import FormatUnsupported, SealBroken
from modelparams.secret import Secret32

IV_SIZE, HEADER_TAG_SIZE, HEADER_SIZE = 32, 32, 74
SEGMENT_OVERHEAD = 32
"""Bytes that a segment has more than its plaintext: length 4, IV 12, tag 16."""

_AEAD_ID, _KDF_ID, _AEAD_KEY_SIZE, _MESSAGE_KEY_SIZE = 0, 0, 32, 48
_NOT_FINAL = b"\xff\xff\xff\xff"
_MAX_SEGMENTS = 1 << 40
_ZEROS = bytes(1 << 20)

Context = bytes
"""FLOE's "associated data": bound to the header and to every segment's key, not stored."""


@dataclass(frozen=True, slots=True)
class FloeParams:
    """`segment_size`: bytes of a sealed segment; a new AES key every 2**`rotation_mask` segments."""

    segment_size: int
    rotation_mask: int = 20

    @property
    def plain_segment_size(self) -> int:
        """Bytes of plaintext in every segment but the last."""
        return self.segment_size - SEGMENT_OVERHEAD

    def encode(self) -> bytes:
        """PARAM_ENCODE of the specification: the first ten bytes of a blob."""
        ids = _AEAD_ID.to_bytes(1, "big") + _KDF_ID.to_bytes(1, "big")
        return ids + self.segment_size.to_bytes(4, "big") + IV_SIZE.to_bytes(4, "big")


FLOE_1M, FLOE_4M = FloeParams(1 << 20), FloeParams(4 << 20)
FORMAT_1M, FORMAT_4M = "floe/gcm256-iv256/1MiB", "floe/gcm256-iv256/4MiB"
_FORMATS = {FORMAT_1M: FLOE_1M, FORMAT_4M: FLOE_4M}


def params_of(blob_format: str) -> FloeParams:
    """Parameters of a manifest's format string: an allow-list, so that no blob chooses its own.

    Raises:
        FormatUnsupported: not on it.
    """
    try:
        return _FORMATS[blob_format]
    except KeyError:
        raise FormatUnsupported(f"blob format {blob_format[:80]!r} is not one of {', '.join(_FORMATS)}") from None


@dataclass(frozen=True, slots=True)
class Segment:
    """Where one segment is, in the sealed blob and in its plaintext; sizes and offsets in bytes."""

    position: int
    is_final: bool
    sealed_offset: int
    sealed_size: int
    plain_offset: int

    @property
    def plain_size(self) -> int:
        """Bytes of its plaintext."""
        return self.sealed_size - SEGMENT_OVERHEAD


def _segment_count(plain_size: int, params: FloeParams) -> int:
    return max(1, -(-plain_size // params.plain_segment_size))


def sealed_size(plain_size: int, params: FloeParams = FLOE_1M) -> int:
    """Bytes of the blob that `plain_size` bytes of plaintext give. A blob always has a final segment, if empty."""
    return HEADER_SIZE + plain_size + SEGMENT_OVERHEAD * _segment_count(plain_size, params)


def plain_size(sealed: int, params: FloeParams = FLOE_1M) -> int:
    """The inverse of `sealed_size`.

    Raises:
        SealBroken: no blob that we seal has that size.
    """
    body = sealed - HEADER_SIZE
    size = body - SEGMENT_OVERHEAD * max(1, -(-body // params.segment_size))
    if size < 0 or sealed_size(size, params) != sealed:
        raise SealBroken(f"no sealed blob is {sealed} bytes long")
    return size


def segments(plain_size: int, params: FloeParams = FLOE_1M) -> Iterator[Segment]:
    """All segments of a blob in order. Take `plain_size` from what is signed."""
    last = _segment_count(plain_size, params) - 1
    for position in range(last + 1):
        plain_offset = position * params.plain_segment_size
        size = min(params.plain_segment_size, plain_size - plain_offset) + SEGMENT_OVERHEAD
        yield Segment(position, position == last, HEADER_SIZE + position * params.segment_size, size, plain_offset)


class _Keys:
    """The message key's descendants: one AES-GCM object for each 2**rotation_mask segments."""

    def __init__(self, key: Secret32, iv: bytes, context: Context, params: FloeParams) -> None:
        self._prefix, self._context, self._mask = params.encode() + iv, context, params.rotation_mask
        self.header_tag = self._derive(key.expose(), b"HEADER_TAG:", HEADER_TAG_SIZE)
        self._message_key = self._derive(key.expose(), b"MESSAGE_KEY:", _MESSAGE_KEY_SIZE)
        self._aeads: dict[int, AESGCM] = {}

    def _derive(self, key: bytes, purpose: bytes, size: int) -> bytes:
        """FLOE_KDF of the specification."""
        return HKDFExpand(SHA384(), size, self._prefix + purpose + self._context).derive(key)

    def aead(self, position: int) -> AESGCM:
        """The AES-GCM of a segment. Threads that race derive the same key, so no lock is needed."""
        masked = position >> self._mask << self._mask
        aead = self._aeads.get(masked)
        if aead is None:
            key = self._derive(self._message_key, b"DEK:" + masked.to_bytes(8, "big"), _AEAD_KEY_SIZE)
            aead = self._aeads[masked] = AESGCM(key)
        return aead


def _associated(position: int, is_final: bool) -> bytes:
    if not 0 <= position < _MAX_SEGMENTS:
        raise ValueError(f"position {position} is none of a segment")
    return position.to_bytes(8, "big") + (b"\x01" if is_final else b"\x00")


class Sealer:
    """Seals the segments of one blob, in any order and from any thread. Seal each position once.

    `random` gives IVs; anything but the operating system's generator is for worked examples.
    """

    def __init__(
        self,
        key: Secret32,
        context: Context,
        params: FloeParams = FLOE_1M,
        *,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        iv = random(IV_SIZE)
        self._keys, self._params, self._random = _Keys(key, iv, context, params), params, random
        self.header = params.encode() + iv + self._keys.header_tag
        """The blob's first 74 bytes."""

    def seal_segment(self, plain: bytes | memoryview, position: int, is_final: bool) -> bytes:
        """Seal one segment: full, unless it is the final one.

        Raises:
            ValueError: its size is not allowed there.
        """
        size, full = len(plain), self._params.plain_segment_size
        if size > full or not (is_final or size == full):
            raise ValueError(f"segment {position} has {size} bytes; {full} are {'the most' if is_final else 'needed'}")
        length = (size + SEGMENT_OVERHEAD).to_bytes(4, "big") if is_final else _NOT_FINAL
        nonce, associated = self._random(12), _associated(position, is_final)
        return length + nonce + self._keys.aead(position).encrypt(nonce, plain, associated)


class Opener:
    """Opens the segments of one blob, in any order and from many threads at once.

    Args:
        header: the blob's first 74 bytes.
        name: what error messages call the blob.

    Raises:
        SealBroken: the header has other parameters than the signed format, or it was made with
            another key or context, or it was changed.
    """

    def __init__(
        self,
        key: Secret32,
        context: Context,
        header: bytes | memoryview,
        params: FloeParams = FLOE_1M,
        *,
        name: str = "blob",
    ) -> None:
        # 1. Refuse anything but the expected parameters before a key is derived from them.
        prefix = params.encode()
        if len(header) != HEADER_SIZE or header[: len(prefix)] != prefix:
            raise SealBroken(f"{name}: its header is none of the signed format")
        # 2. The tag commits to the key: a ciphertext that opens under two keys passes for one of them only.
        self._keys = _Keys(key, bytes(header[len(prefix) : -HEADER_TAG_SIZE]), context, params)
        if not hmac.compare_digest(self._keys.header_tag, header[-HEADER_TAG_SIZE:]):
            raise SealBroken(f"{name}: its header was made with another key or for another place, or was changed")
        self._params, self._name = params, name

    def open_segment_into(self, sealed: memoryview, position: int, is_final: bool, into: memoryview) -> None:
        """Authenticate one segment and write its plaintext to `into`, of exactly its size.

        `position` and `is_final` must follow from the signed size (`segments`). No temporary copy is made.
        The GIL is released meanwhile (cryptography 50), so threads run in parallel.

        Raises:
            SealBroken: changed, moved, or of another size; `into` is then zeroed, since
                `decrypt_into` leaves unauthenticated plaintext there.
        """
        size = len(sealed)
        expected = size.to_bytes(4, "big") if is_final else _NOT_FINAL
        fits = SEGMENT_OVERHEAD <= size <= self._params.segment_size and (is_final or size == self._params.segment_size)
        if not fits or sealed[:4] != expected:
            raise SealBroken(f"{self._name}: segment {position} has a wrong length")
        try:
            self._keys.aead(position).decrypt_into(sealed[4:16], sealed[16:], _associated(position, is_final), into)
        except InvalidTag:
            wipe(into)
            raise SealBroken(f"{self._name}: segment {position} does not authenticate") from None


def seal(plain: memoryview, key: Secret32, context: Context, params: FloeParams = FLOE_1M) -> Iterator[bytes]:
    """A whole blob in pieces, in order: the header, then each segment."""
    sealer = Sealer(key, context, params)
    yield sealer.header
    for segment in segments(len(plain), params):
        start = segment.plain_offset
        yield sealer.seal_segment(plain[start : start + segment.plain_size], segment.position, segment.is_final)


def open_into(
    sealed: memoryview,
    key: Secret32,
    context: Context,
    into: memoryview,
    params: FloeParams = FLOE_1M,
    *,
    name: str = "blob",
) -> None:
    """Open a whole blob that is in memory; `into` has the signed plaintext's size.

    Raises:
        SealBroken: anything about it is wrong; `into` is then zeroed.
    """
    if len(sealed) != sealed_size(len(into), params):
        raise SealBroken(f"{name}: {len(sealed)} bytes are not a sealed blob of {len(into)}")
    opener = Opener(key, context, sealed[:HEADER_SIZE], params, name=name)
    try:
        for segment in segments(len(into), params):
            start, end = segment.plain_offset, segment.plain_offset + segment.plain_size
            part = sealed[segment.sealed_offset : segment.sealed_offset + segment.sealed_size]
            opener.open_segment_into(part, segment.position, segment.is_final, into[start:end])
    except SealBroken:
        wipe(into)
        raise


def wipe(view: memoryview) -> None:
    """Overwrite with zeros without a temporary of the view's size."""
    flat = view.cast("B")
    for start in range(0, len(flat), len(_ZEROS)):
        end = min(start + len(_ZEROS), len(flat))
        flat[start:end] = _ZEROS[: end - start]
