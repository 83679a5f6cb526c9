"""What is written to the API server: nothing by who has lost the lease, be it between a decision and its order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from builders.fake_api import FakeAPI, running
from builders.rollouts import NOW, version_spec
from modelparams import errors
from modelparams.api.version import VersionStatus
from modelparams_operator.shell import views
from modelparams_operator.shell.lease import LeaseLost
from modelparams_operator.shell.observe import Broken
from modelparams_operator.shell.ports import VERSIONS
from modelparams_operator.shell.record import Recorder, refused_status

NOTHING: Any = None
"""What is not looked at before the lease."""
VERSION = {"metadata": {"name": "chat-1.0.0", "namespace": "ns"}, "spec": version_spec("1.0.0").wire()}


@pytest.mark.parametrize(
    "write",
    [
        lambda r: r.status(NOTHING, NOTHING, NOTHING),
        lambda r: r.order(NOTHING, NOTHING, NOTHING),
        lambda r: r.withdraw("ns", "web-0", NOTHING),
        lambda r: r.make_default(NOTHING, NOTHING),
        lambda r: r.delete_default(NOTHING),
        lambda r: r.refuse(Broken(VERSIONS, FakeAPI().put(VERSIONS, VERSION), errors.InvalidSpec("no such range"))),
    ],
    ids=["status", "order", "withdraw", "make_default", "delete_default", "refuse"],
)
def test_who_lost_the_lease_writes_nothing(write: Callable[[Recorder], Awaitable[object]]) -> None:
    api = FakeAPI()

    async def test() -> None:
        with pytest.raises(LeaseLost):
            await write(Recorder(api, lambda: False))

    running(test)
    assert api.writes() == []


@pytest.mark.parametrize(
    "write",
    [
        lambda r, read: r.status(VERSIONS, views.version(read), VersionStatus(observed_generation=1)),
        lambda r, read: r.refuse(Broken(VERSIONS, read, errors.InvalidSpec("no such range"))),
    ],
    ids=["status", "refuse"],
)
@pytest.mark.parametrize("is_changed", [False, True])
def test_a_status_is_written_over_exactly_the_object_that_was_read(
    write: Callable[[Recorder, Any], Awaitable[object]], is_changed: bool
) -> None:
    api = FakeAPI()
    read = api.put(VERSIONS, VERSION)

    async def test() -> None:
        if not is_changed:
            await write(Recorder(api, lambda: True), read)
            return
        api.put(VERSIONS, read)
        with pytest.raises(errors.APIConflict):
            await write(Recorder(api, lambda: True), read)

    running(test)
    assert ("status" in (api.at(VERSIONS, "chat-1.0.0") or {})) is not is_changed


def test_a_refusal_of_any_length_fits_into_a_condition() -> None:
    broken = Broken(VERSIONS, VERSION, errors.InvalidSpec("a range " * 1000))
    lengths = {len(condition["message"]) for condition in refused_status(broken, NOW)["conditions"]}
    assert lengths == {1024}
