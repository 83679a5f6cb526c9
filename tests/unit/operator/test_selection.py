"""delivery-peers §3.2: the rules of choice, a row each."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from builders.rollouts import (
    desired,
    digest,
    failed,
    final,
    release,
    revision,
    status,
    transient,
    version,
    version_spec,
    withdrawn,
)
from modelparams.api.rollout import RolloutStatus
from modelparams.errors import InvalidVersion
from modelparams.names import ModelName
from modelparams.reasons import Reason
from modelparams_operator.core.model import Desired, VersionView
from modelparams_operator.core.predecessors import inherited
from modelparams_operator.core.selection import FAILED_LIMIT, Choice, choose

PINNED_1_0 = desired(pin="1.0.0")
FIRST = RolloutStatus()


def chosen(want: Desired, memory: RolloutStatus, *versions: VersionView) -> Choice:
    return choose(want.spec, versions, memory)


@pytest.mark.parametrize(
    ("versions", "memory", "want"),
    [
        pytest.param([version("1.0.0")], FIRST, "1.0.0", id="the-only-version-is-chosen"),
        pytest.param([version("1.2.0"), version("1.10.0")], FIRST, "1.10.0", id="precedence-is-semver-not-text"),
        pytest.param([version("1.0.0"), version("2.0.0")], FIRST, "1.0.0", id="outside-of-the-range-is-no-candidate"),
        pytest.param(
            [version("1.0.0"), version("1.1.0-rc.1")], FIRST, "1.0.0", id="a-pre-release-needs-a-range-that-names-one"
        ),
        pytest.param([version("1.0.0"), withdrawn("1.1.0")], FIRST, "1.0.0", id="withdrawn-is-no-candidate"),
        pytest.param(
            [version("1.0.0"), version("1.1.0", deleting=True)], FIRST, "1.0.0", id="being-deleted-is-no-candidate"
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", failure=final())], FIRST, "1.0.0", id="refused-bytes-are-no-candidate"
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0")],
            status("1.0.0", failed_versions=(failed("1.1.0"),)),
            "1.0.0",
            id="failed-in-pods-is-no-candidate",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", content="other bytes")],
            status("1.0.0", failed_versions=(failed("1.1.0"),)),
            "1.1.0",
            id="a-failed-version-with-another-digest-is-another-version",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", suspend=True)],
            status("1.0.0"),
            "1.0.0",
            id="suspended-is-ignored-for-new-choices",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", suspend=True)],
            status("1.1.0"),
            "1.1.0",
            id="suspended-stays-live-if-it-is",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", suspend=True)],
            status("1.0.0", "1.1.0"),
            "1.1.0",
            id="suspended-stays-the-target-if-it-is",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", verified=False)],
            status("1.0.0"),
            "1.0.0",
            id="unverified-is-not-chosen-over-what-is-live",
        ),
        pytest.param(
            [version("1.0.0", verified=False), version("1.1.0")], FIRST, "1.1.0", id="a-lower-check-delays-nothing"
        ),
        pytest.param([], status("1.0.0"), None, id="no-candidate-is-not-an-order"),
        pytest.param([withdrawn("1.0.0")], status("1.0.0"), None, id="all-withdrawn-is-not-an-order"),
        pytest.param(
            [withdrawn("1.0.0"), withdrawn("1.1.0")],
            status("1.0.0", "1.1.0"),
            None,
            id="all-withdrawn-in-mid-canary-is-not-an-order",
        ),
        pytest.param([], status("1.0.0", "1.1.0"), None, id="zero-objects-in-mid-canary-is-not-an-order"),
        pytest.param([version("1.0.0")], status("1.1.0"), "1.0.0", id="live-is-deleted-so-the-next-lower-is-chosen"),
        pytest.param(
            [version("1.0.0"), withdrawn("1.1.0")],
            status("1.1.0"),
            "1.0.0",
            id="live-is-withdrawn-so-the-next-lower-is-chosen",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0")],
            status("1.1.0", failed_versions=(failed("1.1.0"),)),
            "1.0.0",
            id="live-has-failed-so-the-next-lower-is-chosen",
        ),
        pytest.param([version("1.0.0")], status("1.0.0", "1.1.0"), "1.0.0", id="a-deleted-canary-is-aborted"),
        pytest.param(
            [version("1.0.0"), withdrawn("1.1.0")],
            status("1.0.0", "1.1.0"),
            "1.0.0",
            id="a-withdrawn-canary-is-aborted",
        ),
        pytest.param(
            [withdrawn("1.1.0")],
            status("1.0.0", "1.1.0"),
            "1.0.0",
            id="a-withdrawn-canary-goes-back-to-the-remembered-live",
        ),
        pytest.param(
            [version("1.1.0")],
            status("1.0.0", "1.1.0", failed_versions=(failed("1.1.0"),)),
            "1.0.0",
            id="a-failed-canary-goes-back-though-live-was-pruned",
        ),
        pytest.param(
            [version("1.0.0", verified=False)], status("1.0.0"), "1.0.0", id="live-made-again-needs-no-second-check"
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", sequence=90)],
            status("1.0.0"),
            "1.0.0",
            id="a-higher-version-with-a-lower-sequence-is-refused",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", sequence=100)],
            status("1.0.0"),
            "1.1.0",
            id="a-higher-version-with-the-same-sequence-is-taken",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0", sequence=90)],
            status("1.0.0", floor=100),
            "1.0.0",
            id="below-the-floor-is-refused",
        ),
    ],
)
def test_the_highest_semver_is_chosen(versions: list[VersionView], memory: RolloutStatus, want: str | None) -> None:
    got = chosen(desired(), memory, *versions).release
    assert (str(got.version) if got is not None else None) == want


def test_live_outside_of_an_edited_range_stays_and_the_message_says_how_to_go_back() -> None:
    choice = chosen(desired(inside="<1.1.0 >=1.0.0"), status("1.1.0"), version("1.0.0"), version("1.1.0"))
    assert choice.release == release("1.1.0")
    assert choice.reason is Reason.NO_VERSION_SELECTED
    assert "pin chat-1.0.0" in choice.message


def test_a_pre_release_is_chosen_when_the_range_names_one() -> None:
    choice = chosen(desired(inside=">=1.1.0-rc.1 <2.0.0"), FIRST, version("1.0.0"), version("1.1.0-rc.2"))
    assert choice.release == release("1.1.0-rc.2")


def test_a_higher_version_under_check_is_waited_for_before_something_lower_starts() -> None:
    choice = chosen(desired(), FIRST, version("1.0.0"), version("1.1.0", verified=False))
    assert choice.release is None
    assert (choice.reason, choice.is_transient) == (Reason.VERIFYING, True)


def test_a_version_whose_store_is_away_is_not_waited_for() -> None:
    choice = chosen(desired(), FIRST, version("1.0.0"), version("1.1.0", failure=transient()))
    assert choice.release == release("1.0.0")


def test_a_version_under_check_does_not_delay_leaving_a_withdrawn_one() -> None:
    versions = (version("1.0.0"), withdrawn("1.1.0"), version("1.2.0", verified=False))
    assert chosen(desired(), status("1.1.0"), *versions).release == release("1.0.0")


def test_a_version_under_check_bridges_the_moment_between_delete_and_create_of_a_rename() -> None:
    versions = (version("1.0.0"), version("1.2.0", verified=False))
    assert chosen(desired(), status("1.1.0"), *versions).reason is Reason.VERIFYING


def test_the_order_and_the_age_of_objects_do_not_matter() -> None:
    numbers = ("1.0.0", "1.1.0", "1.2.0")
    choices = {
        chosen(desired(), FIRST, *(version(number) for number in order)).release
        for order in itertools.permutations(numbers)
    }
    assert choices == {release("1.2.0")}
    old = version("1.2.0")
    late = VersionView(
        old.name,
        old.spec,
        verified=old.facts and old.facts.model_copy(update={"verified_at": datetime(1999, 1, 1, tzinfo=UTC)}),
    )
    assert chosen(desired(), FIRST, version("1.0.0"), late).release == release("1.2.0")


def test_versions_of_another_model_are_not_seen() -> None:
    other = version_spec("1.9.0").model_copy(update={"model_name": ModelName("other")})
    assert chosen(desired(), FIRST, version("1.0.0"), VersionView("other-1.9.0", other)).release == release("1.0.0")


@pytest.mark.parametrize("pin", [None, "1.1.0"])
def test_a_failed_target_is_kept_under_on_failure_pause(pin: str | None) -> None:
    memory = status("1.0.0", "1.1.0", failed_versions=(failed("1.1.0"),))
    choice = chosen(desired(on_failure="Pause", pin=pin), memory, version("1.0.0"), version("1.1.0"))
    assert choice.release == release("1.1.0")


@pytest.mark.parametrize(
    ("text", "says"), [("about two", "is no range of versions"), (">=2.0.0 <1.0.0", "no version can be in the range")]
)
def test_a_range_that_is_none_or_holds_none_is_an_error(text: str, says: str) -> None:
    want = desired()
    policy = want.spec.version_policy.model_copy(update={"range": text})
    with pytest.raises(InvalidVersion, match=says):
        choose(want.spec.model_copy(update={"version_policy": policy}), (), FIRST)


@pytest.mark.parametrize(
    ("versions", "memory", "want", "reason"),
    [
        pytest.param(
            [version("1.0.0"), version("1.1.0")], status("1.1.0"), "1.0.0", Reason.PROMOTED, id="a-pin-goes-back"
        ),
        pytest.param(
            [version("1.1.0")], status("1.1.0"), None, Reason.PINNED_VERSION_MISSING, id="a-missing-pin-is-no-order"
        ),
        pytest.param(
            [], status("1.0.0"), "1.0.0", Reason.PINNED_VERSION_MISSING, id="a-pruned-pin-that-is-live-is-remembered"
        ),
        pytest.param(
            [],
            status("1.1.0", "1.0.0"),
            "1.0.0",
            Reason.PINNED_VERSION_MISSING,
            id="a-pruned-pin-under-way-is-remembered",
        ),
        pytest.param(
            [],
            status("1.0.0", floor=105),
            None,
            Reason.SEQUENCE_TOO_LOW,
            id="a-pruned-pin-that-is-live-is-not-ordered-below-the-floor",
        ),
        pytest.param(
            [],
            status("1.1.0", "1.0.0", floor=105),
            None,
            Reason.SEQUENCE_TOO_LOW,
            id="a-pruned-pin-under-way-is-not-ordered-below-the-floor",
        ),
        pytest.param(
            [withdrawn("1.0.0")],
            status("1.1.0"),
            "1.1.0",
            Reason.PINNED_VERSION_WITHDRAWN,
            id="a-withdrawn-pin-leaves-live",
        ),
        pytest.param(
            [withdrawn("1.0.0"), version("1.1.0")],
            status("1.0.0", history=(revision("1.0.0"), revision("1.1.0"))),
            "1.1.0",
            Reason.PINNED_VERSION_WITHDRAWN,
            id="a-withdrawn-pin-that-is-live-goes-back-to-the-last-good",
        ),
        pytest.param(
            [withdrawn("1.0.0")],
            status("1.0.0"),
            None,
            Reason.PINNED_VERSION_WITHDRAWN,
            id="a-withdrawn-pin-without-a-last-good-stays",
        ),
        pytest.param(
            [version("1.0.0", verified=False)], status("1.1.0"), None, Reason.VERIFYING, id="a-pin-waits-for-its-check"
        ),
        pytest.param(
            [version("1.0.0", failure=final())],
            status("1.1.0"),
            None,
            Reason.BLOB_DIGEST_MISMATCH,
            id="a-refused-pin-is-no-order",
        ),
        pytest.param(
            [version("1.0.0", failure=transient())],
            status("1.1.0"),
            None,
            Reason.SOURCE_UNAVAILABLE,
            id="a-pin-waits-for-its-store",
        ),
        pytest.param(
            [version("1.0.0", suspend=True)], status("1.1.0"), None, Reason.SUSPENDED, id="a-suspended-pin-is-no-order"
        ),
        pytest.param(
            [version("1.0.0")],
            status("1.1.0", floor=105),
            None,
            Reason.SEQUENCE_TOO_LOW,
            id="a-pin-does-not-go-below-the-floor",
        ),
        pytest.param(
            [version("1.0.0", sequence=90)],
            status("0.9.0", live_sequence=95),
            "1.0.0",
            Reason.PROMOTED,
            id="a-pin-may-go-to-a-lower-sequence",
        ),
        pytest.param(
            [version("1.0.0"), version("1.1.0")],
            status("1.1.0", "1.0.0", failed_versions=(failed("1.0.0"),)),
            "1.1.0",
            Reason.SWAP_FAILED,
            id="a-failed-pin-goes-back-to-live",
        ),
        pytest.param(
            [version("1.0.0", suspend=True)], status("1.0.0"), "1.0.0", Reason.PROMOTED, id="a-suspended-pin-stays-live"
        ),
        pytest.param(
            [],
            status("1.1.0", "1.0.0", failed_versions=(failed("1.0.0"),)),
            None,
            Reason.PINNED_VERSION_MISSING,
            id="a-pruned-pin-that-failed-is-not-ordered-again",
        ),
        pytest.param(
            [withdrawn("1.0.0"), withdrawn("1.1.0")],
            status("1.1.0"),
            None,
            Reason.PINNED_VERSION_WITHDRAWN,
            id="a-withdrawn-pin-does-not-go-back-to-a-withdrawn-live",
        ),
        pytest.param(
            [withdrawn("1.0.0"), withdrawn("1.1.0")],
            status("1.0.0", history=(revision("1.0.0"), revision("1.1.0"))),
            None,
            Reason.PINNED_VERSION_WITHDRAWN,
            id="the-last-good-of-a-pin-is-not-one-that-was-withdrawn",
        ),
    ],
)
def test_a_pin_decides(versions: list[VersionView], memory: RolloutStatus, want: str | None, reason: Reason) -> None:
    choice = chosen(PINNED_1_0, memory, *versions)
    assert (str(choice.release.version) if choice.release is not None else None) == want
    assert choice.reason is reason


def test_identity_is_the_digest_and_not_the_object() -> None:
    again: Any = version("1.0.0")
    assert again.digest == digest("1.0.0")
    assert chosen(desired(), status("1.0.0"), again).release == release("1.0.0")


def test_a_memory_that_is_handed_on_twice_is_handed_on_once() -> None:
    before = status("1.0.0", failed_versions=(failed("1.1.0"),), attempt=2, revision=5, floor=90)
    once = inherited(status(failed_versions=(failed("1.2.0"),), floor=95), before)
    assert [f.version_name for f in once.failed_versions] == ["chat-1.1.0", "chat-1.2.0"]
    assert (once.live, once.target, once.attempt, once.revision, once.floor) == (before.live, None, 2, 5, 95)
    assert inherited(once, before) is once


def test_a_rollout_that_takes_over_acts_on_no_token_on_which_the_one_before_has_acted() -> None:
    assert inherited(status(), status(last_handled_retry_token="1")).last_handled_retry_token == "1"
    own = status(last_handled_retry_token="2")
    assert inherited(own, status(last_handled_retry_token="1")).last_handled_retry_token == "2"


def test_a_rollout_that_takes_over_keeps_the_higher_floor() -> None:
    assert inherited(status(floor=90), status(floor=95)).floor == 95
    assert inherited(status(floor=95), status(floor=90)).floor == 95


def test_a_rollout_that_takes_over_forgets_the_oldest_failures_and_not_its_own() -> None:
    """The API server takes no list of any length: with one that only grows, the status could not be written."""
    theirs = tuple(failed(f"1.0.{patch}") for patch in range(FAILED_LIMIT))
    heir = inherited(status(failed_versions=(failed("1.1.0"),)), status(failed_versions=theirs))
    assert heir.failed_versions == (*theirs[1:], failed("1.1.0"))


@pytest.mark.parametrize(
    ("versions", "memory", "why"),
    [
        pytest.param([], FIRST, "there is no version of chat", id="none-at-all"),
        pytest.param(
            [version("2.0.0"), version("3.0.0"), version("0.9.0", failure=final())],
            FIRST,
            "no version of chat is in the range >=1.0.0 <2.0.0; the highest of 3 is chat-3.0.0",
            id="none-in-the-range",
        ),
        pytest.param(
            [version("1.0.0", suspend=True), withdrawn("1.1.0")],
            FIRST,
            "chat-1.1.0, the highest in the range >=1.0.0 <2.0.0, is withdrawn",
            id="withdrawn",
        ),
        pytest.param(
            [version("1.0.0", suspend=True)],
            FIRST,
            "chat-1.0.0, the highest in the range >=1.0.0 <2.0.0, is suspended",
            id="suspended",
        ),
        pytest.param(
            [version("1.1.0", failure=final())],
            status("1.0.0"),
            "chat-1.1.0, the highest in the range >=1.0.0 <2.0.0, was refused: blob 3 differs",
            id="refused",
        ),
        pytest.param(
            [version("1.1.0", sequence=1)],
            status("1.0.0"),
            "chat-1.1.0, the highest in the range >=1.0.0 <2.0.0, has too low a sequence: publish it again",
            id="too-old",
        ),
        pytest.param(
            [version("1.1.0")],
            status("1.0.0", failed_versions=(failed("1.1.0"),)),
            "chat-1.1.0, the highest in the range >=1.0.0 <2.0.0, has failed: "
            "publish a new version, or set spec.retryToken",
            id="failed",
        ),
    ],
)
def test_no_choice_says_why(versions: list[VersionView], memory: RolloutStatus, why: str) -> None:
    choice = chosen(desired(), memory, *versions)
    assert choice.reason is Reason.NO_VERSION_SELECTED
    assert choice.message == f"{why}; pods keep what they serve"
