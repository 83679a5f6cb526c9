"""Thousands of random worlds: whatever happens, every write keeps its promise, and calm brings rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from builders.rollouts import approval, digest
from builders.world import NUMBERS, World
from modelparams.api.conditions import ConditionType, find
from modelparams.digest import Digest
from modelparams.reasons import Reason
from modelparams_operator.core.memory import is_at_rest
from modelparams_operator.core.plan import plan
from modelparams_operator.core.steps import allowance

WORLDS = int(os.environ.get("MODELPARAMS_SIM_WORLDS", "2000"))
BATCH = 100
EVERYTHING = tuple(approval(number, 50, "carol") for number in NUMBERS)


@contextmanager
def a_world(seed: int) -> Iterator[World]:
    """Tell of a failure in which world it came, and what had happened there."""
    world = World(seed)
    try:
        yield world
    except AssertionError as error:
        raise AssertionError(f"world {seed}: {error}\n" + "\n".join(world.trace[-60:])) from error


def live_through(world: World, *, rots: bool = False) -> None:
    """Turmoil for some ticks."""
    for _ in range(world.random.randint(1, 5 if not rots else 8)):
        world.add_pod()
    for _ in range(world.random.randint(10, 30)):
        world.disturb()
        if rots and world.random.random() < 0.05:
            world.rot()
        if world.random.random() < 0.8:
            world.operate(kill_chance=0.08)
        world.work()
        world.tick(world.random.choice([1, 5, 30, 200]))
        check_taken_down(world)


def calm_down(world: World) -> None:
    """Stop disturbing, unfreeze, let all pods work, wait for a pass that changes nothing; approve what waits for it."""
    world.change(suspend=False, paused=False)
    quiet = 0
    for _ in range(200):
        before = world.status
        made = world.operate()
        quiet = quiet + 1 if not made.actions and world.status == before and made.wake_at is None else 0
        if quiet == 8 and (world.desired.spec.approvals == EVERYTHING or not _waits_for_a_person(world)):
            return
        if quiet == 8:
            world.change(approvals=EVERYTHING)
        world.work(chance=1.0)
        world.tick(20)
        check_taken_down(world)
    raise AssertionError("no rest")


def _waits_for_a_person(world: World) -> bool:
    ready = find(world.status.conditions, ConditionType.READY)
    return ready is not None and "waits until somebody approves" in ready.message


def check_taken_down(world: World) -> None:
    """Twice maxUnavailable: those that are away, and as many that had their time before."""
    most = allowance(world.desired.spec.strategy.max_unavailable, len(world.pods))
    down = world.taken_down()
    assert len(down) <= 2 * most, f"{down} are down by our orders, {most} may be unavailable"


def expected(world: World) -> Digest | None:
    """What pods should end on, told more simply than the planner does; None where the outcome depends on the past."""
    policy, status = world.desired.spec.version_policy, world.status
    failed = {f.manifest_digest for f in status.failed_versions}
    good = [
        v
        for v in world.versions.values()
        if v.exists and v.is_verified and not v.is_withdrawn and digest(v.number) not in failed
    ]
    if policy.type == "Pinned":
        pinned = [v for v in good if f"chat-{v.number}" == policy.version_name and v.sequence >= status.floor]
        return digest(pinned[0].number) if pinned and not pinned[0].breaks else None
    if any(v.breaks or v.sequence % 10 for v in world.versions.values()):
        return None
    fit = [v for v in good if v.sequence >= status.floor]
    return digest(max(fit, key=lambda v: v.sequence).number) if fit else None


@pytest.mark.parametrize("first", range(0, WORLDS, BATCH))
def test_every_write_keeps_its_promise_and_calm_brings_rest(first: int) -> None:
    for seed in range(first, first + BATCH):
        with a_world(seed) as world:
            live_through(world)
            world.heal_all()
            calm_down(world)
            check_rest(world)


@pytest.mark.parametrize("first", range(0, WORLDS // 2, BATCH))
def test_versions_that_rot_and_pods_that_stay_sick_take_no_more_pods_down_and_come_to_rest(first: int) -> None:
    for seed in range(first, first + BATCH):
        with a_world(seed) as world:
            live_through(world, rots=True)
            calm_down(world)


def check_rest(world: World) -> None:
    seen = world.observe()
    again = plan(world.desired, seen)
    assert again.actions == ()
    assert again.status == seen.status, "the status is not quiet"
    ready = find(world.status.conditions, ConditionType.READY)
    assert ready is not None
    want = expected(world)
    if want is not None and world.pods:
        assert {pod.serves for pod in world.pods.values()} == {want}, ready.message
        assert is_at_rest(world.status)
        assert ready.reason is Reason.PROMOTED or find(world.status.conditions, ConditionType.STALLED), ready
