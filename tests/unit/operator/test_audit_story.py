"""`modelparams audit`: what it makes of events that the API server wrote about our objects."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.audit_log import (
    AGENT,
    APPROVED,
    COLLECTOR,
    OPERATOR,
    ORDERS,
    ROLLOUTS,
    VERSIONS,
    Log,
    followed_by,
    held_release,
    played,
    released,
    story_of,
    target,
)
from builders.objects import Object, approval, digest, expedite, rollout, version
from modelparams_operator.audit.gaps import Kind
from modelparams_operator.audit.served import Ended
from modelparams_operator.audit.story import Story


def times(story: Story) -> list[tuple[str, str, float, float | None, Ended]]:
    """Pod, version, seconds since the log's first event."""
    assert story.first
    found = []
    for account in story.served:
        one = account.served
        since, until = ((at - story.first).total_seconds() if at else None for at in (one.since, one.until))
        assert since is not None
        found.append((one.pod, one.version_name, since, until, one.ended))
    return found


def did(story: Story) -> list[tuple[str, str, str]]:
    return [(act.who.name if act.who else "", act.does, act.version_name) for act in story.acts]


def kinds(story: Story) -> list[Kind]:
    return [gap.kind for gap in story.gaps]


def test_a_pod_served_a_version_from_its_own_word_to_its_next() -> None:
    log = Log()
    released(log)
    followed_by(log)
    story = log.story()
    assert times(story) == [
        ("web-0", "smollm2-1.0.0", 5, 10, Ended.CHANGED),
        ("web-0", "smollm2-1.1.0", 10, None, Ended.OPEN),
    ]
    assert kinds(story) == []
    assert [one.served.by_the_pod for one in story.served] == [True, True]


def test_by_whose_will_it_was_served() -> None:
    log = Log()
    released(log)
    followed_by(log)
    _, second = log.story().served
    assert (second.published.who.name, second.published.digest) == ("carol", digest("smollm2-1.1.0"))  # type: ignore[union-attr]
    assert second.released.who.name == "dave"  # type: ignore[union-attr]
    assert [(one.approved_by, one.who.name, one.through_step) for one in second.approved] == [("alice", "alice", 1)]  # type: ignore[union-attr]
    assert (second.served.order.by.name, second.served.order.term) == (OPERATOR, 1)  # type: ignore[union-attr]
    assert second.expedited is None


def test_an_approval_of_another_version_or_one_taken_back_before_is_not_its() -> None:
    log = Log()
    released(log)
    log.put("alice", rollout(), approvals=APPROVED)
    log.put("alice", rollout(), approvals=None)
    log.put("carol", version("1.1.0"))
    log.order("1.1.0")
    log.live("1.1.0")
    story = log.story()
    assert [one.approved for one in story.served] == [(), ()]
    assert ("alice", "ApprovalRemoved", "smollm2-1.1.0") in did(story)


def test_an_approval_of_other_bytes_under_its_name_is_not_its() -> None:
    log = Log()
    released(log)
    log.put("alice", rollout(), approvals=[approval("1.1.0", "alice") | {"manifestDigest": digest("former")}])
    log.put("bob", rollout(), expedite=expedite("1.1.0") | {"manifestDigest": digest("former")})
    log.put("carol", version("1.1.0"))
    log.order("1.1.0")
    log.live("1.1.0")
    assert [(one.approved, one.expedited) for one in log.story().served] == [((), None), ((), None)]


def test_who_hastened_a_version_is_told_beside_its_time() -> None:
    log = Log()
    released(log)
    log.put("carol", version("1.1.0"))
    log.put("bob", rollout(), expedite=expedite("1.1.0"))
    log.order("1.1.0")
    log.live("1.1.0")
    _, second = log.story().served
    assert second.expedited is not None
    assert second.expedited.who is not None
    assert second.expedited.who.name == "bob"


def test_who_wrote_an_approval_in_another_s_name_is_told() -> None:
    """Where the policies are not in force."""
    log = Log()
    released(log)
    log.put("mallory", rollout(), approvals=APPROVED)
    (act,) = [act for act in log.story().acts if act.does == "Approved"]
    assert act.what == "approves smollm2-1.1.0 through step 1 in the name of alice"
    assert act.who is not None
    assert act.who.name == "mallory"


