"""A cluster with a real node: real pods from images, in a world of its own. Linux and root.

tools   install and build what a node is made of
up      start one that lives until `down`, or until the shell that asked ends
exec    run a command inside: in the one that is up, or in one of its own that ends with the command
down    end the one that is up
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.api import ApiError
from cluster.node import FOLDER, ImageFailed, InstallFailed, Node, NodeCluster, NodeImpossible, debian
from cluster.process import ProcessFailed
from cluster.state import disk_root, is_owned, sweep
from cluster.tools import ToolMissing
from cluster.tools.build import BuildFailed, build_all
from cluster.tools.recipes import NODE as PROGRAMS

_UP = "node-up"


class NotUp(RuntimeError):
    """There is none, or more than one, that a command could mean."""


_SAID = (NodeImpossible, InstallFailed, NotUp, ToolMissing, BuildFailed, ProcessFailed, ApiError, ImageFailed)
"""Errors whose message is all that a user needs."""


def main() -> int:
    """Run one command."""
    signal.signal(signal.SIGTERM, _interrupt)
    options = _options()
    try:
        return {"tools": _tools, "up": _up, "exec": _exec, "down": _down}[options.command](options)
    except _SAID as error:
        print(error, file=sys.stderr)
        return 1


def _interrupt(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m cluster.node", description=__doc__, formatter_class=formatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tools = commands.add_parser("tools", help="install and build what a node is made of")
    up = commands.add_parser("up", help="start one and leave it running")
    up.add_argument("--owner", type=int, default=os.getppid(), help="it ends with this process (default: the shell)")
    run = commands.add_parser("exec", help="run a command inside")
    run.add_argument("--fresh", action="store_true", help="in one of its own, even if one is up")
    run.add_argument("words", nargs="+", metavar="COMMAND", help="after --")
    for command in (tools, run):
        command.add_argument("--or-skip", action="store_true", help="no failure where no node can run")
    commands.add_parser("down", help="end the one that is up")
    return parser.parse_args()


def _tools(options: argparse.Namespace) -> int:
    if _is_possible(options):
        build_all(PROGRAMS)
    return 0


def _is_possible(options: argparse.Namespace) -> bool:
    """Whether a node can run here; says why not, once, where that is no failure."""
    try:
        debian.require()
    except (NodeImpossible, InstallFailed) as why:
        if not options.or_skip or (isinstance(why, InstallFailed) and "CI" in os.environ):
            raise
        print(f"skipped: {why}", file=sys.stderr)
        return False
    return True


def _up(options: argparse.Namespace) -> int:
    cluster = _started(NodeCluster(owner=options.owner, label=_UP))
    print(f"export {FOLDER}={cluster.files.folder}")
    print("# python -m cluster.node exec -- kubectl get nodes", file=sys.stderr)
    return 0


def _exec(options: argparse.Namespace) -> int:
    if not options.fresh and (running := _running()):
        return _only(running).run(options.words)
    if not _is_possible(options):
        return 0
    cluster = NodeCluster()
    try:
        return _started(cluster).run(options.words)
    finally:
        cluster.close()


def _down(options: argparse.Namespace) -> int:
    sweep(_only(_running()).files.folder)
    return 0


def _started(cluster: NodeCluster) -> NodeCluster:
    begin = time.monotonic()
    cluster.start()
    print(f"# a node is ready after {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
    return cluster


def _running() -> list[Path]:
    """The folders of those that `up` started, or the one that the environment names."""
    if named := os.environ.get(FOLDER):
        return [Path(named)]
    return [note.parent for note in disk_root().glob(f"*/{_UP}-*/ready.json") if is_owned(note.parents[1])]


def _only(folders: Sequence[Path]) -> Node:
    if not folders:
        raise NotUp("no node is up: python -m cluster.node up")
    if len(folders) > 1:
        raise NotUp(f"{len(folders)} nodes are up: set {FOLDER} to one of\n" + "\n".join(map(str, folders)))
    if not Node(folders[0]).files.ready.exists():
        raise NotUp(f"{FOLDER} names {folders[0]}, where no node is up: unset it")
    return Node(folders[0])


if __name__ == "__main__":
    sys.exit(main())
