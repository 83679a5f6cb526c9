"""What is read of a publisher's directory is a regular file: opening a pipe waits, for ever if nobody writes to it."""

from __future__ import annotations

from pathlib import Path

from modelparams.errors import UsageError


def require_regular(path: Path) -> None:
    """Refuse what is there and no file, before it is opened. A link to a file is one, as in Hugging Face's cache.

    Raises:
        UsageError: by its name.
        OSError: it cannot be looked at.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no regular file", hint="put the file itself there")
