"""One JSON object a line, with a constant message and fields; the field `reason` is the code that the status shows."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

_EACH: tuple[Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_WRITTEN: tuple[Processor, ...] = (structlog.processors.format_exc_info, structlog.processors.JSONRenderer())


def set_up(level: str) -> None:
    """Log to standard error from `level` on.

    Tracebacks are written without local variables: those may hold keys.

    Raises:
        ValueError: no such level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"{level!r} is no log level")
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_EACH, *_WRITTEN],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def take_in_libraries() -> None:
    """Write what libraries log in the same form, from warnings on; else some would write as they please."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_EACH],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_WRITTEN],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)
