"""The edges of the shell: settings, sources and credentials, events, saved objects, the default rollout."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from builders.fake_api import FakeAPI, running
from builders.rollouts import failed, status, version_spec
from builders.sealed import built, verified
from modelparams import errors
from modelparams.api.release import SUBDOMAIN_PATTERN, S3Source, SecretReference
from modelparams.api.rollout import RolloutStatus
from modelparams.names import ModelName, Version
from modelparams_operator import settings
from modelparams_operator.__main__ import main
from modelparams_operator.core.default_rollout import RolloutOrigin, default_spec, forlorn_defaults, superseded_defaults
from modelparams_operator.core.explain import explain
from modelparams_operator.shell import views
from modelparams_operator.shell.check import credentials, facts, require_allowed, require_no_metadata_service
from modelparams_operator.shell.events import EventRecorder, Happened, Regarding
from modelparams_operator.shell.ports import EVENTS, SECRETS, VERSIONS, ObjectKey
from modelparams_operator.shell.saved import snapshots


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("MODELPARAMS_TRUST", "/trust.json")
    return monkeypatch


def test_settings_have_safe_defaults(environment: pytest.MonkeyPatch) -> None:
    found = settings.load()
    assert (found.trust, found.watch_namespaces, found.lease_duration) == (Path("/trust.json"), (), 15)


def test_lists_are_written_with_commas(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MODELPARAMS_WATCH_NAMESPACES", "a, b,,c")
    environment.setenv("MODELPARAMS_ALLOWED_ENDPOINTS", "https://s3.example.com,aws")
    found = settings.load()
    assert found.watch_namespaces == ("a", "b", "c")
    assert found.allowed_endpoints == ("https://s3.example.com", "aws")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MODELPARAMS_METRICS_PORT", "70000"),
        ("MODELPARAMS_VERIFY_WORKERS", "many"),
        ("MODELPARAMS_ALLOWED_ENDPOINTS", "s3.example.com"),
        ("MODELPARAMS_LEASE_RENEW_DEADLINE", "60"),
        ("MODELPARAMS_LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_setting_is_named(environment: pytest.MonkeyPatch, variable: str, value: str) -> None:
    environment.setenv(variable, value)
    with pytest.raises(errors.UsageError, match=variable.removeprefix("MODELPARAMS_")):
        settings.load()


def test_a_missing_trust_policy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELPARAMS_TRUST", raising=False)
    with pytest.raises(errors.UsageError, match=r"MODELPARAMS_TRUST: .* 'modelparams-operator run --help' lists"):
        settings.load()


def test_the_help_that_a_bad_setting_sends_to_lists_each_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    words = set(re.split(r"[\s=]", capsys.readouterr().out))
    assert {f"MODELPARAMS_{name.upper()}" for name in settings.Settings.model_fields} <= words


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9000", "https://s3.example.com/"])
def test_without_an_allow_list_any_ordinary_endpoint_will_do(endpoint: str) -> None:
    require_allowed(S3Source(endpoint=endpoint, bucket="params"), ())


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254",
        "http://169.254.170.2:80/",
        "http://[fe80::1]:80",
        "http://[::ffff:169.254.169.254]",
        "http://2852039166",
        "http://0xa9fea9fe",
        "http://169.254.43518",
        "http://[::169.254.169.254]",
        "http://[64:ff9b::a9fe:a9fe]",
        "http://[64:ff9b:1::a9fe:a9fe]",
        "http://[::ffff:0:a9fe:a9fe]",
        "http://[2002:a9fe:a9fe::1]",
        "http://[fd00:ec2::254]",
        "http://[fd20:ce::254]",
        "http://100.100.100.200",
        "http://168.63.129.16",
    ],
)
@pytest.mark.parametrize("is_listed", [False, True])
def test_link_local_endpoints_are_refused_since_clouds_serve_credentials_there(endpoint: str, is_listed: bool) -> None:
    with pytest.raises(errors.SourceNotAllowed, match="no allow-list opens one"):
        require_allowed(S3Source(endpoint=endpoint, bucket="params"), (endpoint,) if is_listed else ())


def test_a_refused_endpoint_is_named_with_its_port() -> None:
    with pytest.raises(errors.SourceNotAllowed, match=r"http://127\.0\.0\.1:7071 is not on"):
        require_allowed(S3Source(endpoint="http://127.0.0.1:7071", bucket="params"), ("http://127.0.0.1:7070",))


def test_a_name_that_leads_to_a_metadata_service_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"metadata.internal": "169.254.169.254", "s3.example.com": "203.0.113.7"}
    where = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: [(*where[0][:4], (found[host], 0))])
    require_no_metadata_service(S3Source(endpoint="https://s3.example.com", bucket="params"))
    with pytest.raises(errors.SourceNotAllowed, match=r"metadata.internal resolves"):
        require_no_metadata_service(S3Source(endpoint="http://metadata.internal", bucket="params"))


def test_a_name_that_does_not_resolve_is_left_to_the_store() -> None:
    require_no_metadata_service(S3Source(endpoint="https://nobody.invalid", bucket="params"))


def test_the_lease_lies_where_the_operators_own_role_lets_it(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("MODELPARAMS_LEASE_NAMESPACE", raising=False)
    environment.setattr(settings, "_OWN_NAMESPACE", tmp_path / "namespace")
    assert settings.load().lease_namespace == "modelparams-system"
    (tmp_path / "namespace").write_text("elsewhere\n")
    assert settings.load().lease_namespace == "elsewhere"


@pytest.mark.parametrize("endpoint", ["", "https://s3.example.com.evil.test", "http://s3.example.com"])
def test_an_allow_list_is_exact(endpoint: str) -> None:
    with pytest.raises(errors.SourceNotAllowed):
        require_allowed(S3Source(endpoint=endpoint, bucket="params"), ("https://s3.example.com",))


def test_an_endpoint_with_a_password_is_refused_without_showing_it() -> None:
    spec = version_spec("1.0.0").wire()
    spec["source"]["s3"]["endpoint"] = "https://user:hunter2@evil.test/?token=abc"
    metadata = {"name": "chat-1.0.0", "namespace": "ns", "uid": "1", "resourceVersion": "1"}
    with pytest.raises(errors.InvalidSpec, match=r"source\.s3\.endpoint") as refused:
        views.version({"metadata": metadata, "spec": spec})
    assert "hunter2" not in str(refused.value)
    assert "abc" not in str(refused.value)


def _secret(**data: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"name": "s3"}, "data": encoded}


SOURCE = S3Source(bucket="params", credentials_secret_ref=SecretReference(name="s3"))


def test_credentials_come_from_the_named_secret_alone() -> None:
    api = FakeAPI()
    api.put(SECRETS, _secret(accessKeyID="id", secretAccessKey="key\n", sessionToken="token"))
    found = running(lambda: credentials(api, "ns", SOURCE))
    assert found is not None
    assert (found.access_key_id, found.secret_access_key, found.session_token) == ("id", "key", "token")
    assert api.calls == [("get", "Secret", "s3")]


def test_without_a_reference_they_are_the_operators_own() -> None:
    assert running(lambda: credentials(FakeAPI(), "ns", S3Source(bucket="params"))) is None


@pytest.mark.parametrize("secret", [None, _secret(accessKeyID="id"), {"metadata": {"name": "s3"}, "data": {"x": "%"}}])
def test_a_secret_that_is_missing_or_half_is_a_denial_that_is_tried_again(secret: dict[str, Any] | None) -> None:
    api = FakeAPI()
    if secret:
        api.put(SECRETS, secret)
    with pytest.raises(errors.StoreDenied, match="Secret s3"):
        running(lambda: credentials(api, "ns", SOURCE))


def test_a_secret_that_no_role_lists_is_to_be_listed() -> None:
    api = FakeAPI()
    api.faults["get"] += [errors.APIDenied("no right on secrets")]
    with pytest.raises(errors.StoreDenied, match=r"may not be read by the operator\. List its name in the namespace's"):
        running(lambda: credentials(api, "ns", SOURCE))


REGARDING = Regarding(VERSIONS, ObjectKey("ns", "chat-1.0.0"), "uid-1")
VERIFIED = Happened("Normal", "Verified", "all is well")


def test_an_event_is_written_once_a_minute_and_then_counted() -> None:
    async def test() -> None:
        api, time = FakeAPI(), [1000.0]
        recorder = EventRecorder(api, "me", clock=lambda: time[0])
        for _ in range(5):
            await recorder.record(REGARDING, VERIFIED)
        time[0] += 61
        await recorder.record(REGARDING, VERIFIED)
        (event,) = api.objects[EVENTS.plural].values()
        assert event["series"]["count"] == 2
        assert event["regarding"]["uid"] == "uid-1"
        assert len(api.writes()) == 3

    running(test)


@pytest.mark.parametrize("note", ["a" * 5000, "é" * 700, "a" + "漢" * 900])
def test_a_note_is_cut_to_the_bytes_that_the_api_takes(note: str) -> None:
    async def test() -> None:
        api = FakeAPI()
        await EventRecorder(api, "me").record(REGARDING, Happened("Warning", "SealBroken", note))
        (event,) = api.objects[EVENTS.plural].values()
        assert 990 < len(event["note"].encode()) <= 1024
        assert note.startswith(event["note"])

    running(test)


@pytest.mark.parametrize("cut", ["-", ".", ".-"])
def test_an_event_of_a_long_name_has_a_name_that_the_api_takes(cut: str) -> None:
    async def test() -> None:
        api, name = FakeAPI(), "a" * (200 - len(cut)) + cut + "b" * 40
        await EventRecorder(api, "me").record(Regarding(VERSIONS, ObjectKey("ns", name), "uid-1"), VERIFIED)
        (event,) = api.objects[EVENTS.plural].values()
        assert re.fullmatch(SUBDOMAIN_PATTERN, event["metadata"]["name"])

    running(test)


def test_an_event_that_cannot_be_written_stops_nothing() -> None:
    async def test() -> None:
        api = FakeAPI()
        api.faults["create"] += [errors.APIDenied("no right on events")]
        await EventRecorder(api, "me").record(REGARDING, VERIFIED)
        assert not api.objects[EVENTS.plural]

    running(test)


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        pytest.param(["1.4.2"], ">=1.0.0 <2.0.0", id="its-major"),
        pytest.param(["2.0.0", "1.3.0"], ">=1.0.0 <2.0.0", id="the-lowest-of-many"),
        pytest.param(["1.0.0-rc.1"], ">=1.0.0-rc.1 <2.0.0", id="a-first-pre-release-is-named"),
        pytest.param(["0.1.0"], ">=0.0.0 <1.0.0", id="before-the-first-major"),
    ],
)
def test_a_default_rollout_follows_the_major_of_the_lowest_version(versions: list[str], wanted: str) -> None:
    spec = default_spec(ModelName("chat"), map(Version, versions))
    assert spec is not None
    assert spec.version_policy.range == wanted


def test_without_a_version_there_is_no_default_rollout() -> None:
    assert default_spec(ModelName("chat"), []) is None


@pytest.mark.parametrize(
    ("rollouts", "gone"),
    [
        ([("d", True)], ()),
        ([("d", True), ("mine", False)], ("d",)),
        ([("one", False), ("two", False)], ()),
        ([], ()),
    ],
)
def test_a_default_gives_way_only_to_a_users(rollouts: list[tuple[str, bool]], gone: tuple[str, ...]) -> None:
    assert superseded_defaults([RolloutOrigin(*rollout, RolloutStatus()) for rollout in rollouts]) == gone


@pytest.mark.parametrize(
    ("origin", "has_versions", "has_pods", "gone"),
    [
        pytest.param(RolloutOrigin("d", True, RolloutStatus()), False, False, ("d",), id="nobody-needs-it"),
        pytest.param(RolloutOrigin("d", False, RolloutStatus()), False, False, (), id="a-users"),
        pytest.param(RolloutOrigin("d", True, RolloutStatus()), True, False, (), id="there-is-a-version"),
        pytest.param(RolloutOrigin("d", True, RolloutStatus()), False, True, (), id="there-is-a-pod"),
        pytest.param(RolloutOrigin("d", True, status("1.0.0")), False, False, (), id="it-knows-what-was-live"),
        pytest.param(
            RolloutOrigin("d", True, status(failed_versions=(failed("1.0.0"),))),
            False,
            False,
            (),
            id="it-knows-what-failed",
        ),
    ],
)
def test_a_default_goes_with_its_model_unless_it_has_something_to_tell(
    origin: RolloutOrigin, has_versions: bool, has_pods: bool, gone: tuple[str, ...]
) -> None:
    assert forlorn_defaults([origin], has_versions=has_versions, has_pods=has_pods) == gone


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"items": 1}',
        '{"items": [{}]}',
        json.dumps(
            {"items": [{"apiVersion": "modelparams.dev/v1alpha1", "kind": "ModelParamRollout", "metadata": {}}]}
        ),
    ],
)
def test_what_is_no_snapshot_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it holds neither a snapshot nor objects as an API server gives them$"):
        snapshots(text)


def test_saved_objects_are_explained_as_the_operator_would_plan_them() -> None:
    version = {
        "apiVersion": "modelparams.dev/v1alpha1",
        "kind": "ModelParamVersion",
        "metadata": {"name": "chat-1.0.0", "namespace": "ns", "uid": "1", "resourceVersion": "1"},
        "spec": version_spec("1.0.0").wire(),
    }
    rollout = {
        "apiVersion": "modelparams.dev/v1alpha1",
        "kind": "ModelParamRollout",
        "metadata": {"name": "mine", "namespace": "ns", "uid": "2", "resourceVersion": "2"},
        "spec": {"modelName": "chat", "versionPolicy": {"type": "HighestSemver", "range": ">=1.0.0"}},
    }
    (snapshot,) = snapshots(json.dumps({"kind": "List", "items": [version, rollout]}))
    assert "verify chat-1.0.0" in explain(snapshot)


def test_words_of_objects_that_are_explained_steer_no_terminal() -> None:
    spec = {"modelName": "chat", "versionPolicy": {"type": "HighestSemver", "range": ">=1.0.0"}}
    names = {"name": "mine\x1b[2J", "namespace": "ns", "uid": "2", "resourceVersion": "2"}
    kind = {"apiVersion": "modelparams.dev/v1alpha1", "kind": "ModelParamRollout"}
    saved = {"kind": "List", "items": [{**kind, "metadata": names, "spec": spec}]}
    command = [sys.executable, "-m", "modelparams_operator", "explain", "-"]
    ended = subprocess.run(command, input=json.dumps(saved), capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("rollout mine\\u001b[2J at ")


@pytest.mark.parametrize("limit", [None, datetime(2100, 1, 2, 3, 4, 5, tzinfo=UTC)])
def test_a_check_remembers_until_when_a_version_may_be_served(limit: datetime | None) -> None:
    found = facts(verified(built(not_after=limit)))
    assert found.not_after == limit
    assert type(found).parse(found.wire()) == found