def test_what_people_did_is_told_from_what_changed() -> None:
    log = Log()
    log.put("carol", version("1.0.0"))
    log.put("dave", rollout())
    for change in (
        {"paused": True},
        {"paused": None},
        {"suspend": True},
        {"suspend": None},
        {"retryToken": "again"},
        {"expedite": expedite("1.0.0")},
        {"expedite": None},
        {"strategy": {"steps": [{"pods": 2, "pause": {}}]}},
        {"versionPolicy": {"type": "Pinned", "versionName": "smollm2-1.0.0"}},
    ):
        log.put("dave", rollout(), **change)
    log.put("erin", version("1.0.0"), lifecycle="Withdrawn")
    log.put("erin", version("1.0.0"), lifecycle=None)
    log.delete("erin", VERSIONS, "smollm2-1.0.0")
    log.delete("dave", ROLLOUTS, "smollm2")
    assert did(log.story()) == [
        ("carol", "Published", "smollm2-1.0.0"),
        ("dave", "Released", ""),
        *(("dave", does, "") for does in ("Held", "Resumed", "Suspended", "Unsuspended", "Retried")),
        ("dave", "Expedited", "smollm2-1.0.0"),
        ("dave", "ExpediteRemoved", "smollm2-1.0.0"),
        ("dave", "PlanChanged", ""),
        ("dave", "Released", "smollm2-1.0.0"),
        ("erin", "Withdrawn", "smollm2-1.0.0"),
        ("erin", "BroughtBack", "smollm2-1.0.0"),
        ("erin", "Deleted", "smollm2-1.0.0"),
        ("dave", "Deleted", ""),
    ]


def test_what_the_operator_decided_is_told_and_a_rollback_gives_the_pod_another_time() -> None:
    log = Log()
    released(log)
    followed_by(log)
    past = {"version": "1.1.0", "manifestDigest": digest("smollm2-1.1.0"), "versionName": "smollm2-1.1.0"}
    past |= {"outcome": "Failed", "startedAt": "2026-11-28T06:00:00Z", "finishedAt": "2026-11-28T06:00:09Z"}
    log.report(OPERATOR, ROLLOUTS, "smollm2", target=target("1.0.0"), history=[past])
    log.order("1.0.0")
    log.live("1.0.0")
    story = log.story()
    assert [row[1] for row in times(story)] == ["smollm2-1.0.0", "smollm2-1.1.0", "smollm2-1.0.0"]
    assert did(story)[-2:] == [(OPERATOR, "Targeted", "smollm2-1.0.0"), (OPERATOR, "Failed", "smollm2-1.1.0")]


def test_a_pod_of_the_same_name_and_another_life_has_times_of_its_own() -> None:
    log = Log()
    released(log)
    log.delete(COLLECTOR, ORDERS, "web-0")
    log.order("1.0.0", uid="p1")
    log.live("1.0.0", uid="p1")
    story = log.story()
    assert [(one.served.pod_uid, one.served.ended) for one in story.served] == [
        ("p0", Ended.ORDER_DELETED),
        ("p1", Ended.OPEN),
    ]
    assert story.served[0].served.ended_by.name == COLLECTOR  # type: ignore[union-attr]
    assert kinds(story) == []


@pytest.mark.parametrize("first", ["u1", "u9"])
def test_a_pod_whose_order_was_deleted_and_made_again_serves_by_the_order_that_it_had(first: str) -> None:
    log = Log()
    log.order("1.0.0")
    log.live("1.0.0")
    log.delete(OPERATOR, ORDERS, "web-0")
    log.order("1.1.0")
    log.live("1.0.0")
    text = json.dumps(log.events).replace('"u100"', f'"{first}"').replace('"u102"', '"u5"')
    story = story_of(json.loads(text))
    assert [(one.served.version_name, one.served.order is None) for one in story.served] == [
        ("smollm2-1.0.0", False),
        ("smollm2-1.0.0", False),
    ]


def test_an_answer_of_an_earlier_life_is_none() -> None:
    log = Log()
    released(log)
    log.report(AGENT, ORDERS, "web-0", compare=False, podUID="former", live=held_release("1.0.0"))
    (one,) = log.story().served
    assert one.served.ended is Ended.CHANGED


