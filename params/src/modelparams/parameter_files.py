"""Which files of a directory hold its parameters: one rule, so that every file that is read is one that is hashed."""

from __future__ import annotations

from pathlib import Path

from modelparams.errors import UsageError


def is_parameter_file(name: str) -> bool:
    """Whether a file of this name, directly in the directory, is hashed and may be read."""
    return name == Path(name).name and name.endswith(".safetensors") and not name.startswith(".")


def parameter_files(directory: Path) -> list[Path]:
    """All of them, in name order; hidden ones are left out, as of all files.

    Raises:
        UsageError: there is none.
    """
    files = sorted(path for path in directory.glob("*.safetensors") if is_parameter_file(path.name))
    if not files:
        raise UsageError(f"{directory} has no *.safetensors file", hint="give the directory that save_pretrained wrote")
    return files
