"""Variables that Kubernetes makes of a Service's name, and that nobody meant for us.

A Service `modelparams` gives each pod of its namespace MODELPARAMS_PORT=tcp://10.0.0.1:80, as Docker's links did,
unless the pod sets `enableServiceLinks: false`. A variable that the pod's own spec sets goes before it, so where such a
value arrives nobody has set ours: its default holds.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator
from pydantic_settings import BaseSettings

from modelparams.variables import LINKED


class PodSettings(BaseSettings):
    """Settings of a program in a pod: what a Service's link says of them is passed over."""

    @model_validator(mode="before")
    @classmethod
    def _pass_over_links(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if not (isinstance(value, str) and LINKED.match(value))}
