"""The CRDs as data: each kind's schema, flattened to one line of facts a field, from YAML or from a pydantic model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

Schema = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "crds"
PLURALS = ("modelparamassignments", "modelparamrollouts", "modelparamversions")

_FACTS = ("type", "enum", "minLength", "maxLength", "minimum", "maximum", "maxItems", "maxProperties", "format")
_MATCHES = re.compile(r"self\.matches\(r'(.*)'\)")
_KEYS_MATCH = re.compile(r"self\.all\(key, key\.matches\(r'(.*)'\)\)")


@cache
def crd(plural: str) -> Schema:
    """The whole CustomResourceDefinition."""
    document: Schema = yaml.safe_load((FOLDER / f"{plural}.yaml").read_text())
    return document


def schema(plural: str, part: str = "") -> Schema:
    """The schema of the kind, or of its `spec` or `status`."""
    root: Schema = crd(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root["properties"][part] if part else root


def nodes(node: Schema, at: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node below and with `node`, with its path: `steps[].pods`; `*` for any key of a map."""
    yield at, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{at}.{name}".lstrip("."))
    if "items" in node:
        yield from nodes(node["items"], f"{at}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{at}.*")


def pattern(node: Schema) -> str | None:
    """What a string must match: `pattern`, or the CEL rule that says it with a better message."""
    return node.get("pattern") or _in_rules(_MATCHES, node)


def key_pattern(node: Schema) -> str | None:
    """What each key of a map must match: a rule of CEL, since a CRD's schema has no word for it as JSON Schema has."""
    return node.get("propertyNames", {}).get("pattern") or _in_rules(_KEYS_MATCH, node)


def _in_rules(form: re.Pattern[str], node: Schema) -> str | None:
    rules = (form.fullmatch(rule["rule"]) for rule in node.get("x-kubernetes-validations", ()))
    return next((found[1] for found in rules if found), None)


def facts(root: Schema) -> dict[str, Schema]:
    """Path to all that is said about the field there, but words and defaults."""
    required = {
        f"{at}.{name}".lstrip(".") for at, node in nodes(root) for name in node.get("required", ()) if node is not root
    } | set(root.get("required", ()))
    return {at: _facts(node) | {"required": at in required} for at, node in nodes(root) if at}


def _facts(node: Schema) -> Schema:
    if node.get("x-kubernetes-int-or-string"):
        return {"type": "int-or-string", "maxLength": node.get("maxLength")}
    found = {key: node[key] for key in _FACTS if key in node}
    if found.get("format") == "int64":  # of no interest to Python, whose integers have no width
        del found["format"]
    if "enum" in found:
        found["enum"] = sorted(found["enum"])
    patterns = {"pattern": pattern(node), "keyPattern": key_pattern(node)}
    return found | {name: text for name, text in patterns.items() if text}


def of_model(model: type[BaseModel]) -> Schema:
    """A model's schema in the same form: references resolved, null and constants said as the CRD says them."""
    whole = model.model_json_schema(mode="validation", by_alias=True)
    resolved: Schema = _resolved(whole, whole.get("$defs", {}))
    return resolved


def _resolved(node: Any, known: Schema) -> Any:
    if isinstance(node, list):
        return [_resolved(item, known) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _resolved(
            {**known[node["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in node.items() if k != "$ref"}}, known
        )
    if "anyOf" in node:
        (present,) = [option for option in node["anyOf"] if option != {"type": "null"}]
        return _resolved({**{k: v for k, v in node.items() if k != "anyOf"}, **present}, known)
    if "const" in node:
        node = {**node, "enum": [node["const"]]}
    return {key: _resolved(value, known) for key, value in node.items() if key != "$defs"}


def defaulted(node: Schema, value: Any) -> Any:
    """Fill in defaults as the API server does (structural defaulting: a default is itself filled in further)."""
    if isinstance(value, list) and "items" in node:
        return [defaulted(node["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, child in node.get("properties", {}).items():
        if name not in filled and "default" in child:
            filled[name] = child["default"]
        if name in filled:
            filled[name] = defaulted(child, filled[name])
    return filled
