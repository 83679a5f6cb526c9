"""Words of strangers on a terminal: names and messages of objects, stores and manifests are shown, never obeyed."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_WANTED = (ord("\t"), ord("\n"))
# They turn the order of what stands around them, or begin a line.
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_SHOWN = {code: f"\\u{code:04x}" for code in (*_CONTROLS, *_TURNING) if code not in _WANTED}


def harmless(text: str) -> str:
    r"""`text` with what would steer a terminal written out: `\u001b`, which JSON and YAML read as that character."""
    return text.translate(_SHOWN)


class HarmlessConsole(Console):
    """A console that steers its terminal itself, and lets no word do so; nor does a word hold markup."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options, markup=False)  # type: ignore[arg-type]

    def render_str(self, text: str, **options: object) -> Text:
        """See rich: for every string that is printed or in a table."""
        return super().render_str(harmless(text), **options)  # type: ignore[arg-type]

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> list[Segment]:
        """See rich: for everything else, down to each `Text`. One with harmful words loses its colours."""
        if isinstance(renderable, Text) and (shown := harmless(renderable.plain)) != renderable.plain:
            renderable = renderable.blank_copy(shown)
        return list(super().render(renderable, options))
