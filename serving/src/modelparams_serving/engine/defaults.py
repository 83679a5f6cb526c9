"""What a version's generation_config.json chooses for requests that choose nothing, within the bounds of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from modelparams.assets import GENERATION
from modelparams.errors import IndexInvalid
from modelparams_serving.engine.openai_requests import Temperature, TopP


class Defaults(BaseModel):
    """OpenAI's own default of 1 where the file says nothing, or 0, which files say for nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    temperature: Temperature = 1.0
    top_p: TopP = 1.0

    @classmethod
    def read(cls, generation: Mapping[str, Any]) -> Defaults:
        """Read a parsed generation_config.json.

        Raises:
            IndexInvalid: it has a value that no request could ask for.
        """
        try:
            return cls(**{name: generation[name] for name in cls.model_fields if generation.get(name)})
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise IndexInvalid(f"the asset {GENERATION} has a {first['loc'][0]} that no request may have") from error
