"""The operator's check of a whole version without keys, beside `sha256sum` on as many cores."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.report import Figure
from bench.world import MODEL, bf16, world, write_model

_GIGABYTES, _ROUNDS = 2, 3
_TENSOR = (4096, 8192)  # 64 MiB of bfloat16


def figures(folder: Path) -> Iterator[Figure]:
    """Speed, from a real S3 server on the same cores, and the operator process's peak memory."""
    count = _GIGABYTES * 10**9 // (2 * _TENSOR[0] * _TENSOR[1]) + 1
    with world(folder) as place:
        block = bf16(*_TENSOR, seed=1)
        tensors = {f"model.layers.{n}.mlp.weight": block ^ (n << 2) for n in range(count)}
        file = write_model(folder / "v1", tensors) / "model.safetensors"
        published = place.publish(file.parent, "1.0.0")
        size, cores = file.stat().st_size, os.cpu_count() or 1
        request = json.dumps(
            {
                "source": place.source.wire(),
                "digest": str(published.manifest_digest),
                "trust": str(place.trust_file),
                "model": str(MODEL),
                "version": "1.0.0",
            }
        )
        ratios, peaks = [], []
        for number in range(_ROUNDS + 1):
            start = time.perf_counter()
            subprocess.run(["sha256sum", str(file)], check=True, stdout=subprocess.DEVNULL)
            obvious = size * cores / (time.perf_counter() - start)
            ours = _check(request, place.server.environment)
            if number:  # the first round warms the page cache
                ratios.append(ours["bytes"] / ours["seconds"] / obvious)
                peaks.append(ours["peak_rss"])
    how = f"{size / 1e9:.1f} GB from S3 on the same {cores} cores; sha256sum of the file × {cores}; median of {_ROUNDS}"
    yield Figure("operator's check of a 2 GB version", statistics.median(ratios), "× sha256sum × cores", ">= 0.9", how)
    yield Figure(
        "operator's peak RSS during that check",
        max(peaks) / 1e6,
        "MB",
        "<= 300",
        "VmHWM of the process with all of the operator imported",
    )


def _check(request: str, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.operator_process"]
    done = subprocess.run(
        command, input=request, text=True, stdout=subprocess.PIPE, env=os.environ | environment, check=True
    )
    return dict(json.loads(done.stdout))
