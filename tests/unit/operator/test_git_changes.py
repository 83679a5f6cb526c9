"""delivery-peers §3.3 and §3.10: what each change in Git does, and the edges in between, each as a small story."""

from __future__ import annotations

import pytest

from builders.fleet import all_serve, serving, settle, swaps_after, until_canary, world
from builders.rollouts import desired, digest, step
from modelparams.api.rollout import VersionPolicy
from modelparams.reasons import Reason
from modelparams_operator.core.memory import is_at_rest

OLD, LIVE, NEW, NEXT = "1.0.0", "1.1.0", "1.2.0", "1.3.0"


SLOW = {"steps": (step(1, pause=86400),)}
"""A canary of one pod that waits for a day."""


def test_adding_a_version_rolls_it_out() -> None:
    fleet = world(LIVE, NEW)
    assert all_serve(fleet, NEW)
    assert [r.version_name for r in fleet.status.history] == ["chat-1.2.0", "chat-1.1.0"]


def test_adding_a_version_under_a_pin_changes_nothing() -> None:
    fleet = world(LIVE)
    fleet.change(version_policy=VersionPolicy(type="Pinned", version_name="chat-1.1.0"))
    fleet.add_version(NEW)
    settle(fleet)
    assert all_serve(fleet, LIVE)
    assert fleet.versions[NEW].is_verified


def test_moving_the_pin_starts_a_canary() -> None:
    fleet = world(LIVE, **SLOW)
    fleet.change(version_policy=VersionPolicy(type="Pinned", version_name="chat-1.2.0"))
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    assert list(serving(fleet).values()).count(digest(NEW)) == 1


def test_reverting_the_addition_in_mid_canary_swaps_only_the_canary_back() -> None:
    fleet = world(LIVE, **SLOW)
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    mark = len(fleet.trace)
    fleet.versions[NEW].exists = False
    settle(fleet)
    assert all_serve(fleet, LIVE)
    assert swaps_after(fleet, mark) == ["pod p01 serves 1.1.0"]
    assert fleet.status.history[0].outcome == "RolledBack"


def test_reverting_after_the_promotion_goes_back_without_steps() -> None:
    fleet = world(LIVE, NEW)
    fleet.change(strategy=desired(**SLOW).spec.strategy)  # type: ignore[arg-type]
    fleet.versions[NEW].exists = False
    settle(fleet)
    assert all_serve(fleet, LIVE)
    assert is_at_rest(fleet.status)


def test_going_back_further_than_the_window_takes_the_steps() -> None:
    fleet = world(LIVE, NEW)
    fleet.change(strategy=desired(**SLOW, window=0).spec.strategy)  # type: ignore[arg-type]
    fleet.versions[NEW].exists = False
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(LIVE)) == 1


@pytest.mark.parametrize("is_delete_first", [True, False])
def test_a_rename_holds_and_then_rolls_out_from_the_remembered_version(is_delete_first: bool) -> None:
    fleet = world(LIVE, **SLOW)
    if is_delete_first:
        fleet.versions[LIVE].exists = False
        settle(fleet, 6)
        assert all_serve(fleet, LIVE)
    fleet.add_version(NEW)
    fleet.operate()
    fleet.versions[LIVE].exists = False
    until_canary(fleet, NEW)
    assert list(serving(fleet).values()).count(digest(LIVE)) == 3
    fleet.versions[NEW].is_withdrawn = True
    settle(fleet)
    assert all_serve(fleet, LIVE), "the pruned version is still there to go back to"


def test_reverting_a_rename_is_a_rollback_and_no_new_rollout() -> None:
    fleet = world(LIVE, **SLOW)
    fleet.versions[LIVE].exists = False
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    mark = len(fleet.trace)
    fleet.versions[NEW].exists = False
    fleet.operate()
    fleet.add_version(LIVE)
    settle(fleet)
    assert all_serve(fleet, LIVE)
    assert swaps_after(fleet, mark) == ["pod p01 serves 1.1.0"]


def test_the_same_digest_applied_again_under_a_new_uid_moves_nobody() -> None:
    fleet = world(LIVE)
    mark = len(fleet.trace)
    fleet.versions[LIVE].exists = False
    settle(fleet, 3)
    fleet.add_version(LIVE)
    settle(fleet)
    assert swaps_after(fleet, mark) == []
    assert fleet.operate().actions == ()


def test_withdrawing_what_is_live_goes_back_to_the_next_candidate() -> None:
    fleet = world(LIVE, NEW)
    fleet.versions[NEW].is_withdrawn = True
    settle(fleet)
    assert all_serve(fleet, LIVE)


def test_withdrawing_the_pinned_version_goes_back_and_stalls() -> None:
    fleet = world(LIVE, NEW)
    fleet.change(version_policy=VersionPolicy(type="Pinned", version_name="chat-1.2.0"))
    fleet.versions[NEW].is_withdrawn = True
    settle(fleet)
    assert all_serve(fleet, LIVE)
    assert {c.reason for c in fleet.status.conditions if c.type == "Stalled"} == {Reason.PINNED_VERSION_WITHDRAWN}


def test_deleting_all_versions_leaves_pods_on_what_they_serve() -> None:
    fleet = world(LIVE, **SLOW)
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    before = serving(fleet)
    for version in fleet.versions.values():
        version.exists = False
    settle(fleet)
    assert serving(fleet) == before


