"""Whole rollouts, told line by line: a change of behaviour is a diff that a person reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builders.rollouts import desired, step
from builders.world import World

Story = Callable[[World], None]


def go(world: World, ticks: int = 30) -> None:
    for _ in range(ticks):
        world.operate()
        world.work(chance=1.0)
        world.tick()


def promoted(world: World) -> None:
    world.add_version("1.1.0")
    go(world)


def withdrawn_in_mid_canary(world: World) -> None:
    world.add_version("1.1.0")
    go(world, 9)
    world.versions["1.1.0"].is_withdrawn = True
    world.tell("version 1.1.0 is withdrawn")
    go(world)


def failed_swap(world: World) -> None:
    world.add_version("1.1.0", breaks="swap")
    go(world)


def superseded(world: World) -> None:
    world.add_version("1.1.0")
    go(world, 9)
    world.add_version("1.2.0")
    go(world, 40)


def scaled_up_in_mid_canary(world: World) -> None:
    world.add_version("1.1.0")
    go(world, 9)
    for _ in range(4):
        world.add_pod()
    go(world)


def tampered(world: World) -> None:
    world.add_version("1.1.0", is_tampered=True)
    go(world, 10)


def reverted_after_the_promotion(world: World) -> None:
    world.add_version("1.1.0")
    go(world)
    world.versions["1.1.0"].exists = False
    world.tell("version 1.1.0 is deleted")
    go(world)


STORIES = (
    promoted,
    withdrawn_in_mid_canary,
    failed_swap,
    superseded,
    scaled_up_in_mid_canary,
    tampered,
    reverted_after_the_promotion,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_story_goes_as_it_went(story: Story, golden: Callable[[str, str], None]) -> None:
    world = World(seed=7, calm=True)
    world.desired = desired(steps=(step(1, pause=30), step("50%")), max_unavailable=1)
    for _ in range(4):
        world.add_pod()
    world.add_version("1.0.0")
    go(world)
    story(world)
    golden(f"{story.__name__}.trace", "\n".join([*world.trace, *ending(world)]) + "\n")


def ending(world: World) -> list[str]:
    """Say how it ended."""
    ready = [f"{c.type}={c.status} {c.reason}: {c.message}" for c in world.status.conditions]
    history = [f"{r.version_name} {r.outcome}" for r in world.status.history]
    return [*ready, "history: " + ", ".join(history)]
