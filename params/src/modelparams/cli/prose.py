"""Docstrings as help: a terminal breaks the lines of a paragraph, nobody those of an example."""

from __future__ import annotations

import inspect

from rich.markup import escape


def prose(text: str) -> str:
    """Help in rich's markup: a paragraph is one line, an indented one is an example and keeps its lines."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(_example(one) if one.startswith("    ") else _paragraph(one) for one in paragraphs)


def _paragraph(text: str) -> str:
    return escape(" ".join(text.split()))


def _example(text: str) -> str:
    # The style is not only for the eye: a line that began with blanks would lose them where no other does.
    return "\n".join(f"[cyan]{escape(line)}[/cyan]" for line in text.splitlines())
