"""What a publish has sent already, so that it goes on after a kill instead of beginning again.

Sealed bytes are random, so what was sent cannot be recognized in the store; it is remembered here, in a file of the
user's cache: one JSON line a blob, written after the store has taken it. It holds no key that opens anything without
the model's key, and it is believed only as far as the store and that key confirm it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from modelparams.framing import length_prefixed
from modelparams.manifest import BlobEntry
from modelparams.names import ModelName, Version
from modelparams.store.contract import ObjectStore

_LINE_LIMIT = 4096
_log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/modelparams`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelparams"


class Journal:
    """The journal of publishing one version to one store."""

    def __init__(self, directory: Path, store: ObjectStore, model: ModelName, version: Version) -> None:
        name = hashlib.sha256(length_prefixed(str(store), str(model), str(version))).hexdigest()
        self._path = directory / f"{name}.jsonl"
        self._has_told = False

    def read(self) -> Mapping[str, BlobEntry]:
        """What was sent, by content id; a line that a kill cut short is passed over."""
        found: dict[str, BlobEntry] = {}
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                entry = BlobEntry.from_json(line, limit=_LINE_LIMIT)
            except ValueError:
                continue
            found[entry.content_id] = entry
        return found

    def add(self, entry: BlobEntry) -> None:
        """Remember a blob that the store has taken. Threads may add at once: a line is one write."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(b"\n" + entry.to_json() + b"\n")  # a line that was cut stays a line of its own
        except OSError as error:
            self._cannot_remember(error)

    def forget(self) -> None:
        """The version is published."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _cannot_remember(self, error: OSError) -> None:
        """A cache is no reason not to publish."""
        if not self._has_told:
            self._has_told = True
            why = error.strerror or type(error).__name__
            _log.warning("%s cannot be written (%s): a publish that is cut off begins anew", self._path.parent, why)
