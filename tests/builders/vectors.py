"""Public test vectors, read from ``$MODELPARAMS_VECTORS`` or else ``../shared/vectors`` beside the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "vectors"


def vectors(name: str) -> Path:
    """A file or folder of vectors; the test is skipped, and says so, where there is none."""
    path = Path(os.environ.get("MODELPARAMS_VECTORS") or _BESIDE) / name
    if not path.exists():
        pytest.skip(f"public vectors {name} are absent; point MODELPARAMS_VECTORS at them")
    return path


def wycheproof(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each (group, case) of a Wycheproof file."""
    document = json.loads(vectors(f"wycheproof/{name}.json").read_text())
    return [(group, case) for group in document["testGroups"] for case in group["tests"]]
