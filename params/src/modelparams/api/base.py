"""What the kinds share: camelCase on the wire, snake_case in Python, digests and versions as types.

Every bound here is the CRD's as well (`crds/`); tests/contract holds both to each other. Times are the exception:
the API server takes some without a zone or on no calendar, such as the year 0, and here they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from modelparams.digest import DIGEST_LENGTH, DIGEST_PATTERN, Digest
from modelparams.errors import InvalidSpec, UsageError
from modelparams.names import MODEL_MAX, MODEL_PATTERN, VERSION_MAX, VERSION_PATTERN, ModelName, Version
from modelparams.reasons import Reason

MESSAGE_MAX = 1024
"""Characters of a message, as of an Event's note; longer ones are cut."""


def _camel(name: str) -> str:
    return to_camel(name).replace("Uid", "UID")


class Wire(BaseModel):
    """A frozen value with camelCase names in JSON.

    Unknown fields are dropped, as the API server's pruning does, so that an older reader
    gets along with a newer writer.
    """

    model_config = ConfigDict(
        frozen=True, alias_generator=_camel, populate_by_name=True, extra="ignore", arbitrary_types_allowed=True
    )

    @classmethod
    def parse(cls, data: object) -> Self:
        """Read what JSON decoding gave.

        Raises:
            InvalidSpec: it does not follow the schema; the message names each wrong field.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InvalidSpec(f"{cls.__name__} is invalid: {_told(error)}") from error

    def wire(self) -> dict[str, Any]:
        """The JSON form without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def declared(self) -> dict[str, Any]:
        """Only what was given when it was made: for objects of which a user owns the other fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


def _told(error: ValidationError) -> str:
    """Field and fault of each error; never the input, which may hold anything."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in faults
    )


def read_as(kind: Callable[[str], object]) -> BeforeValidator:
    """Make `kind` of a string; its refusal becomes pydantic's, which says where."""

    def read(value: object) -> object:
        try:
            return kind(value) if isinstance(value, str) else value
        except UsageError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(read)


def pattern_schema(pattern: str, length: int) -> FieldInfo:
    """The schema of a string that `matching` checks."""
    described: FieldInfo = Field(max_length=length, json_schema_extra={"pattern": f"^{pattern}$"})
    return described


def matching(pattern: str, say: str) -> AfterValidator:
    """Hold a string to a pattern; the refusal is `say`: nobody learns from a pattern what to write."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(say)
        return value

    return AfterValidator(check)


def _reason(code: str) -> Reason:
    """A code of a newer release reads as an unforeseen one: an old reader must still see the rest."""
    try:
        return Reason(code)
    except ValueError:
        return Reason.INTERNAL_ERROR


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1] + "…"


def utc(value: datetime) -> datetime:
    """A zone may carry the calendar's last hours out of it."""
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("no time in UTC") from error


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def first(limit: int) -> BeforeValidator:
    """Leave out what a list holds above `limit`: a status must never fail for being long."""
    return BeforeValidator(lambda value: value[:limit] if isinstance(value, list | tuple) else value)


def string_schema(pattern: str, length: int) -> WithJsonSchema:
    """The schema of a string that a type of ours checks."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "maxLength": length})


_AS_TEXT = PlainSerializer(str, return_type=str)

WireDigest = Annotated[Digest, read_as(Digest), _AS_TEXT, string_schema(DIGEST_PATTERN, DIGEST_LENGTH)]
WireModelName = Annotated[ModelName, read_as(ModelName), _AS_TEXT, string_schema(MODEL_PATTERN, MODEL_MAX)]
WireVersion = Annotated[Version, read_as(Version), _AS_TEXT, string_schema(VERSION_PATTERN, VERSION_MAX)]
WireReason = Annotated[Reason, read_as(_reason), _AS_TEXT, string_schema("[A-Z][A-Za-z]*", 63)]
WireTime = Annotated[AwareDatetime, AfterValidator(utc), PlainSerializer(_time, return_type=str)]
"""RFC 3339 in UTC with seconds, the form of metav1.Time."""

ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
"""The name of a Kubernetes object."""
Token = Annotated[str, StringConstraints(max_length=63)]
"""A short opaque word that is compared and never read."""
Message = Annotated[str, StringConstraints(max_length=MESSAGE_MAX), read_as(_cut)]
"""For people; cut at `MESSAGE_MAX` characters."""
TensorsDigest = Annotated[str, Field(max_length=64, pattern="^([0-9a-f]{64})?$")]
"""64 hex digits over the tensors that an engine serves from; empty: not told."""
Count = Annotated[int, Field(ge=0)]