def test_an_engine_that_is_away_ends_the_time() -> None:
    log = Log()
    released(log)
    log.live(None)
    log.live("1.0.0")
    assert [row[2:4] for row in times(log.story())] == [(5, 6), (7, None)]


def test_the_tensors_digest_may_come_later_but_not_change() -> None:
    log = Log()
    released(log)
    for seed in ("a", "a", "b"):
        log.live("1.0.0", live=held_release("1.0.0", tensorsDigest=seed * 64))
    assert [one.served.tensors_digest[0] for one in log.story().served] == ["a", "b"]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/pod-uid": ["p0"]},
        {"authentication.kubernetes.io/pod-name": ["web-0"], "authentication.kubernetes.io/pod-uid": ["p1"]},
        {"authentication.kubernetes.io/pod-name": [], "authentication.kubernetes.io/pod-uid": []},
    ],
    ids=["no pod", "another pod", "another life", "empty"],
)
def test_a_word_that_is_not_the_pod_s_own_is_told_as_such(extra: Object) -> None:
    log = Log()
    log.order("1.0.0")
    log.live("1.0.0", extra=extra)
    assert [one.served.by_the_pod for one in log.story().served] == [False]


def test_who_impersonates_a_pod_is_not_the_pod() -> None:
    log = Log()
    log.order("1.0.0")
    event = log.live("1.0.0")
    event["impersonatedUser"], event["user"] = event["user"], {"username": "mallory"}
    (one,) = log.story().served
    assert (one.served.by_the_pod, one.served.reported_by.impersonated_by) == (False, "mallory")


def test_what_no_order_told_is_served_without_one() -> None:
    log = Log()
    log.order("1.0.0")
    log.live("1.1.0")
    assert [one.served.order for one in log.story().served] == [None]


def test_an_order_that_moved_on_before_the_pod_spoke_is_still_its_order() -> None:
    log = Log()
    log.order("1.0.0")
    log.order("1.1.0")
    log.live("1.0.0")
    (one,) = log.story().served
    assert one.served.order is not None


def test_of_what_was_there_already_it_is_not_said_since_when_and_by_whom() -> None:
    whole = Log()
    released(whole)
    followed_by(whole)
    whole.note()
    later = story_of([whole.events[5], *whole.events[8:]])  # begins with the pod's word and goes on with an approval
    assert [(one.served.version_name, one.served.since_is_known) for one in later.served] == [
        ("smollm2-1.0.0", False),
        ("smollm2-1.1.0", True),
    ]
    stood = [(act.does, act.who) for act in later.acts]
    assert stood == [("Released", None), ("Approved", None)]
    assert kinds(later) == []


@pytest.mark.parametrize(
    ("verb", "resource", "name", "does"),
    [
        ("patch", "validatingadmissionpolicies", "modelparams-operator-gives-orders", "PolicyWritten"),
        ("delete", "validatingadmissionpolicybindings", "modelparams-operator-gives-orders", "PolicyDeleted"),
        ("deletecollection", "validatingadmissionpolicybindings", "", "PolicyDeleted"),
        ("delete", "customresourcedefinitions", "modelparamrollouts.modelparams.dev", "KindDeleted"),
        ("delete", "customresourcedefinitions", "widgets.example.com", None),
        ("patch", "validatingadmissionpolicies", "another", None),
    ],
)
def test_who_changed_what_guards_the_rest_is_told_without_a_body(
    verb: str, resource: str, name: str, does: str | None
) -> None:
    log = Log()
    event = log.refuse("root", resource, name, "", verb=verb, code=200)
    event["objectRef"] |= {"namespace": "", "apiGroup": "admissionregistration.k8s.io"}
    story = log.story()
    assert [act.does for act in story.acts] == ([does] if does else [])
    assert story.gaps == ()


# Denied, and only played.


