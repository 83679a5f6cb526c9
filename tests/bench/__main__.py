"""`python -m bench [part …]`: print the table and write `build/bench/report.json`; non-zero when a figure is missed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from bench.report import Figure, LeftOut, show, write

_BUILD = Path(__file__).parents[2] / "build" / "bench"
_PARTS = ("verify_open", "planner", "delta", "operator_check", "transfer", "pod", "restart")


def main(arguments: list[str]) -> int:
    """Run all parts, or those named."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what the README claims.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"one of {', '.join(_PARTS)}; default: all, some minutes"
    )
    parts = parser.parse_args(arguments).parts
    if unknown := [part for part in parts if part not in _PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}")
    console = Console(highlight=False)
    figures = list(_figures(parts or list(_PARTS), console))
    write(figures, _BUILD / "report.json")
    show(figures, console)
    return 0 if all(figure.ok for figure in figures) else 1


def _figures(parts: list[str], console: Console) -> Iterator[Figure]:
    for part in parts:
        console.print(f"measuring: {part} …")
        module = importlib.import_module(f"bench.{part}")
        try:
            yield from module.figures(_BUILD / "work") if part != "verify_open" else module.figures()
        except LeftOut as why:
            console.print(f"left out: {part}: {why}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
