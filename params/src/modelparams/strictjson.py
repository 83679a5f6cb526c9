"""JSON as signed and sealed documents need it: bounded, in UTF-8, one meaning for every reader.

A duplicate key is the classic way to show two readers two documents; unknown fields are the way to smuggle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NoReturn, Self, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]
"""32 bytes in lower-case hex."""
Hex40 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{80}\z")]
"""40 bytes in lower-case hex: a key under AES key wrap."""

T = TypeVar("T")

MAX_SAFE_INTEGER = (1 << 53) - 1
"""The largest integer that every JSON reader gives back exactly (RFC 8259 §6)."""
MAX_DEPTH = 100
"""Levels of a document that others define: more than any has, few enough for all that copy it or write it again."""


def loads(data: bytes | memoryview, *, limit: int, most: int | None = None) -> Any:
    """Decode one document.

    Args:
        data: its bytes.
        limit: of its bytes.
        most: of the signs that part its values, and of those in its texts. A document that nobody has signed is held to
            it: what becomes of a million values takes a thousand times the bytes, and as long.

    Raises:
        ValueError: more than `limit` or `most`, no JSON, no UTF-8, a duplicate key, NaN or infinity, or nested too
            deep. The message never quotes the document.
    """
    if len(data) > limit:
        raise ValueError(f"{len(data)} bytes are more than the {limit} allowed")
    if most is not None and sum(map(bytes(data).count, (b",", b":", b"[", b"{"))) > most:
        raise ValueError("it holds more values than any has")
    try:
        return json.loads(str(data, "utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at character {error.pos}") from None


def loads_foreign(data: str | bytes) -> Any:
    """Decode a document that others define, such as a model's config.json: as `json.loads` does, but not of any depth.

    Raises:
        ValueError: no JSON, or nested too deep.
    """
    try:
        document = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [part for value in level for part in _parts(value)]
    if level:
        raise ValueError("nested too deep")
    return document


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def dumps(value: object) -> bytes:
    """Encode with sorted keys and without blanks: the same value is always the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class Record(BaseModel):
    """A frozen document or a part of one: camelCase on the wire, no coercion, no unknown field."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        arbitrary_types_allowed=True,
    )

    @classmethod
    def from_json(cls, data: bytes | memoryview, *, limit: int, most: int | None = None) -> Self:
        """Read one document; `limit` and `most` as of `loads`.

        Raises:
            ValueError: what is wrong, and where, without the document's content.
        """
        loads(data, limit=limit, most=most)
        return validated(cls.model_validate_json, bytes(data))

    def to_json(self) -> bytes:
        """The document without absent fields, the same bytes for the same value."""
        return dumps(self.model_dump(mode="json", by_alias=True, exclude_none=True))


def validated(read: Callable[..., T], data: bytes) -> T:
    """Make objects of one document by pydantic's `read`, in one call that lets no other thread run.

    Raises:
        ValueError: what is wrong, and where, without the document's content.
    """
    try:
        return read(data, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ValueError(_first_of(error)) from None


def _first_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:80] for part in first["loc"]) or "document"
    return f"{where}: {first['msg']}"
