"""Play the main job as a story, write build/demo/report.json, and exit non-zero when a promise was broken.

It plays on a real node where one can run (Linux, root); on the cluster of KUBECONFIG where that and
MODELPARAMS_LOAD_IMAGE, the command by which its nodes get an image, are set; else with processes as pods.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from cluster.api import ApiError
from cluster.helm import HelmFailed
from cluster.kubectl import KubectlFailed
from cluster.node import InstallFailed, Node, NodeCluster, NodeImpossible, debian
from demo.pods import pods
from demo.processes import processes
from demo.report import Report
from demo.scene import ROOT, Cast, NotReached, Scene, keep_logs
from demo.story import Story
from deployed.publisher import CommandFailed
from deployed.target import NoTarget, target
from models import smollm2

_BUILD = ROOT / "build" / "demo"
_PODS = 3


class AlreadyRuns(RuntimeError):
    """Two demos at once would clear each other's files away."""


def main() -> int:
    """Play it, alone, and say in a line what ended it."""
    console = Console(highlight=False, soft_wrap=True)
    options = _options()
    try:
        if not options.processes and "KUBECONFIG" not in os.environ and _takes_a_node(console):
            return _inside_a_node(console)
        with _alone(_BUILD / "lock"):
            return _play(console, _scene(options))
    except (AlreadyRuns, NoTarget) as error:
        console.print(str(error))
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: all that was started has ended")
        return 130


def _options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__, formatter_class=formatter)
    parser.add_argument("--processes", action="store_true", help="play with processes as pods, whatever there is")
    parser.add_argument("--stays", action="store_true", help="take nothing down: the cluster ends with this demo")
    return parser.parse_args()


def _takes_a_node(console: Console) -> bool:
    """Whether a real node can run here; says why not."""
    try:
        debian.require()
    except (NodeImpossible, InstallFailed) as why:
        console.print(f"{why}\nso processes play the pods")
        return False
    return True


def _inside_a_node(console: Console) -> int:
    """Start a node and play again inside of its world, where its pods have addresses."""
    console.print(
        "starting a cluster with a real node: etcd, kube-apiserver, scheduler, kubelet, containerd, kube-proxy"
    )
    with NodeCluster() as cluster:
        return cluster.run([sys.executable, "-m", "demo", "--stays"])


Bring = Callable[[Cast, Callable[[str], None]], contextlib.AbstractContextManager[Scene]]


def _scene(options: argparse.Namespace) -> Bring:
    """How the scene is brought up.

    Raises:
        NoTarget: KUBECONFIG is set and how its nodes get an image is not.
    """
    if options.processes or ("KUBECONFIG" not in os.environ and Node.inside() is None):
        return processes
    cluster = target()
    return lambda cast, say: pods(cluster, cast, say, stays=options.stays)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """The kernel lets go of the lock when this process ends, however it ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRuns(f"a demo runs here already, as process {file.read()}: wait for it, or end it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _play(console: Console, bring: Bring) -> int:
    report, start = Report(pods=_PODS), time.monotonic()
    trouble: list[str] = []
    console.print(
        "three versions of SmolLM2-135M, made once and kept outside the tree: 1.0.0 as its authors published it, "
        "1.1.0 with its last two layers fine-tuned to talk like a pirate, and 1.2.0"
    )
    versions = {"1.0.0": smollm2.base(), "1.1.0": smollm2.pirate(), "1.2.0": smollm2.rome()}
    work = _BUILD / "work"
    shutil.rmtree(work, ignore_errors=True)
    (_BUILD / "report.json").unlink(missing_ok=True)  # an interrupted demo must not leave the one of a run before it
    work.mkdir(parents=True)
    try:
        with bring(Cast(_PODS, versions, work), console.print) as scene:
            try:
                Story(scene, console, report, versions).play()
            finally:
                with contextlib.suppress(
                    ApiError, KubectlFailed, ConnectionError
                ):  # what ended the story is told, not this
                    keep_logs(scene, work)
    except (NotReached, CommandFailed, KubectlFailed, HelmFailed, ApiError, ConnectionError, TimeoutError) as error:
        trouble.append(str(error))
    report.seconds = time.monotonic() - start
    return _conclude(console, report, trouble, _BUILD / "report.json")


def _conclude(console: Console, report: Report, trouble: list[str], file: Path) -> int:
    report.write(file)
    report.show(console)
    trouble += report.broken_promises()
    for line in trouble:
        console.print(f"[red]not as promised:[/] {line}")
    console.print(f"report: {file.relative_to(ROOT)}; logs: {_BUILD.relative_to(ROOT)}/work")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