def test_a_new_cluster_takes_the_highest_at_once() -> None:
    fleet = world(**SLOW)
    for number in (OLD, NEW, LIVE):
        fleet.add_version(number)
    mark = len(fleet.trace)
    settle(fleet)
    assert all_serve(fleet, NEW)
    assert {line.split()[-1] for line in swaps_after(fleet, mark)} == {NEW}


def test_a_burst_of_versions_makes_one_canary_of_the_highest() -> None:
    fleet = world(OLD, **SLOW)
    for number in (LIVE, NEXT, NEW):
        fleet.add_version(number)
    until_canary(fleet, NEXT)
    settle(fleet)
    assert set(serving(fleet).values()) == {digest(OLD), digest(NEXT)}


# §3.10


def test_a_new_choice_in_mid_canary_replaces_it_and_stable_stays() -> None:
    fleet = world(LIVE, pods=6, steps=(step("50%", pause=86400),))
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    settle(fleet)
    mark = len(fleet.trace)
    fleet.add_version(NEXT)
    settle(fleet)
    swaps = swaps_after(fleet, mark)
    assert [line.split()[-1] for line in swaps] == [LIVE] * 3 + [NEXT] * 3, "pods of the given-up canary move first"
    assert fleet.status.history[0].outcome == "Superseded"
    assert fleet.status.live is not None
    assert str(fleet.status.live.version) == LIVE


def test_back_to_live_in_mid_canary_swaps_only_canary_pods() -> None:
    fleet = world(LIVE, **SLOW)
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    mark = len(fleet.trace)
    fleet.change(version_policy=VersionPolicy(type="Pinned", version_name="chat-1.1.0"))
    settle(fleet)
    assert swaps_after(fleet, mark) == ["pod p01 serves 1.1.0"]


def test_bad_to_good_works_while_the_bad_pods_are_still_bad() -> None:
    fleet = world(LIVE)
    fleet.add_version(NEW, breaks="ready")
    until_canary(fleet, NEW)
    fleet.add_version(NEXT)
    settle(fleet, 200)
    assert all_serve(fleet, NEXT)


def test_a_version_that_breaks_its_canary_is_taken_back_after_the_deadline() -> None:
    fleet = world(LIVE, deadline=60)
    fleet.add_version(NEW, breaks="ready")
    settle(fleet)
    assert all_serve(fleet, LIVE)
    assert [f.reason for f in fleet.status.failed_versions] == [Reason.PROGRESS_DEADLINE_EXCEEDED]


def test_a_version_that_a_pod_cannot_swap_to_is_taken_back_at_once() -> None:
    fleet = world(LIVE)
    fleet.add_version(NEW, breaks="swap")
    settle(fleet)
    assert all_serve(fleet, LIVE)
    assert fleet.status.target == fleet.status.live


def test_scaling_up_in_mid_canary_recomputes_shares_and_puts_new_pods_on_live_first() -> None:
    fleet = world(LIVE, steps=(step("25%", pause=86400),))
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    mark = len(fleet.trace)
    fresh = [fleet.add_pod().name for _ in range(4)]
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEW)) == 2
    assert list(serving(fleet).values()).count(digest(LIVE)) == 6
    first_swaps = {line.split()[1]: line.split()[-1] for line in reversed(swaps_after(fleet, mark))}
    assert {first_swaps[name] for name in fresh} == {LIVE}


def test_scaling_down_in_mid_canary_demotes_nobody() -> None:
    fleet = world(LIVE, pods=8, steps=(step("25%", pause=86400),))
    fleet.add_version(NEW)
    settle(fleet)
    for name in [name for name, serves in serving(fleet).items() if serves == digest(LIVE)][:5]:
        fleet.remove_pod(name)
    mark = len(fleet.trace)
    settle(fleet)
    assert swaps_after(fleet, mark) == []


def test_a_canary_pod_that_is_replaced_keeps_the_count() -> None:
    fleet = world(LIVE, **SLOW)
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    fleet.remove_pod("p01")
    fleet.add_pod()
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEW)) == 1


def test_an_edited_plan_goes_on_and_never_back() -> None:
    fleet = world(LIVE, pods=6, steps=(step(3, pause=86400),))
    fleet.add_version(NEW)
    settle(fleet)
    fleet.change(strategy=desired(steps=(step(1), step(2), step(5, pause=86400))).spec.strategy)
    mark = len(fleet.trace)
    settle(fleet)
    assert list(serving(fleet).values()).count(digest(NEW)) == 5
    assert all(line.endswith(NEW) for line in swaps_after(fleet, mark))


def test_an_abort_respects_max_unavailable() -> None:
    fleet = world(LIVE, pods=6, steps=(step(4, pause=86400),))
    fleet.add_version(NEW)
    settle(fleet)
    fleet.versions[NEW].is_withdrawn = True
    made = fleet.operate()
    back = [a for a in made.actions if getattr(a, "order", None) and a.order.activate == digest(LIVE)]  # type: ignore[union-attr]
    taken = [a for a in back if serving(fleet)[a.pod_name] == digest(NEW)]  # type: ignore[union-attr]
    assert len(taken) == 1
    settle(fleet)
    assert all_serve(fleet, LIVE)


def test_an_operator_that_was_away_for_an_hour_changes_nothing_by_time() -> None:
    fleet = world(LIVE, deadline=60)
    fleet.add_version(NEW)
    until_canary(fleet, NEW)
    fleet.tick(3600)
    fleet.watching_since = fleet.now
    fleet.operate()
    assert fleet.status.failed_versions == ()
    settle(fleet)
    assert all_serve(fleet, NEW)
