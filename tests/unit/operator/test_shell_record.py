"""What is written to the API server: nothing by who has lost the lease, be it between a decision and its order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from builders.fake_api import FakeAPI, running
from modelparams_operator.shell.lease import LeaseLost
from modelparams_operator.shell.record import Recorder

NOTHING: Any = None
"""What is not looked at before the lease."""


@pytest.mark.parametrize(
    "write",
    [
        lambda r: r.status(NOTHING, NOTHING, NOTHING),
        lambda r: r.order(NOTHING, NOTHING, NOTHING),
        lambda r: r.withdraw("ns", "web-0", NOTHING),
        lambda r: r.make_default(NOTHING, NOTHING),
        lambda r: r.delete_default(NOTHING),
    ],
    ids=["status", "order", "withdraw", "make_default", "delete_default"],
)
def test_who_lost_the_lease_writes_nothing(write: Callable[[Recorder], Awaitable[object]]) -> None:
    api = FakeAPI()

    async def test() -> None:
        with pytest.raises(LeaseLost):
            await write(Recorder(api, lambda: False))

    running(test)
    assert api.writes() == []