def test_what_was_denied_is_told_with_what_was_tried_and_changed_nothing() -> None:
    log = Log()
    released(log)
    words = "ValidatingAdmissionPolicy 'p' with binding 'p' denied request: approvedBy must be your own user name"
    notes = {
        "modelparams-people-let-versions-pass/approved": "mallory approves smollm2-1.1.0 through step 1",
        "authorization.k8s.io/decision": "allow",
    }
    log.refuse("mallory", ROLLOUTS, "smollm2", words, annotations=notes, asked={"spec": {"approvals": APPROVED}})
    story = log.story()
    (denial,) = story.denied
    assert (denial.who.name, denial.code, denial.message) == ("mallory", 403, words)
    assert denial.tried == ("mallory approves smollm2-1.1.0 through step 1",)
    assert "Approved" not in [act.does for act in story.acts]


def test_the_same_refusal_is_told_once_with_its_number() -> None:
    log = Log()
    for _ in range(3):
        log.refuse("mallory", ROLLOUTS, "smollm2", "no")
    log.refuse("eve", ROLLOUTS, "smollm2", "no")
    assert [(one.who.name, one.count) for one in log.story().denied] == [("mallory", 3), ("eve", 1)]


@pytest.mark.parametrize("code", [404, 409, 429, 500, 504])
def test_a_conflict_and_a_server_s_failure_are_no_denial(code: int) -> None:
    log = Log()
    log.refuse("dave", ROLLOUTS, "smollm2", "later", code=code)
    assert log.story().denied == ()


def test_a_request_of_nobody_is_told() -> None:
    log = Log()
    event = log.refuse("", ROLLOUTS, "smollm2", "Unauthorized", code=401)
    event["user"] = {}
    assert [one.who.name for one in log.story().denied] == [""]


def test_a_dry_run_changes_nothing_and_a_refused_one_is_told_as_such() -> None:
    log = Log()
    released(log)
    kept = copy.deepcopy(log)
    for event in (log.put("dave", rollout(), paused=True), log.live("1.1.0"), log.delete("dave", ORDERS, "web-0")):
        if event["verb"] == "delete":
            event["requestObject"] = {"kind": "DeleteOptions", "dryRun": ["All"]}
        else:
            event["requestURI"] += "?fieldManager=x&dryRun=All"
    log.refuse("eve", ROLLOUTS, "smollm2", "no", query="?dryRun=All")
    story, before = log.story(), kept.story()
    assert (story.served, story.acts, story.gaps) == (before.served, before.acts, before.gaps)
    assert [one.is_dry_run for one in story.denied] == [True]


# Gaps.


def test_a_spec_write_that_is_missing_is_told_with_their_number() -> None:
    log = Log()
    log.put("dave", rollout())
    for paused in (True, None, True):
        log.put("dave", rollout(), paused=paused)
    del log.events[2:4]
    (gap,) = log.story().gaps
    assert (gap.kind, gap.name) == (Kind.WRITE_MISSING, "smollm2")
    assert gap.message.startswith("2 writes to its spec are not in the log")


def test_what_a_missing_write_may_have_done_is_laid_at_nobody_s_door() -> None:
    log = Log()
    log.put("dave", rollout())
    log.put("mallory", rollout(), paused=True)
    log.put("dave", rollout(), retryToken="again")
    del log.events[2]
    assert [(act.who.name, act.does, act.is_sure) for act in log.story().acts if act.who] == [  # type: ignore[union-attr]
        ("dave", "Released", True),
        ("dave", "Retried", False),
        ("dave", "Held", False),
    ]


def test_a_spec_that_changed_beside_a_status_is_nobody_s_act() -> None:
    log = Log()
    log.put("dave", rollout())
    log.put("mallory", rollout(), paused=True)
    log.report(OPERATOR, ROLLOUTS, "smollm2", target=target("1.0.0"))
    del log.events[2]
    assert [(act.does, act.who) for act in log.story().acts if not act.is_sure and act.does == "Held"] == [
        ("Held", None)
    ]


def test_an_object_that_this_release_does_not_know_is_a_gap_and_the_rest_is_told() -> None:
    log = Log()
    released(log)
    log.order("1.1.0")
    log.events[-1]["responseObject"]["spec"] = {"rolloutName": 7}
    log.live("1.1.0")
    story = log.story()
    assert Kind.UNREADABLE in kinds(story)
    assert [(one.served.version_name, one.served.has_gap) for one in story.served] == [
        ("smollm2-1.0.0", True),
        ("smollm2-1.1.0", True),
    ]


