"""The commands and code that our pages show, taken out of them as they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COMMANDS = ("PYTHONPATH=", "kubectl ", "make ", "modelparams", "python ")
_NO_PAGES = {"build", "dist", "shared"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced or indented block.

    Attributes:
        page: relative to the tree.
        heading: the nearest one above, without its marks.
        language: of the fence; empty without one.
        text: whole lines, without indentation.
    """

    page: str
    heading: str
    language: str
    text: str

    @property
    def is_for_use(self) -> bool:
        """True of what a reader would type or paste."""
        if self.language:
            return self.language in ("sh", "bash", "shell", "python")
        return self.text.startswith(_COMMANDS)

    @property
    def place(self) -> tuple[str, str, str]:
        """Where it stands: page, heading, language."""
        return self.page, self.heading, self.language


def for_use() -> list[Block]:
    """What all pages show for use."""
    return [block for page in pages() for block in blocks(page) if block.is_for_use]


def pages() -> list[Path]:
    """Every page of the project."""
    rooms = [p for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in _NO_PAGES]
    return sorted([*ROOT.glob("*.md"), *(page for room in rooms for page in room.rglob("*.md"))])


def the_block(page: str, heading: str, language: str) -> str:
    """The text of the only block for use of that language below a heading.

    Raises:
        AssertionError: there is none, or there are several.
    """
    found = [b for b in blocks(ROOT / page) if b.is_for_use and b.place == (page, heading, language)]
    assert len(found) == 1, f"{page}, {heading}: {len(found)} blocks of {language or 'no language'}"
    return found[0].text


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page, in order."""
    name, heading, lines = str(page.relative_to(ROOT)), "", iter([*page.read_text().splitlines(), ""])
    before = ""
    for line in lines:
        if line.startswith("```"):
            yield Block(name, heading, line[3:], _joined(_until_the_fence(lines)))
        elif line.startswith("    ") and not before:
            block, line = _while_indented(line, lines)
            yield Block(name, heading, "", _joined(block))
        if line.startswith("#"):
            heading = line.lstrip("# ")
        before = line


def _until_the_fence(lines: Iterator[str]) -> list[str]:
    found = list[str]()
    for line in lines:
        if line == "```":
            break
        found.append(line)
    return found


def _while_indented(first: str, lines: Iterator[str]) -> tuple[list[str], str]:
    """The block, and the line after it."""
    found = [first]
    for line in lines:
        if not line.startswith("    "):
            return found, line
        found.append(line)
    return found, ""


def _joined(lines: list[str]) -> str:
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "".join(f"{line[indent:]}\n" for line in lines)
