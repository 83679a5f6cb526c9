"""How both processes of a pod begin: settings from the environment, a log, and no core file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from modelparams import variables
from modelparams.secret import leave_no_core_file
from modelparams_serving import logs

_BAD_USE = 2
logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Settings(Protocol):
    @property
    def log_level(self) -> str: ...


S = TypeVar("S", bound=_Settings)


def started(program: str, what: str, kind: type[S], arguments: Sequence[str] | None = None) -> S:
    """Read the settings and set the process up; a setting that cannot be ends it with a line that names it.

    Args:
        program: its name.
        what: what it does, for `--help`.
        kind: the settings, whose fields `--help` lists.
        arguments: by default the process's own; there is none but `--help`.
    """
    _parser(program, what, kind).parse_args(arguments)
    try:
        settings = kind()
        logs.set_up(settings.log_level)
        logs.take_in_libraries()
    except ValueError as error:
        problem = variables.problems(error) if isinstance(error, ValidationError) else str(error)
        refuse(program, f"{problem}. {program} --help lists the variables.")
    for name, nearest in variables.unknown(os.environ):
        logger.warning("Variable of no program", variable=name, nearest=nearest)
    leave_no_core_file()
    return settings


def refuse(program: str, why: str) -> NoReturn:
    """End the process as what it was given cannot be used."""
    print(f"{program}: {why}", file=sys.stderr)
    sys.exit(_BAD_USE)


def _parser(program: str, what: str, kind: type[_Settings]) -> argparse.ArgumentParser:
    assert issubclass(kind, BaseModel)
    return argparse.ArgumentParser(
        prog=program,
        description=what,
        epilog=f"variables:\n{variables.listed(kind)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
