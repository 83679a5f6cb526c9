"""A script as Argo CD runs it: Lua 5.1, the libraries base, table and os.date, and nothing else.

As its util/lua/lua.go does for a customization of argocd-cm: `string`, `math` and `io` are not open to it. A script of
its own tree may use them; ours run in both.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lupa import lua51

_CLOSED = ("string", "math", "io", "debug", "coroutine", "os", "package", "dofile", "loadfile", "loadstring", "python")


def run(script: str, subject: object, *, now: datetime | None = None) -> Any:
    """What the script returns for `obj`, as JSON has it.

    Raises:
        lupa.lua51.LuaError: it does not compile, or fails.
    """
    lua = lua51.LuaRuntime(register_eval=False, register_builtins=False, unpack_returned_tuples=True)
    known = lua.globals()
    hide_methods = lua.execute("return function() getmetatable('').__index = nil end")
    hide_methods()
    for name in _CLOSED:
        known[name] = None
    system = lua.table(date=lambda form: (now or datetime.now()).strftime(form.lstrip("!")))  # noqa: DTZ005  # a default
    known.require = {"os": system}.__getitem__
    known.obj = lua.table_from(subject, recursive=True)
    return _plain(lua.execute(script))


def _plain(value: Any) -> Any:
    """A table as a list or a dict; an empty one is a list, as in Argo CD."""
    if lua51.lua_type(value) != "table":
        return value
    keys = list(value.keys())
    if keys == list(range(1, len(keys) + 1)):
        return [_plain(value[key]) for key in keys]
    return {key: _plain(value[key]) for key in keys}


def cleaned(made: Any, before: Any) -> Any:
    """Give back what was an empty object, which Lua knows as an empty list only: cleanReturnedObj of Argo CD."""
    if isinstance(made, dict) and isinstance(before, dict):
        return {key: cleaned(value, before.get(key)) for key, value in made.items()}
    if isinstance(made, list) and isinstance(before, list):
        return [cleaned(*pair) for pair in zip(made, before, strict=False)] + made[len(before) :]
    return {} if made == [] and isinstance(before, dict) else made
