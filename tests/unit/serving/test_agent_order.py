"""What a pod that nobody has given an order makes of the rollouts in its namespace."""

from __future__ import annotations

import pytest

from builders.agent_pod import MODEL, digest_of, release
from modelparams.api.rollout import RolloutSpec, RolloutStatus, VersionPolicy
from modelparams.names import ModelName
from modelparams_serving.agent.order import Order, Rollout, from_rollouts


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
