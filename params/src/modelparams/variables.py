"""Settings that are environment variables, told to people: what `--help` lists, and what is wrong with one."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

PREFIX = "MODELPARAMS_"


def listed(kind: type[BaseModel]) -> str:
    """Each variable with its default, and below it what it means: the field's docstring."""
    return "\n".join(_entry(name, field) for name, field in kind.model_fields.items())


def problems(error: ValidationError) -> str:
    """One line that names each variable that is missing or wrong."""
    return "; ".join(f"{_named(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors())


def _entry(name: str, field: FieldInfo) -> str:
    head = f"  {PREFIX}{name.upper()}{_default(field)}"
    told = inspect.cleandoc(field.description or "")
    return f"{head}\n{textwrap.fill(told, 100, initial_indent=' ' * 6, subsequent_indent=' ' * 6)}" if told else head


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (needed)"
    if field.default_factory is not None:
        return " (default: found at the start)"
    return f"={_plain(field.default)}"


def _plain(value: Any) -> str:
    """As a variable would hold it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _named(place: tuple[int | str, ...]) -> str:
    """The variable; a list's items have no names of their own, and what two variables break together is all of them."""
    return PREFIX + (str(place[0]).upper() if place else "*")
