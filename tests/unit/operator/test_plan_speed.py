"""One pass over a thousand pods."""

from __future__ import annotations

import time

import pytest

from builders.rollouts import desired, observed, pods, status, version
from modelparams_operator.core.model import Observed
from modelparams_operator.core.plan import plan

BOTH = (version("1.0.0"), version("1.1.0"))
CASES = [
    pytest.param(observed(*BOTH, *pods(1000, "1.1.0", staged=["1.0.0"]), memory=status("1.1.0")), 0, id="at-rest"),
    pytest.param(observed(*BOTH, *pods(1000, "1.0.0", staged=["1.1.0"]), memory=status("1.0.0")), 1, id="canary"),
    pytest.param(observed(version("1.0.0"), *pods(1000, ordered=None)), 1000, id="first-deploy"),
]


@pytest.mark.parametrize(("seen", "actions"), CASES)
def test_a_thousand_pods_are_planned_in_20_ms(seen: Observed, actions: int) -> None:
    spent = []
    for _ in range(12):
        start = time.process_time()
        made = plan(desired(), seen)
        spent.append(time.process_time() - start)
    assert len(made.actions) == actions
    assert min(spent) <= 0.020
