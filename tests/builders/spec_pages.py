"""The parts of the spec pages (crds/*.md) that follow from the CRDs and the errors, so that no page can lag behind.

`PYTHONPATH=tests python -m builders.spec_pages` writes them anew; tests/contract fails while one is old.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from builders import crds
from modelparams import errors
from modelparams.failure import classify

_UNITS = {"maxLength": "characters", "maxItems": "items", "maxProperties": "entries"}

# What only a pod can find out, since it takes a key, an engine or memory.
OF_PODS = (
    errors.KeyUnavailable,
    errors.TrustUnavailable,
    errors.SealBroken,
    errors.KeyMismatch,
    errors.IndexInvalid,
    errors.LayoutMismatch,
    errors.NotFinite,
    errors.ArenaExhausted,
    errors.SlotBusy,
    errors.EngineUnavailable,
    errors.IllegalTransition,
    errors.StaleTerm,
    errors.SwapFailed,
)
# What a check without any key finds out.
OF_VERSIONS = (
    *(kind for kind in errors.every_kind() if issubclass(kind, errors.IntegrityError) and kind not in OF_PODS),
    errors.SourceNotAllowed,
    errors.StoreUnavailable,
    errors.StoreDenied,
    errors.ObjectMissing,
)


def page(plural: str) -> Path:
    """Where the kind's page is."""
    return crds.FOLDER / f"{plural}.md"


def field_table(plural: str, part: str) -> str:
    """Every field of `spec` or `status`. What a release repeats of a version's spec is not repeated here."""
    known = crds.facts(crds.schema(plural, part))
    rows = [
        f"| `{part}.{at}` | {_kind(node, required=known[at]['required'])} | {_said(node)} |"
        for at, node in crds.nodes(crds.schema(plural, part))
        if at and not at.endswith("[]") and not at.endswith(".*") and not _is_repeated(at)
    ]
    return "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *rows])


def reason_table(kinds: Iterable[type[errors.ModelParamsError]]) -> str:
    """Every reason with its meaning, whether it is tried again, and what to do."""
    rows = [
        f"| `{kind.reason}` | {(kind.__doc__ or '').splitlines()[0]} | {_retried(kind)} | {_sentence(kind.hint)} |"
        for kind in kinds
    ]
    return "\n".join(["| reason | meaning | tried again | what to do |", "| --- | --- | --- | --- |", *rows])


BLOCKS: dict[str, Callable[[str], str]] = {
    "spec": lambda plural: field_table(plural, "spec"),
    "status": lambda plural: field_table(plural, "status"),
    "reasons of versions": lambda _: reason_table(OF_VERSIONS),
    "reasons of pods": lambda _: reason_table(OF_PODS),
}


def filled(text: str, plural: str) -> str:
    """The page with its blocks as they should be; a block stands between `<!-- NAME -->` and `<!-- end -->`."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{BLOCKS[found[1]](plural)}\n<!-- end -->"

    return re.sub(r"<!-- (.+?) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def _is_repeated(at: str) -> bool:
    inner = at.split(".", 1)
    return len(inner) == 2 and inner[0] in ("live", "target", "releases[]") and inner[1].split(".")[0] in _RELEASE


_RELEASE = ("modelName", "version", "manifestDigest", "source", "encryption", "versionName", "tensorsDigest")


def _kind(node: crds.Schema, *, required: bool) -> str:
    words = [" or ".join(f"`{value}`" for value in node["enum"])] if "enum" in node else [_type(node)]
    words += [f"at most {node[key]} {unit}" for key, unit in _UNITS.items() if key in node and "enum" not in node]
    if "default" in node and not isinstance(node["default"], dict):
        words.append(f"default `{_shown(node['default'])}`")
    return ", ".join([*words, *(["required"] if required else [])])


def _type(node: crds.Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "number or percent"
    if node["type"] == "array":
        return f"list of {_type(node['items'])}s"
    return "time" if node.get("format") == "date-time" else str(node["type"])


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item["pods"]) for item in value)
    return str(value)


def _said(node: crds.Schema) -> str:
    return " ".join(str(node["description"]).split()).replace("|", "\\|")


def _retried(kind: type[errors.ModelParamsError]) -> str:
    after = classify(kind("x")).retry_after
    return f"after {after.seconds} s" if after is not None else "no"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def main() -> None:
    """Write all pages anew."""
    for plural in crds.PLURALS:
        page(plural).write_text(filled(page(plural).read_text(), plural))


if __name__ == "__main__":
    main()
