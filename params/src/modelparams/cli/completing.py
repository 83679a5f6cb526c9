"""`kubectl_complete-modelparams`: kubectl calls it to complete `kubectl modelparams …`, in whatever shell."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys

from modelparams.cli import build

_OR_FILES = ":0"  # cobra's directive: where nothing is offered, the shell offers files


def main() -> None:
    """Print what may follow the arguments, the last of which is unfinished, as cobra has it."""
    words = ["modelparams", *sys.argv[1:]]
    # Typer answers as for bash, whose words reach it by variables.
    os.environ |= {
        "_MODELPARAMS_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    with contextlib.redirect_stdout(io.StringIO()) as offered, contextlib.suppress(SystemExit):
        build()(prog_name="modelparams")
    print(*offered.getvalue().split(), _OR_FILES, sep="\n")