def test_a_status_of_the_operator_that_is_missing_is_told_by_its_next_one() -> None:
    log = Log()
    log.put("dave", rollout())
    for step in ("1/3", "2/3", "3/3"):
        log.report(OPERATOR, ROLLOUTS, "smollm2", step=step)
    del log.events[3]
    assert kinds(log.story()) == [Kind.WRITE_MISSING]


def test_a_word_of_a_pod_that_is_missing_is_told_by_its_next_order() -> None:
    log = Log()
    released(log)
    log.order("1.1.0")
    del log.events[5]
    story = log.story()
    assert kinds(story) == [Kind.WRITE_MISSING]
    assert [(one.served.since_is_known, one.served.has_gap) for one in story.served] == [(False, True)]


def test_a_creation_that_is_missing_is_told_if_the_log_had_begun() -> None:
    log = Log()
    log.note()
    log.put("dave", rollout())
    log.put("dave", rollout(), paused=True)
    assert kinds(story_of([*log.events[:2], log.events[3]])) == [Kind.CREATION_MISSING]
    assert kinds(story_of(log.events[3:])) == []


def test_a_deletion_that_is_missing_is_told_when_another_object_has_the_name() -> None:
    log = Log()
    released(log)
    log.delete(COLLECTOR, ORDERS, "web-0")
    log.order("1.0.0", uid="p1")
    del log.events[-2]
    assert kinds(log.story()) == [Kind.DELETION_MISSING]


def test_two_who_delete_at_once_leave_no_gap() -> None:
    log = Log()
    log.order("1.0.0")
    last = copy.deepcopy(log.events[-1]["responseObject"])
    log.delete(COLLECTOR, ORDERS, "web-0")
    log.refuse("admin", ORDERS, "", "", verb="deletecollection", code=200, given={"kind": "List", "items": [last]})
    assert kinds(log.story()) == []


def test_an_object_with_a_finalizer_is_gone_when_the_last_one_is_taken_away() -> None:
    log = Log()
    released(log)
    marked = log.put(OPERATOR, version("1.0.0"), suspend=True)["responseObject"]
    marked["metadata"] |= {"deletionTimestamp": "2026-11-28T06:00:07Z", "finalizers": ["x"]}
    log.events[-1] |= {"verb": "delete"}
    freed = log.put(OPERATOR, version("1.0.0"), suspend=None)["responseObject"]
    freed["metadata"] |= {"deletionTimestamp": "2026-11-28T06:00:07Z"}
    assert [act.at for act in log.story().acts if act.does == "Deleted"] == [log.story().last]


def test_writes_without_bodies_are_told_and_what_to_record_is_said() -> None:
    log = Log()
    released(log)
    for event in log.events[3:5]:
        event.pop("requestObject")
        event.pop("responseObject")
    (gap, *_) = [gap for gap in log.story().gaps if gap.kind is Kind.BODY_MISSING]
    assert gap.message.startswith("2 writes are there without what was written")


@pytest.mark.parametrize("code", [200, 409])
def test_a_write_of_which_nobody_knows_what_came_is_told_once_it_can_be_no_longer_under_way(code: int) -> None:
    log = Log()
    log.put("dave", rollout())
    asked = log.put("dave", rollout(), paused=True)
    asked |= {"stage": "RequestReceived", "responseStatus": {}}
    asked.pop("responseObject")
    assert kinds(log.story()) == []
    log.now += 100
    log.note()
    assert kinds(log.story()) == [Kind.UNANSWERED]
    log.events.append({**asked, "stage": "ResponseComplete", "responseStatus": {"code": code}})
    assert Kind.UNANSWERED not in kinds(log.story())


def test_a_write_that_failed_and_was_stored_nonetheless_is_named() -> None:
    """As when an operator is killed while the server writes for it."""
    log = Log()
    log.put("dave", rollout())
    for step in ("1/3", "2/3", "3/3"):
        log.report(OPERATOR, ROLLOUTS, "smollm2", step=step)
    log.events[3] |= {"responseStatus": {"code": 504, "message": "context canceled"}, "responseObject": {}}
    (gap,) = log.story().gaps
    assert gap.kind is Kind.UNANSWERED
    assert gap.message.endswith(f"{OPERATOR} at 06:00:04Z, answered with 504")


