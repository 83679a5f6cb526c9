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
from modelparams.parameter_files import ParameterFile, map_files, opened, parameter_files
from modelparams.progress import NoProgress, Progress
from modelparams.regular import require_regular
from modelparams.strictjson import loads_foreign
from modelparams.whole_files import replace_file

CONFIG = "config.json"
_KEY = "modelparams"
_TASK, _PIECE = "hash", 1 << 20


def write_hashes(directory: Path, progress: Progress | None = None) -> dict[str, str]:
    """Hash every `*.safetensors` of `directory`, write the hashes into its config.json, and return them by file name.

    Raises:
        UsageError: there is no config.json, or no such file, or it is a Git LFS pointer; or one of them
            cannot be read or written.
    """
    config, hashes = _config(directory), hash_files(directory, progress)
    config[_KEY] = {**_section(config), "sha256": hashes}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    path = directory / CONFIG
    try:
        replace_file(path, text)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror})", hint="make it writable, or make room, and run it again"
        ) from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{path} has a lone surrogate in a text", hint="correct it there, and run it again") from error
    return hashes


def check_hashes(directory: Path, progress: Progress | None = None) -> dict[str, str]:
    """Compare every `*.safetensors` of `directory` with its config.json, and return the hashes by file name.

    Raises:
        ParamsHashMismatch: a file differs, is missing, or is not listed.
        UsageError: as `write_hashes`.
    """
    promised = _promised(directory)
    found = hash_files(directory, progress)
    _compare(directory, promised, found)
    return found


def open_checked(directory: Path) -> Mapping[str, ParameterFile]:
    """The same for who goes on to read the files: by file name, open, with the very bytes that were compared.

    Raises:
        ParamsHashMismatch, UsageError: as `check_hashes`.
    """
    promised = _promised(directory)
    files = map_files(directory)
    _compare(directory, promised, {name: file.sha256 for name, file in files.items()})
    return files


def hash_files(directory: Path, progress: Progress | None = None) -> dict[str, str]:
    """SHA-256 in hex of every visible `*.safetensors` directly in `directory`, by file name in order."""
    files = parameter_files(directory)
    if not files:
        raise UsageError(f"{directory} has no *.safetensors file", hint="give the directory that save_pretrained wrote")
    progress = progress or NoProgress()
    progress.start(_TASK, sum(path.stat().st_size for path in files if path.is_file()))
    return {path.name: _hash(path, progress) for path in files}


def _hash(path: Path, progress: Progress) -> str:
    sha256, piece = hashlib.sha256(), memoryview(bytearray(_PIECE))
    with opened(path) as file:
        while count := file.readinto(piece):
            sha256.update(piece[:count])
            progress.advance(_TASK, count)
    return sha256.hexdigest()


def without_hashes(config: bytes) -> bytes:
    """A config.json less what `write_hashes` put there, to be compared; one that is no JSON as it is."""
    try:
        parsed = loads_foreign(config)
        return json.dumps({key: value for key, value in parsed.items() if key != _KEY}).encode()
    except (ValueError, AttributeError):
        return config


def _promised(directory: Path) -> Mapping[str, object]:
    promised = _section(_config(directory)).get("sha256")
    if not isinstance(promised, Mapping):
        raise ParamsHashMismatch(
            f"{directory / CONFIG} holds no hashes", hint=f"run 'modelparams hash {directory}', and review it"
        )
    return promised


def _compare(directory: Path, promised: Mapping[str, object], found: Mapping[str, str]) -> None:
    for name in sorted(found.keys() | promised.keys()):
        if name not in found:
            raise ParamsHashMismatch(f"{directory / name} is missing but {CONFIG} lists it")
        if name not in promised:
            raise ParamsHashMismatch(f"{directory / name} is not listed in {CONFIG}")
        if found[name] != promised[name]:
            raise ParamsHashMismatch(f"{directory / name} has SHA-256 {found[name]}, {CONFIG} says {promised[name]}")


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
