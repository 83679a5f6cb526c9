"""Times as people write them at a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from modelparams.errors import UsageError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str, now: datetime, option: str) -> datetime | None:
    """Read a moment; without a zone it is in UTC, as logs are.

    Raises:
        UsageError: it is none.
    """
    if not text:
        return None
    try:
        if ago := re.fullmatch(r"([0-9]{1,9})([smhdw])", text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "write 2026-11-28T06:00:00Z, 2026-11-28, or how long ago, such as 24h"
        raise UsageError(f"{option} {text[:80]!r} is no time", hint=hint) from None
