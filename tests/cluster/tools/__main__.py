"""python -m cluster.tools build [NAME...] | list | where NAME"""

from __future__ import annotations

import argparse
import sys

from cluster.tools import ToolMissing, binary
from cluster.tools.build import BuildFailed, build_all
from cluster.tools.recipes import DEFAULT, RECIPES, cached


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m cluster.tools", description="The programs of the test cluster.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help=f"build what is missing (default: {' '.join(DEFAULT)})")
    build.add_argument("names", nargs="*", metavar="NAME", help=f"any of {' '.join(RECIPES)}, or all")
    commands.add_parser("list", help="say which are built")
    commands.add_parser("where", help="print a program's path").add_argument("name")
    options = parser.parse_args()
    if options.command == "list":
        for recipe in RECIPES.values():
            print(f"{recipe.name:24} {'built' if cached(recipe).exists() else '-':6} {cached(recipe)}")
        return 0
    try:
        if options.command == "where":
            print(binary(options.name))
        else:
            names = list(RECIPES) if options.names == ["all"] else options.names or list(DEFAULT)
            build_all(names)
            print(f"tools: {', '.join(names)} are built")
    except (ToolMissing, BuildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"no recipe for {error}; there are {' '.join(RECIPES)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
