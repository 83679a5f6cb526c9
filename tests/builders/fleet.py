"""Small stories of a calm fleet: at rest on a version, then something is changed and all of it settles."""

from __future__ import annotations

import pytest

from builders.rollouts import desired, digest
from builders.world import World
from modelparams.digest import Digest


def world(*numbers: str, pods: int = 4, **fields: object) -> World:
    """A fleet at rest on the highest of `numbers`."""
    made = World(seed=1, calm=True)
    made.desired = desired(**fields)  # type: ignore[arg-type]
    for _ in range(pods):
        made.add_pod()
    for number in numbers:
        made.add_version(number)
        settle(made)
    return made


def settle(world: World, ticks: int = 60) -> None:
    for _ in range(ticks):
        world.operate()
        world.work(chance=1.0)
        world.tick()


def until_canary(world: World, number: str) -> None:
    """Go on until the first pod serves `number`."""
    for _ in range(60):
        world.operate()
        world.work(chance=1.0)
        world.tick()
        if digest(number) in serving(world).values():
            world.operate()
            return
    pytest.fail(f"no pod came to serve {number}\n" + "\n".join(world.trace))


def serving(world: World) -> dict[str, Digest | None]:
    return {name: pod.serves for name, pod in world.pods.items()}


def all_serve(world: World, number: str) -> bool:
    return set(serving(world).values()) == {digest(number)}


def swaps_after(world: World, mark: int) -> list[str]:
    return [line.split("s ", 1)[1].strip() for line in world.trace[mark:] if " serves " in line]
