"""The chart's values as tables, of values.schema.json (types, meanings) and values.yaml (order, defaults, comments)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "modelparams"
_FIRST = "Trust, namespaces and stores"
_BANNER = "# ---- "


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of values.yaml.

    Attributes:
        path: dotted.
        line: where it stands, from 0.
        comment: above it or behind it; empty without one.
        value: its default.
    """

    path: str
    line: int
    comment: str
    value: Any


def tables() -> str:
    """A heading and a table for each part of values.yaml."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    starts = [(-1, _FIRST), *((at, line.removeprefix(_BANNER)) for at, line in enumerate(lines) if _BANNER in line)]
    ends = [at for at, _ in starts[1:]] + [len(lines)]
    every = list(entries())
    parts = [
        _table(heading, [entry for entry in every if start < entry.line < end])
        for (start, heading), end in zip(starts, ends, strict=True)
    ]
    return "\n\n".join(parts)


def entries() -> Iterator[Entry]:
    """Every key, those of free-form objects left out."""
    text = (CHART / "values.yaml").read_text()
    yield from _entries(yaml.compose(text, yaml.SafeLoader), text.splitlines(), "")


def schema() -> dict[str, Any]:
    """values.schema.json."""
    whole: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return whole


def schema_of(path: str) -> dict[str, Any]:
    """What it says of a path."""
    node = schema()
    for name in path.split("."):
        node = node["properties"][name]
    return node


def _entries(node: yaml.Node, lines: list[str], above: str) -> Iterator[Entry]:
    for key, value in node.value:
        path = f"{above}.{key.value}" if above else key.value
        default = yaml.SafeLoader.construct_document(yaml.SafeLoader(""), value)
        yield Entry(path, key.start_mark.line, _comment(key, value, lines), default)
        if "properties" in schema_of(path):
            yield from _entries(value, lines, path)


def _comment(key: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    at, indent = key.start_mark.line, " " * key.start_mark.column
    last = value.end_mark if value.end_mark.line == at else key.end_mark
    behind = re.search(r"\s#\s*(.+)$", lines[at][last.column :])
    above = list[str]()
    while at and lines[at - 1].startswith(f"{indent}# ") and not lines[at - 1].startswith(_BANNER):
        at -= 1
        above.insert(0, lines[at].removeprefix(f"{indent}# "))
    return " ".join([*above, *([behind[1]] if behind else [])])


def _table(heading: str, part: list[Entry]) -> str:
    rows = [row for entry in part for row in _rows(entry)]
    return "\n".join([f"## {heading}", "", "| value | type | default | meaning |", "| --- | --- | --- | --- |", *rows])


def _rows(entry: Entry) -> Iterator[str]:
    schema = schema_of(entry.path)
    said = entry.comment or schema["description"]
    if "properties" in schema:
        yield f"| **`{entry.path}`** | | | {_sentence(said)} |"
        return
    yield f"| `{entry.path}` | {_type(schema)} | {_code(entry.value)} | {_sentence(said)} |"
    for name, item in schema.get("items", {}).get("properties", {}).items():
        if "description" in item:
            yield f"| `{entry.path}[].{name}` | {_type(item)} | | {_sentence(item['description'])} |"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}s"
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['type']}, {schema['minimum']} to {schema['maximum']}"
    return str(schema["type"])


def _code(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _sentence(text: str) -> str:
    """As a cell of a table; what begins with a literal, such as `auto: …`, keeps its small letter."""
    text = text.replace("|", "\\|").replace("<", "&lt;").rstrip(".")
    first = text.split(" ")[0]
    return f"{text if first.endswith((':', ',')) or '…' in first else text[0].upper() + text[1:]}."
