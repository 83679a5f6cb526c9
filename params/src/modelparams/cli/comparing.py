"""What `modelparams diff` does and shows."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from rich.table import Table

from modelparams.cli.asked import Asked
from modelparams.cli.output import Output, console, note, result, table
from modelparams.cli.sealed_versions import shape_of
from modelparams.difference import Difference, Directory, Sealed, Side, changed_files, differences
from modelparams.errors import UsageError
from modelparams.plaintext import read_plain
from modelparams.wording import counted

_ROOM_FOR_SPECS = 80  # columns of a terminal: below, a tensor's name would be cut into pieces of a few letters


def side(text: str, store: str, trust: Path | None, model: str, keys: Path | None, key_ref: str) -> Side:
    """A directory, or a sealed version of the store."""
    if Path(text).is_dir():
        return Directory(read_plain(Path(text)))
    return _sealed(text, store, trust, model, keys, key_ref)


def compare(old: Side, new: Side, limit: int, output: Output) -> bool:
    """Show how two sides differ; False if they do not."""
    found = list(differences(old, new))
    changed = sorted(found, key=lambda one: (one.relative_l2 is not None, -(one.relative_l2 or 0.0)))
    files = changed_files(old, new)
    _show(changed, len(old.specs.keys() | new.specs.keys()), files, limit, output)
    return bool(found or files)


def _sealed(text: str, store: str, trust: Path | None, model: str, keys: Path | None, key_ref: str) -> Sealed:
    if "/" in text:
        raise UsageError(f"there is no directory {text}", hint="give one, or a version of --store")
    if not store or trust is None:
        raise UsageError(
            f"{text!r} is no directory, and as a sealed version it takes its store and the trust policy",
            hint="give a directory, or --store URL and --trust FILE",
        )
    return Sealed(Asked.of(store, text, trust, model).opened(keys, key_ref))


def _show(found: list[Difference], total: int, files: dict[str, str], limit: int, output: Output) -> None:
    named = [{"name": name, "what": what} for name, what in files.items()]
    told = {"tensors": total, "different": [_difference(one) for one in found], "files": named}
    if output is Output.JSON:
        return result(told, "", output)
    if len(found) > limit > 0:
        note(f"{len(found) - limit} more; --limit 0 shows all")
    result(told, _tensors(found, total, limit) if found else f"no tensor differs, of {total}", output)
    return result(told, _files(files) if files else "no small file differs", output)


def _files(files: dict[str, str]) -> Table:
    shown = table(f"{counted(len(files), 'small file')} {_differ(len(files))}", "file", "")
    for name, what in files.items():
        shown.add_row(name, what)
    return shown


def _differ(count: int) -> str:
    return "differs" if count == 1 else "differ"


def _tensors(found: list[Difference], total: int, limit: int) -> Table:
    title = f"{counted(len(found), 'tensor')} {_differ(len(found))}, of {total}"
    is_narrow = console().width < _ROOM_FOR_SPECS
    specs = () if is_narrow else ("dtype", "shape")
    shown = table(title, "tensor", "", *specs, "elements>", "max abs>", "relative>")
    for one in found[: limit or None]:
        spec = one.after or one.before
        assert spec is not None
        numbers = (str(one.elements or ""), _number(one.max_abs), _number(one.relative_l2))
        shown.add_row(one.name, one.what, *(() if is_narrow else (spec.dtype, shape_of(spec))), *numbers)
    return shown


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _difference(one: Difference) -> dict[str, Any]:
    finite = {
        name: value if value is None or math.isfinite(value) else None
        for name, value in (("maxAbs", one.max_abs), ("relativeL2", one.relative_l2))
    }
    specs = {
        name: dataclasses.asdict(spec) if spec else None
        for name, spec in (("before", one.before), ("after", one.after))
    }
    return {"name": one.name, "what": one.what, **specs, "elements": one.elements, **finite}
