"""A process with the whole operator imported that checks one version as it does, and tells its peak memory."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import modelparams_operator.__main__  # noqa: F401 - what the operator's process holds in memory
from modelparams.api.release import S3Source
from modelparams.digest import Digest
from modelparams.manifest import Expectation
from modelparams.names import ModelName, Version
from modelparams.store import open_store
from modelparams.trust import TrustPolicy
from modelparams.verify import verify_release
from modelparams_operator.settings import Settings


def main() -> None:
    """Read a request as JSON from standard input and answer on standard output."""
    request = json.load(sys.stdin)
    workers = Settings(trust=Path(request["trust"])).verify_workers
    expect = Expectation(ModelName(request["model"]), version=Version(request["version"]), now=datetime.now(UTC))
    start = time.perf_counter()
    checked = verify_release(
        open_store(S3Source.parse(request["source"])),
        Digest(request["digest"]),
        trust=TrustPolicy.load(Path(request["trust"])),
        expect=expect,
        workers=workers,
    )
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
    print(json.dumps({"seconds": seconds, "bytes": checked.size_bytes, "peak_rss": peak}))


if __name__ == "__main__":
    main()
