"""The hashes of a directory's parameter files, kept in its config.json so that Git reviews them.

"modelparams": {"sha256": {"model.safetensors": "<64 hex digits>"}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelparams.errors import ParamsHashMismatch, UsageError
from modelparams.parameter_files import parameter_files
from modelparams.regular import require_regular
from modelparams.strictjson import loads_foreign
from modelparams.whole_files import replace_file

CONFIG = "config.json"
_KEY = "modelparams"
# What Git leaves in place of a large file that was not fetched (git-lfs, docs/spec.md).
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def write_hashes(directory: Path) -> dict[str, str]:
    """Hash every `*.safetensors` of `directory`, write the hashes into its config.json, and return them by file name.

    Raises:
        UsageError: there is no config.json, or no such file, or it is a Git LFS pointer; or one of them
            cannot be read or written.
    """
    config, hashes = _config(directory), hash_files(directory)
    config[_KEY] = {**_section(config), "sha256": hashes}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    path = directory / CONFIG
    try:
        replace_file(path, text)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror})", hint="make it writable, or make room, and run it again"
        ) from error
    return hashes


def check_hashes(directory: Path) -> dict[str, str]:
    """Compare every `*.safetensors` of `directory` with its config.json, and return the hashes by file name.

    Raises:
        ParamsHashMismatch: a file differs, is missing, or is not listed.
        UsageError: as `write_hashes`.
    """
    promised = _section(_config(directory)).get("sha256")
    where = directory / CONFIG
    if not isinstance(promised, Mapping):
        raise ParamsHashMismatch(f"{where} holds no hashes", hint=f"run 'modelparams hash {directory}', and review it")
    found = hash_files(directory)
    for name in sorted(found.keys() | promised.keys()):
        if name not in found:
            raise ParamsHashMismatch(f"{directory / name} is missing but {CONFIG} lists it")
        if name not in promised:
            raise ParamsHashMismatch(f"{directory / name} is not listed in {CONFIG}")
        if found[name] != promised[name]:
            raise ParamsHashMismatch(f"{directory / name} has SHA-256 {found[name]}, {CONFIG} says {promised[name]}")
    return found


def hash_files(directory: Path) -> dict[str, str]:
    """SHA-256 in hex of every visible `*.safetensors` directly in `directory`, by file name in order."""
    return {path.name: _hash(path) for path in parameter_files(directory)}


def _hash(path: Path) -> str:
    try:
        require_regular(path)
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise UsageError(f"{path} is a Git LFS pointer, not the parameters", hint="run 'git lfs pull' first")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", hint="restore the file or its rights") from error


def _config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG
    try:
        require_regular(path)
        config = loads_foreign(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror})", hint="give the directory that holds it"
        ) from error
    except ValueError as error:
        raise UsageError(f"{path} is no JSON", hint="restore the file that save_pretrained wrote") from error
    if not isinstance(config, dict):
        raise UsageError(f"{path} is no JSON object", hint="restore the file that save_pretrained wrote")
    return config


def _section(config: Mapping[str, Any]) -> dict[str, Any]:
    section = config.get(_KEY)
    return dict(section) if isinstance(section, dict) else {}
