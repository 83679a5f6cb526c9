"""Settings that are environment variables, told to people: what `--help` lists, and what is wrong with one."""

from __future__ import annotations

import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

PREFIX = "MODELPARAMS_"

KNOWN = frozenset(
    f"{PREFIX}{name}"
    for name in (
        # modelparams
        *("STORE", "TRUST", "KEYS", "KEY_REF", "MODEL"),
        # modelparams-operator
        *("WATCH_NAMESPACES", "ALLOWED_ENDPOINTS", "LEASE_NAMESPACE", "LEASE_NAME", "IDENTITY", "LEASE_DURATION"),
        *("LEASE_RENEW_DEADLINE", "LEASE_RETRY_PERIOD", "METRICS_HOST", "METRICS_PORT", "VERIFY_VERSIONS"),
        *("VERIFY_WORKERS", "RESYNC", "QUIET_PERIOD", "LOG_LEVEL"),
        # modelparams-agent
        *("POD_NAME", "POD_NAMESPACE", "POD_UID", "RUNTIME_DIR", "STAGING_WORKERS", "ENGINE_GRACE_SECONDS"),
        *("AGENT_METRICS_PORT", "AGENT_HEALTH_HOST", "AGENT_HEALTH_PORT", "AGENT_STUCK_SECONDS"),
        # modelparams-serve
        *("HOST", "PORT", "DEVICE", "THREADS", "NUM_BLOCKS", "PAGE_TOKENS", "MAX_BATCH_TOKENS", "MAX_REQUESTS"),
        *("MAX_BODY_BYTES", "STALLED_SECONDS", "LATE_SECONDS", "GRACE_SECONDS", "QUIET_SECONDS"),
    )
)
"""Of all our programs: they share an environment often enough, and one's variable is no other's mistake."""

# What Kubernetes makes of the name of a Service that begins with "modelparams", in each pod of its namespace.
_LINK = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_ADDR|_PORT|_PROTO)?)")
LINKED = re.compile(r"(tcp|udp|sctp)://")
"""What the value of such a variable begins with that is named as one of ours could be."""


def unknown(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each variable with our prefix that no program of ours reads, and the nearest that one does; "" for none near."""
    for name, value in sorted(environment.items()):
        rest = name.upper().removeprefix(PREFIX)
        if rest == name.upper() or name.upper() in KNOWN or _LINK.fullmatch(rest) or LINKED.match(value):
            continue
        yield name, next(iter(difflib.get_close_matches(name.upper(), sorted(KNOWN), 1, 0.8)), "")


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
