"""Counting pods: what a step asks for, where an edited plan goes on, what may be unavailable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from modelparams.api.rollout import PodCount, Step


def resolve(count: PodCount, total: int) -> int:
    """Turn a number of pods or a share of `total` into a number, at most `total`; shares are rounded up."""
    if isinstance(count, int):
        return min(count, total)
    return -(-total * int(count.removesuffix("%")) // 100)


def wanted(steps: Sequence[Step], index: int, total: int) -> int:
    """Say how many of `total` pods serve the target in step `index`; after the last one, all do."""
    return resolve(steps[index].pods, total) if index < len(steps) else total


def allowance(max_unavailable: PodCount, total: int) -> int:
    """Say how many pods may be unavailable at once because of us: at least one, or nothing could ever move."""
    return max(1, resolve(max_unavailable, total))


def pause_ends(steps: Sequence[Step], index: int, reached_at: datetime | None) -> datetime | None:
    """Say when the timed pause of step `index` is over; None before the step is reached, or without a pause."""
    pause = steps[index].pause if index < len(steps) else None
    if pause is None or pause.duration_seconds is None or reached_at is None:
        return None
    return reached_at + timedelta(seconds=pause.duration_seconds)


def ready_enough_at(last_ready_at: datetime | None, min_ready_seconds: int) -> datetime | None:
    """Say when the pod that came last has been ready long enough; None where nobody is waited for."""
    return None if last_ready_at is None else last_ready_at + timedelta(seconds=min_ready_seconds)


def after_an_edit(steps: Sequence[Step], total: int, updated: int) -> int:
    """Say where an edited plan goes on: past the steps that ask for fewer pods than are done.

    The last step that is done is not passed over, so that its pause is kept: more pods than it asks for may have come
    when the fleet was scaled down.
    """
    index = 0
    while index < len(steps) and wanted(steps, index, total) < updated and wanted(steps, index + 1, total) <= updated:
        index += 1
    return index


def hash_of(steps: Sequence[Step]) -> str:
    """Name a plan, so that an edit of it shows: an index says nothing in another one. 12 hex digits."""
    text = json.dumps([step.wire() for step in steps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
