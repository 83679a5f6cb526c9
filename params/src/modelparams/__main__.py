"""Where the command line begins: light, so that a Ctrl-C while all the rest is imported is no traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `modelparams`."""
    try:
        from modelparams.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
