"""`python -m modelparams_operator run` and `… explain FILE`: the only place that starts anything."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from modelparams.errors import ModelParamsError, UsageError
from modelparams.variables import listed, unknown
from modelparams_operator import settings
from modelparams_operator.core import explain

_BAD_USE = 2


def main(arguments: list[str] | None = None) -> None:
    """The command `modelparams-operator`."""
    chosen = _parser().parse_args(arguments)
    try:
        code = _explain(chosen.file) if chosen.command == "explain" else _run()
    except ModelParamsError as error:
        print(f"modelparams-operator: {error}", file=sys.stderr)
        code = _BAD_USE
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a thread that still reads from a store that hangs would hold the exit up; nothing of it counts.
    os._exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelparams-operator", description="Roll model parameters into serving pods."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = "operate until SIGTERM; settings are MODELPARAMS_* variables, the API server is the pod's or $KUBECONFIG's"
    commands.add_parser(
        "run",
        help=run,
        description=run,
        epilog=f"variables, durations in seconds:\n{listed(settings.Settings)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told = "print the plan for saved objects and why it is so; changes nothing"
    explained = commands.add_parser("explain", help=told, description=told)
    explained.add_argument(
        "file",
        type=Path,
        help="a snapshot, or the output of: kubectl get mpv,mpr,mpa,pods -o json; '-' reads it from a pipe",
    )
    return parser


def _run() -> int:
    from modelparams_operator.shell import logs, run  # kopf takes a second and 50 MB, which `explain` need not pay

    wanted = settings.load()
    logs.configure(wanted.log_level)
    for name, nearest in unknown(os.environ):
        logs.logger.warning("Variable of no program", variable=name, nearest=nearest)
    return asyncio.run(run.operate(wanted))


def _explain(file: Path) -> int:
    from modelparams.cli.harmless import harmless
    from modelparams_operator.shell.saved import snapshots

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        found = snapshots(text)
    except (OSError, ValueError) as error:
        what = "standard input" if str(file) == "-" else file
        raise UsageError(
            f"{what} cannot be explained: {error}", hint="save one with: kubectl get mpv,mpr,mpa,pods -o json"
        ) from None
    print(harmless("\n\n".join(explain.explain(snapshot) for snapshot in found)) or "no rollout in it")
    return 0


if __name__ == "__main__":
    main()