def test_renewals_that_one_holder_must_have_made_are_missing() -> None:
    log = Log()
    for _ in range(3):
        log.beat()
    log.beat(after=60)
    story = log.story()
    assert kinds(story) == [Kind.SILENCE]
    assert story.notes == ()


def test_an_operator_that_was_away_leaves_no_gap_as_long_as_the_log_goes_on() -> None:
    log = Log()
    log.beat()
    for _ in range(20):
        log.now += 20
        log.note()
    log.beat(holder="operator-1", term=2)
    assert kinds(log.story()) == []


def test_an_operator_that_was_away_while_nothing_at_all_was_logged_leaves_a_gap() -> None:
    log = Log()
    log.beat()
    log.beat(holder="operator-1", term=2, after=300)
    assert kinds(log.story()) == [Kind.SILENCE]


def test_a_log_without_renewals_says_what_it_cannot_tell() -> None:
    log = Log()
    released(log)
    (note,) = log.story().notes
    assert "no renewal of the operator's Lease" in note


def test_versions_that_go_back_while_time_goes_on_are_told() -> None:
    """As after a restore of etcd."""
    log = Log()
    log.put("dave", rollout())
    log.now += 1000
    event = log.put("dave", rollout(), paused=True)
    event["responseObject"]["metadata"]["resourceVersion"] = "50"
    assert Kind.OUT_OF_ORDER in kinds(log.story())


def test_clocks_that_differ_by_a_little_do_not_turn_an_object_s_writes_around() -> None:
    log = Log()
    released(log)
    followed_by(log)
    whole = [row[1] for row in times(log.story())]
    log.events[5]["requestReceivedTimestamp"] = "2026-11-28T06:00:30.000000Z"
    assert [row[1] for row in sorted(times(log.story()), key=lambda row: row[1])] == whole
    assert kinds(log.story()) == []


def test_a_client_that_uses_an_audit_id_again_hides_nothing() -> None:
    """The header Audit-ID is the client's to choose."""
    log = Log()
    log.put("dave", rollout())
    log.put("mallory", rollout(), paused=True)["auditID"] = log.events[-2]["auditID"]
    assert ("mallory", "Held", "") in did(log.story())


# Whatever the order, and however often.


EVENTS = played().events


@settings(deadline=None)
@given(st.permutations(range(len(EVENTS))), st.lists(st.sampled_from(range(len(EVENTS)))))
def test_order_and_repetition_in_the_log_change_nothing(order: list[int], again: list[int]) -> None:
    told = story_of([EVENTS[index] for index in (*order, *again)])
    whole = story_of(EVENTS)
    parts = ("served", "acts", "denied", "gaps", "notes", "first", "last")
    assert all(getattr(told, part) == getattr(whole, part) for part in parts)


def spec_writes() -> Iterator[int]:
    """Those after which the log holds the same object again."""
    for index, event in enumerate(EVENTS):
        is_spec = event["objectRef"].get("apiGroup") == "modelparams.dev" and not event["objectRef"].get("subresource")
        if is_spec and event["responseStatus"]["code"] < 300:
            later = [e for e in EVENTS[index + 1 :] if e["objectRef"].get("name") == event["objectRef"]["name"]]
            if any("spec" in e.get("responseObject", {}) for e in later):
                yield index


@pytest.mark.parametrize("missing", [*spec_writes()])
def test_a_spec_write_that_is_taken_out_of_the_log_is_told(missing: int) -> None:
    told = story_of([event for index, event in enumerate(EVENTS) if index != missing])
    assert EVENTS[missing]["objectRef"]["name"] in [gap.name for gap in told.gaps]


def test_the_log_that_is_played_is_whole() -> None:
    assert story_of(EVENTS).gaps == ()
    assert all(one <= other for one, other in pairwise(e["requestReceivedTimestamp"] for e in EVENTS))


@given(st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5) | st.integers() | st.lists(st.none())))
def test_bodies_of_any_shape_break_nothing(body: dict[str, Any]) -> None:
    event = copy.deepcopy(EVENTS[3])
    event["responseObject"] |= {"spec": body, "status": body}
    story_of([event])
