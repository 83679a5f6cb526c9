"""A version's small files as an engine reads them: one rule, for who publishes them and for who serves them.

Only data is read: no code travels with a version, and `auto_map` entries that would load some are not followed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelparams.errors import IndexInvalid
from modelparams.strictjson import MAX_DEPTH, loads_foreign

TOKENIZER, CONFIG, GENERATION = "tokenizer.json", "config.json", "generation_config.json"
TEMPLATE = "chat_template.jinja"
_UNBOUNDED = "time_step_limit"
"""The one value of config.json that may be infinite: state space models have no longest step unless they say so."""
_TAG = "__float__"
"""How transformers writes a number that JSON has not: {"__float__": "Infinity"}."""
_KINDS: dict[type, str] = {dict: "object", list: "list"}


@dataclass(frozen=True, slots=True)
class Assets:
    """The parsed small files of one version."""

    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer: bytes
    """tokenizer.json, empty when the version has none."""
    tokenizer_config: Mapping[str, Any]
    chat_template: str
    pooling: Mapping[str, Any]
    """`1_Pooling/config.json` of a sentence-embedding model, empty otherwise."""
    normalize: bool
    """Whether embeddings are to have length 1."""
    max_sequence: int | None
    """What a sentence-embedding model says it was made for, in tokens."""


def parse_assets(files: Mapping[str, bytes]) -> Assets:
    """Read what `save_pretrained` and sentence-transformers write; `files` by their relative names.

    Raises:
        IndexInvalid: config.json is missing or has NaN or half a character in it, or a file is no JSON object or text.
    """
    if CONFIG not in files:
        raise IndexInvalid("the version carries no config.json among its assets")
    tokenizer_config = _object(files, "tokenizer_config.json")
    modules = _modules(files)
    return Assets(
        config=_config(files),
        generation=_object(files, GENERATION),
        tokenizer=files.get(TOKENIZER, b""),
        tokenizer_config=tokenizer_config,
        chat_template=_chat_template(files, tokenizer_config),
        pooling=_object(files, "1_Pooling/config.json"),
        normalize=not modules or any(module.endswith("Normalize") for module in modules),
        max_sequence=_object(files, "sentence_bert_config.json").get("max_seq_length"),
    )


def check_assets(files: Mapping[str, bytes]) -> None:
    """Refuse what no engine takes. Beside `parse_assets` the tokenizer, which engines leave to a library.

    Raises:
        IndexInvalid: names the file.
    """
    parse_assets(files)
    _object(files, TOKENIZER)


def _config(files: Mapping[str, bytes]) -> Mapping[str, Any]:
    config = _object(files, CONFIG)
    if (name := _not_finite(config, CONFIG)) is not None:
        raise IndexInvalid(
            f"the asset {CONFIG} says that {name[:80]} is NaN or infinite, and nothing can be computed with that",
            hint="correct it there, and publish again",
        )
    try:
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise IndexInvalid(
            f"the asset {CONFIG} has a lone surrogate in a text, such as a label, and no answer can carry that",
            hint="correct it there, and publish again",
        ) from error
    return config


def _not_finite(value: Any, name: str) -> str | None:
    """The nearest key of the first number that is none."""
    if isinstance(value, dict) and value.keys() == {_TAG}:
        value = float(value[_TAG]) if value[_TAG] in ("NaN", "Infinity", "-Infinity") else value[_TAG]
    if isinstance(value, dict):
        return next((found for key, one in value.items() if (found := _not_finite(one, key)) is not None), None)
    if isinstance(value, list):
        return next((found for one in value if (found := _not_finite(one, name)) is not None), None)
    is_sound = not isinstance(value, float) or math.isfinite(value) or (name == _UNBOUNDED and not math.isnan(value))
    return None if is_sound else name


def _object(files: Mapping[str, bytes], name: str) -> Mapping[str, Any]:
    parsed = _json(files, name, dict, {})
    assert isinstance(parsed, dict)
    return parsed


def _modules(files: Mapping[str, bytes]) -> list[str]:
    listed = _json(files, "modules.json", list, [])
    return [str(module.get("type", "")) for module in listed if isinstance(module, dict)]


def _json(files: Mapping[str, bytes], name: str, kind: type, absent: Any) -> Any:
    try:
        parsed = loads_foreign(_text(files, name)) if name in files else absent
    except ValueError as error:
        raise IndexInvalid(f"the asset {name} is no JSON, or nested deeper than {MAX_DEPTH} levels") from error
    if not isinstance(parsed, kind):
        raise IndexInvalid(f"the asset {name} is no JSON {_KINDS[kind]}")
    return parsed


def _chat_template(files: Mapping[str, bytes], tokenizer_config: Mapping[str, Any]) -> str:
    if TEMPLATE in files:
        return _text(files, TEMPLATE)
    inline = tokenizer_config.get("chat_template")
    return inline if isinstance(inline, str) else ""


def _text(files: Mapping[str, bytes], name: str) -> str:
    try:
        return files[name].decode()
    except UnicodeDecodeError as error:
        raise IndexInvalid(f"the asset {name} is not UTF-8") from error
