"""From objects to what the planner sees."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from builders.fake_api import FakeAPI, running
from builders.rollouts import NOW, desired, facts, final, pod, version_spec
from modelparams.api import MODEL_LABEL
from modelparams.api.version import VersionStatus
from modelparams.names import ModelName
from modelparams_operator.core.default_rollout import handed_over
from modelparams_operator.shell import views
from modelparams_operator.shell.observe import Model, joined, read, version_views
from modelparams_operator.shell.ports import ROLLOUTS, VERSIONS, ModelKey, ObjectKey
from modelparams_operator.shell.views import Custom, Pod

FOUND, REMEMBERED, OTHER = facts("1.0.0"), facts("1.0.0", sequence=7), facts("1.0.0", content="other bytes")
REFUSED = final()


def model(status: VersionStatus) -> Model:
    """A namespace with one version, whose object says `status`."""
    key = ObjectKey("ns", "chat-1.0.0")
    known = Custom(key, "uid", 1, "1", False, version_spec("1.0.0"), status)
    return Model(ModelKey("ns", ModelName("chat")), (known,), ())


def test_what_a_version_remembers_of_its_bytes_goes_before_what_the_check_says_now() -> None:
    view = version_views(model(VersionStatus(verified=REMEMBERED)), lambda *_: (None, REFUSED))[0]
    assert (view.facts, view.failure) == (REMEMBERED, None)


@pytest.mark.parametrize("status", [VersionStatus(), VersionStatus(verified=OTHER)], ids=["nothing", "other-bytes"])
def test_facts_that_are_not_about_its_bytes_do_not_hide_what_the_check_says(status: VersionStatus) -> None:
    """A status may be restored from a backup, or be written by a person: it must not hide a refusal for good."""
    assert version_views(model(status), lambda *_: (FOUND, None))[0].facts == FOUND
    refused = version_views(model(status), lambda *_: (None, REFUSED))[0]
    assert (refused.facts, refused.failure, refused.is_refused) == (None, REFUSED, True)


def test_what_users_write_beside_a_spec_is_not_kept_however_many_objects_they_make() -> None:
    async def test() -> None:
        api = FakeAPI()
        spec = {**version_spec("1.0.0").wire(), "manifestDigest": "sha256:short"}
        metadata = {"name": "chat-1.0.0", "annotations": {"note": "x" * 200_000}}
        api.put(VERSIONS, {"metadata": metadata, "spec": spec})
        (broken,) = (await read(api, ModelKey("ns", "chat"))).broken
        assert "annotations" not in broken.subject["metadata"]

    running(test)


@pytest.mark.parametrize(
    ("fields", "spec", "is_default"),
    [
        pytest.param({"f:spec": {"f:retryToken": {}}}, {"retryToken": "again"}, True, id="another-try"),
        pytest.param({"f:spec": {"f:paused": {}}}, {"paused": False}, True, id="a-pause-that-is-over"),
        pytest.param({"f:spec": {"f:paused": {}}}, {"paused": True}, False, id="a-pause"),
        pytest.param({"f:spec": {"f:suspend": {}}}, {"suspend": True}, False, id="a-suspension"),
        pytest.param({"f:spec": {"f:strategy": {}, "f:paused": {}}}, {}, False, id="steps"),
        pytest.param({"f:spec": {"f:versionPolicy": {"f:range": {}}}}, {}, False, id="another-range"),
        pytest.param({"f:metadata": {"f:annotations": {}}}, {}, False, id="what-a-deployer-tracks"),
        pytest.param(None, {}, False, id="nobody-knows-what"),
    ],
)
def test_a_default_rollout_is_its_editor_s_but_not_who_asked_for_another_try_s(
    fields: dict[str, Any] | None, spec: dict[str, Any], is_default: bool
) -> None:
    entry = {"manager": "kubectl-patch", "operation": "Update"} | ({} if fields is None else {"fieldsV1": fields})
    ours = {"manager": "modelparams-operator", "operation": "Update", "fieldsV1": {"f:spec": {"f:modelName": {}}}}
    metadata = {"labels": views.DEFAULT_LABELS, "managedFields": [ours, entry]}
    spec = {**desired().spec.wire(), **spec}
    subject = FakeAPI().put(ROLLOUTS, {"metadata": {"name": "chat-default", **metadata}, "spec": spec})
    assert views.rollout(subject).is_default is is_default


def test_a_pod_that_has_ended_is_none_of_the_model_s() -> None:
    there = {
        name: Pod(name, f"uid-{name}", "chat", {MODEL_LABEL: "chat"}, ready=False, deleting=False, finished=finished)
        for name, finished in (("web-0", False), ("job-0", True))
    }
    assert [one.name for one in joined(Model(ModelKey("ns", "chat"), (), ()), there, {}).pods] == ["web-0"]


@pytest.mark.parametrize(("uid", "names"), [("uid-a", ["a"]), ("uid-later", [])])
def test_the_order_of_an_earlier_namesake_is_handed_to_nobody(uid: str, names: list[str]) -> None:
    ordered = dataclasses.replace(pod("a", "1.0.0", rollout="chat-default"), uid=uid)
    made = handed_over([ordered], {"a": ("mine",)}, {"chat-default"})
    assert [one.pod_name for one in made] == names


@pytest.mark.parametrize(
    ("condition", "since"),
    [
        ({"status": "True", "lastTransitionTime": "2026-11-24T12:00:00Z"}, NOW),
        ({"status": "False", "lastTransitionTime": "2026-11-24T12:00:00Z"}, None),
        ({"status": "True", "lastTransitionTime": "yesterday"}, None),
        ({"status": "True", "lastTransitionTime": "2026-11-24T12:00:00"}, None),
        ({"status": "True"}, None),
    ],
    ids=["ready", "not-ready", "no-time", "a-time-of-no-zone", "untold"],
)
def test_since_when_a_pod_is_ready_is_read_from_its_condition(
    condition: dict[str, str], since: datetime | None
) -> None:
    subject = {"metadata": {"name": "a", "uid": "u"}, "status": {"conditions": [{"type": "Ready", **condition}]}}
    assert views.pod(subject).ready_since == since
