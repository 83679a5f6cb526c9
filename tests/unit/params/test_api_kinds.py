"""The Python kinds at their edges: what they read leniently, refuse with words, and write."""

from __future__ import annotations

import pytest

from builders import objects
from modelparams.api.assignment import AssignmentSpec, AssignmentStatus
from modelparams.api.base import MESSAGE_MAX
from modelparams.api.conditions import Condition, ConditionType
from modelparams.api.rollout import RolloutSpec
from modelparams.api.version import SIGNERS_MAX, USED_BY_MAX, VerifiedFacts, VersionSpec, VersionStatus
from modelparams.errors import InvalidSpec
from modelparams.reasons import Reason

NOW = "2026-11-24T12:00:00Z"
FAILURE = {"versionName": "m-1.0.0", "manifestDigest": objects.digest("m"), "time": NOW, "final": True}


def condition(kind: str, reason: str) -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": NOW}


def test_a_wrong_spec_names_each_wrong_field_and_repeats_no_input() -> None:
    secret = "https://key:hunter2@s3.example.com"
    spec = objects.version("1.x", source=objects.source(endpoint=secret))["spec"]
    with pytest.raises(InvalidSpec) as refusal:
        VersionSpec.parse(spec)
    assert refusal.value.reason is Reason.INVALID_SPEC
    assert "version: " in str(refusal.value)
    assert "source.s3.endpoint: " in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_a_reason_of_a_newer_release_does_not_hide_the_rest() -> None:
    status = AssignmentStatus.parse({"lastFailure": {**FAILURE, "reason": "BrandNew", "message": "so it says"}})
    assert status.last_failure is not None
    assert status.last_failure.reason is Reason.INTERNAL_ERROR
    assert status.last_failure.message == "so it says"


def test_a_condition_of_a_newer_release_is_left_out() -> None:
    told = [condition("Ready", "Live"), condition("Approved", "BrandNew")]
    assert [c.type for c in VersionStatus.parse({"conditions": told}).conditions] == [ConditionType.READY]


def test_an_unknown_field_is_dropped_as_the_api_server_does() -> None:
    spec = objects.rollout()["spec"]
    assert RolloutSpec.parse({**spec, "freezeWindows": {}}) == RolloutSpec.parse(spec)


def test_a_long_message_is_cut_and_the_status_still_written() -> None:
    said = Condition.parse({**condition("Ready", "Live"), "message": "x" * 5000}).message
    assert len(said) == MESSAGE_MAX
    assert said.endswith("…")


def test_a_long_list_in_a_status_is_cut() -> None:
    status = VersionStatus.parse({"usedBy": [f"rollout-{n}" for n in range(100)]})
    assert len(status.used_by) == USED_BY_MAX
    facts = {"manifestDigest": objects.digest("m"), "sequence": 1, "blobs": 1, "sizeBytes": 1, "verifiedAt": NOW}
    assert len(VerifiedFacts.parse({**facts, "signers": ["k"] * 99}).signers) == SIGNERS_MAX


def test_a_selector_by_what_is_no_labels_key_is_told() -> None:
    spec = objects.rollout(selector={"matchLabels": {"a b": "x"}})["spec"]
    with pytest.raises(InvalidSpec, match=r"selector\.matchLabels: .*write keys that a label can have"):
        RolloutSpec.parse(spec)


def test_what_was_declared_leaves_the_rest_to_others() -> None:
    spec = objects.rollout()["spec"]
    assert RolloutSpec.parse(spec).declared() == spec
    assert RolloutSpec.parse(spec).wire()["paused"] is False


def test_the_pods_uid_is_written_as_kubernetes_writes_it() -> None:
    order = AssignmentSpec(rollout_name="web", pod_uid="u")
    assert order.wire()["podUID"] == "u"
    assert AssignmentSpec.parse(order.wire()) == order


def test_an_order_activates_only_what_it_holds() -> None:
    release = objects.release()
    held = {"rolloutName": "web", "podUID": "u", "releases": [release], "activate": release["manifestDigest"]}
    assert AssignmentSpec.parse(held).activate is not None
    with pytest.raises(InvalidSpec, match="activate must be the manifestDigest of one of releases"):
        AssignmentSpec.parse({**held, "activate": objects.digest("another")})
