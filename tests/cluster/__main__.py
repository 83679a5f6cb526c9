"""python -m cluster up: a control plane (and an S3 server) to play with, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from cluster.api import ApiError
from cluster.control_plane import ControlPlane
from cluster.process import ProcessFailed
from cluster.s3 import Versitygw
from cluster.tools import ToolMissing


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    up = parser.add_subparsers(dest="command", required=True).add_parser("up", help="start a control plane")
    up.add_argument("--owner", type=int, help="return at once; everything ends with this process")
    options = parser.parse_args()
    try:
        if options.owner is None:
            return _until_interrupted()
        plane = ControlPlane(owner=options.owner)
        plane.start()
        print(plane.access.dump())
    except (ToolMissing, ProcessFailed, ApiError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _until_interrupted() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), ControlPlane() as plane, Versitygw() as s3:
        print(f"export KUBECONFIG={plane.kubeconfig}")
        print(f"export AWS_ENDPOINT_URL={s3.endpoint}")
        for name, value in s3.environment.items():
            print(f"export {name}={value}")
        print("# Ctrl-C ends it all", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
