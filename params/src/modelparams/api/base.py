"""What the kinds share: camelCase on the wire, snake_case in Python, digests and versions as types."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

from modelparams.digest import Digest
from modelparams.names import ModelName, Version


class Wire(BaseModel):
    """A frozen value with camelCase names in JSON.

    Unknown fields are dropped, as the API server's pruning does, so that an older reader
    gets along with a newer writer.
    """

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", arbitrary_types_allowed=True
    )

    @classmethod
    def parse(cls, data: object) -> Self:
        """Read what JSON decoding gave."""
        return cls.model_validate(data)

    def wire(self) -> dict[str, Any]:
        """The JSON form without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _time(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


WireDigest = Annotated[
    Digest, BeforeValidator(lambda v: Digest(v) if isinstance(v, str) else v), PlainSerializer(str, return_type=str)
]
WireModelName = Annotated[
    ModelName, BeforeValidator(lambda v: ModelName(v) if isinstance(v, str) else v), PlainSerializer(str, return_type=str)
]
WireVersion = Annotated[
    Version, BeforeValidator(lambda v: Version(v) if isinstance(v, str) else v), PlainSerializer(str, return_type=str)
]
WireTime = Annotated[datetime, PlainSerializer(_time, return_type=str)]
"""RFC 3339 in UTC with seconds, the form of metav1.Time."""
