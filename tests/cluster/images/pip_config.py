"""Where this machine's pip finds packages, for a build: what its files and variables say of an index, no more."""

from __future__ import annotations

import configparser
import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_KEYS = ("index-url", "extra-index-url", "trusted-host", "timeout")


def own_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """pip's, the most particular last."""
    home = Path(environ.get("HOME", "/nonexistent"))
    named = environ.get("PIP_CONFIG_FILE")
    usual = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", home / ".config" / "pip" / "pip.conf"]
    return [*usual, *([Path(named)] if named else [])]


def text(files: Iterable[Path], environ: Mapping[str, str] = os.environ) -> str:
    """A pip.conf with what a build needs of them; empty if they say nothing of it.

    Variables win over files, as with pip. Addresses may hold passwords: never print it.
    """
    parser = configparser.RawConfigParser()
    parser.read(files)
    found = {key: parser["global"][key] for key in _KEYS if parser.has_option("global", key)}
    found |= {key: value for key in _KEYS if (value := environ.get(f"PIP_{key.replace('-', '_').upper()}"))}
    if not found:
        return ""
    # One value a line is how pip lists several; in an ini file the further ones are indented.
    lines = (f"{key} = " + value.strip().replace("\n", "\n    ") for key, value in found.items())
    return "[global]\n" + "\n".join(lines) + "\n"


@contextlib.contextmanager
def file() -> Iterator[Path | None]:
    """A file of that for a build, which only this user reads; None if there is nothing to say."""
    if not (content := text(own_files())):
        yield None
        return
    with tempfile.NamedTemporaryFile("w", prefix="pip-", suffix=".conf") as stream:  # mode 0600
        stream.write(content)
        stream.flush()
        yield Path(stream.name)
