"""What a pod that nobody has given an order makes of the rollouts in its namespace, and what it says meanwhile."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from builders.agent_pod import MODEL, digest_of, release
from modelparams.api.assignment import AssignmentSpec, AssignmentStatus
from modelparams.api.rollout import RolloutSpec, RolloutStatus, VersionPolicy
from modelparams.names import ModelName
from modelparams_serving.agent.order import Assignment, Order, Rollout, from_rollouts
from modelparams_serving.agent.order_book import Orders


def rollout(name: str, live: str | None, model: ModelName = MODEL, *, floor: int = 0) -> Rollout:
    policy = VersionPolicy(type="HighestSemver", range=">=1.0.0")
    status = RolloutStatus(live=release(live) if live else None, live_sequence=100 if live else 0, floor=floor)
    return Rollout(name, RolloutSpec(model_name=model, version_policy=policy), status)


OTHER = ModelName("another")
TO_SERVE_1_0_0 = Order((release("1.0.0"),), digest_of("1.0.0"), is_fallback=True)


@pytest.mark.parametrize(
    "rollouts",
    [
        pytest.param([rollout("a", "1.0.0")], id="the-only-one"),
        pytest.param([rollout("a", "1.0.0"), rollout("b", "1.0.0")], id="all-agree"),
        pytest.param([rollout("a", None), rollout("b", "1.0.0")], id="one-has-nothing-live-yet"),
        pytest.param([rollout("a", "1.1.0", OTHER), rollout("b", "1.0.0")], id="one-is-of-another-model"),
    ],
)
def test_a_pod_without_an_order_follows_what_is_live_in_the_rollouts_of_its_model(rollouts: list[Rollout]) -> None:
    assert from_rollouts(rollouts, MODEL) == TO_SERVE_1_0_0


@pytest.mark.parametrize(
    "rollouts",
    [
        pytest.param([], id="no-rollout"),
        pytest.param([rollout("a", None)], id="nothing-live"),
        pytest.param([rollout("a", "1.0.0", OTHER)], id="only-of-another-model"),
        pytest.param([rollout("a", "1.0.0"), rollout("b", "1.1.0")], id="two-disagree"),
        pytest.param(
            [rollout("a", "1.0.0"), rollout("b", "1.0.0"), rollout("c", "1.1.0")], id="one-of-three-disagrees"
        ),
    ],
)
def test_it_follows_none_where_it_cannot_know_which_is_its_own(rollouts: list[Rollout]) -> None:
    assert from_rollouts(rollouts, MODEL) is None


def test_it_does_not_begin_with_what_is_below_the_floor() -> None:
    assert from_rollouts([rollout("a", "1.0.0", floor=100)], MODEL) == TO_SERVE_1_0_0
    assert from_rollouts([rollout("a", "1.0.0", floor=110)], MODEL) is None


@pytest.mark.parametrize(("whose", "is_taken_up"), [("me", True), ("another", False)])
def test_only_an_answer_of_this_pod_is_of_its_earlier_life_and_that_once(whose: str, is_taken_up: bool) -> None:
    answer, orders = AssignmentStatus(pod_uid=whose), Orders(MODEL, "me")
    orders.assigned(Assignment("1", 1, AssignmentSpec(rollout_name="tiny", pod_uid="me"), answer))
    assert orders.earlier_life() == (answer if is_taken_up else None)
    assert orders.earlier_life() is None


class Slept(Exception):
    """The test's clock has run out."""


def reminded(orders: Orders, seconds: float) -> list[tuple[float, dict[str, object]]]:
    """What is said within so many seconds, and when."""
    time, said = 0.0, []

    async def sleep(pause: float) -> None:
        nonlocal time
        said.extend((time, dict(line)) for line in lines[len(said) :])
        time += pause
        if time > seconds:
            raise Slept

    with capture_logs() as lines, pytest.raises(Slept):
        asyncio.run(orders.remind("web-0", "serving", sleep))
    return said


def test_a_pod_that_nobody_orders_says_what_it_waits_for_ever_more_rarely() -> None:
    orders = Orders(MODEL, "uid")
    orders.assigned(None)
    assert orders.accept(0) is None
    said = reminded(orders, 2400)
    assert [when for when, _ in said] == [30, 90, 210, 450, 930, 1530, 2130]
    line = said[0][1]
    assert (line["event"], line["pod"], line["namespace"]) == ("Waiting for an order", "web-0", "serving")
    assert line["model"] == MODEL.text
    assert str(line["hint"]).startswith("kubectl --namespace=serving get mpr,mpv: ")


def test_it_says_nothing_before_the_api_server_has_told_it_nor_once_it_has_an_order() -> None:
    assert reminded(Orders(MODEL, "uid"), 600) == []
    ordered = Orders(MODEL, "uid")
    spec = AssignmentSpec(rollout_name="a", pod_uid="uid", releases=(release("1.0.0"),))
    ordered.assigned(Assignment("a-uid", 1, spec, AssignmentStatus()))
    assert ordered.accept(0) is not None
    assert reminded(ordered, 600) == []
