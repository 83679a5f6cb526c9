"""What boto3 made of an answer, which may be whatever the server sent: checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: full names, and where the next begins."""

    keys: list[str]
    is_last: bool
    next: str


def page_of(answer: Mapping[str, Any], top: str) -> Page:
    """What boto3's `list_objects_v2` answered.

    Args:
        answer: its answer.
        top: what each name must begin with.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: it is no list of such names.
    """
    keys = [text_in(entry, "Key") for entry in answer.get("Contents", ())]
    if strange := [key for key in keys if not key.startswith(top)]:
        raise ValueError(f"{len(strange)} keys that were not asked for")
    is_last = not answer["IsTruncated"]  # what does not say so may be no list at all, such as an empty body
    following = text_in(answer, "NextContinuationToken") if "NextContinuationToken" in answer else ""
    return Page(keys, is_last, following)


def text_in(answer: Mapping[str, Any], name: str) -> str:
    """The one text of that name; of several elements boto3 makes a list.

    Raises:
        LookupError, TypeError: there is none.
    """
    if not isinstance(found := answer[name], str):
        raise TypeError(f"{name} is no text")
    return found
