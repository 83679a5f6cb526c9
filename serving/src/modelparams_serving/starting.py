"""How both processes of a pod begin: settings from the environment, a log, and no core file."""

from __future__ import annotations

import resource
import sys
from typing import Protocol, TypeVar

from pydantic import ValidationError

from modelparams_serving import logs


class _Settings(Protocol):
    @property
    def log_level(self) -> str: ...


S = TypeVar("S", bound=_Settings)


def started(program: str, kind: type[S]) -> S:
    """Read the settings and set the process up; a setting that cannot be ends it with a line that names it."""
    try:
        settings = kind()
        logs.set_up(settings.log_level)
    except ValueError as error:
        sys.exit(f"{program}: {_what_is_wrong(error)}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold keys, parameters, prompts
    return settings


def _what_is_wrong(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"MODELPARAMS_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
