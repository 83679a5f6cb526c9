"""A saved observation says the same again, in words, anywhere."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from builders.rollouts import (
    desired,
    failed,
    failure,
    final,
    observed,
    pod,
    pods,
    revision,
    status,
    step,
    transient,
    version,
)
from builders.world import World
from modelparams_operator.core.explain import Snapshot, explain, from_json, to_json
from modelparams_operator.core.plan import plan

CANARY = observed(
    version("1.0.0"),
    version("1.1.0"),
    version("1.2.0", failure=final()),
    version("1.3.0", failure=transient()),
    *pods(11, "1.0.0", staged=["1.1.0"]),
    pod("sick", "1.0.0", failed=failure("1.1.0", is_final=False)),
    memory=status("1.0.0", history=(revision("1.0.0"),), failed_versions=(failed("0.9.0"),)),
    other_claims={"p03": ("another",)},
)


def test_an_observation_survives_json() -> None:
    snapshot = Snapshot(desired(steps=(step(1, pause=5), step("25%")), retry_token="x"), CANARY)
    again = from_json(to_json(snapshot))
    assert again == snapshot
    assert plan(again.desired, again.observed) == plan(snapshot.desired, snapshot.observed)


@pytest.mark.parametrize("seed", range(20))
def test_any_observation_survives_json(seed: int) -> None:
    world = World(seed)
    for _ in range(15):
        world.add_pod()
        world.disturb()
        world.operate()
        world.work()
    snapshot = Snapshot(world.desired, world.observe())
    again = from_json(to_json(snapshot))
    assert plan(again.desired, again.observed) == plan(snapshot.desired, snapshot.observed)


def test_a_plan_is_told_in_words() -> None:
    text = explain(Snapshot(desired(), CANARY))
    assert text.splitlines()[:5] == [
        "rollout chat at 2026-11-24T12:00:00Z",
        "  chosen: chat-1.1.0",
        "  live: chat-1.0.0, target: chat-1.1.0",
        "  step 1/3: 1 of 12 pods, open",
        "  0 of at most 1 pods are away because of us",
    ]
    assert "  verify chat-1.3.0" in text
    assert "  order p00: hold chat-1.1.0, chat-1.0.0; serve chat-1.1.0" in text
    assert "event: Normal RollingOut: chat-1.1.0 over chat-1.0.0" in text


def test_a_quiet_plan_says_so() -> None:
    seen = observed(version("1.0.0"), *pods(2, "1.0.0"), memory=status("1.0.0"))
    rest = observed(version("1.0.0"), *pods(2, "1.0.0"), memory=plan(desired(), seen).status)
    assert explain(Snapshot(desired(), rest)).splitlines()[-2:] == [
        "actions: none",
        "status, unchanged: Ready=True Promoted: 2 of 2 pods serve chat-1.0.0",
    ]


def test_a_text_that_is_no_observation_is_refused() -> None:
    with pytest.raises(ValidationError):
        from_json("{}")
