"""What the API server takes and what it refuses, with which words. Python must agree on each."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from builders import crds, objects
from builders.objects import Object, assignment, digest, pod, release, rollout, source, version
from cluster.api import Api, ApiError
from modelparams.api.assignment import AssignmentSpec
from modelparams.api.base import Wire
from modelparams.api.rollout import RolloutSpec
from modelparams.api.version import VersionSpec
from modelparams.errors import InvalidSpec

pytestmark = pytest.mark.integration

PLURALS = {kind: f"{kind.lower()}s" for kind in ("ModelParamVersion", "ModelParamRollout", "ModelParamAssignment")}
SPECS: dict[str, type[Wire]] = {
    "ModelParamVersion": VersionSpec,
    "ModelParamRollout": RolloutSpec,
    "ModelParamAssignment": AssignmentSpec,
}
POD = pod("web-0", "6f1c")  # never created: what it owns would be collected, so orders that are stored have no owner
SEMVER = "write MAJOR.MINOR.PATCH[-prerelease] in lower case without build metadata, such as 1.4.2"
UNION = "type Pinned needs versionName and no range; type HighestSemver needs range and no versionName"
LONGEST = {"d" * 253 + "/" + "n" * 63: "v" * 63}
COUNT = "write a number of pods, at least 1, or a share of them from 1% to 100%"
RANGE = "write comparators of full versions with one blank between them, such as '>=1.4.0 <2.0.0'"
SIZES = "each step's pods must be no fewer than those of the steps before it"
LABELS = "write keys that a label can have, such as app or example.com/tier"
SHARES = "each step's share must be no smaller than those of the steps before it"


def create(api: Api, namespace: str, subject: Object, *, dry: bool = True) -> Object:
    path = objects.path(PLURALS[subject["kind"]], namespace)
    unowned = subject | {"metadata": {"name": subject["metadata"]["name"]}}
    return api.post(path + "?dryRun=All" * dry, unowned)


def steps(*counts: int | str) -> Object:
    return rollout(strategy={"steps": [{"pods": count} for count in counts]})


def policy(**fields: str) -> Object:
    return rollout(versionPolicy=fields)


def approval(**fields: Any) -> Object:
    said = objects.approval("1.1.0", "alice@example.com") | fields
    return {name: value for name, value in said.items() if value is not None}


def expression(**fields: Any) -> Object:
    return rollout(selector={"matchExpressions": [{"key": "tier", **fields}]})


REFUSED: dict[str, tuple[Object, str, str]] = {
    "a version of two numbers": (version("1.4"), "spec.version", SEMVER),
    "a version with a v": (version("v1.4.0"), "spec.version", SEMVER),
    "a version with a leading zero": (version("1.04.0"), "spec.version", SEMVER),
    "a version with build metadata": (version("1.4.0+gpu", name="x"), "spec.version", SEMVER),
    "a version in capitals": (version("1.4.0-RC.1", name="x"), "spec.version", SEMVER),
    "a version that ends in a dash": (version("1.4.0-rc-", name="x"), "spec.version", SEMVER),
    "a rollout's model name with capitals": (
        rollout(model="SmolLM2"),
        "spec.modelName",
        "write lower-case letters, digits and inner dashes",
    ),
    "a model name with capitals": (
        version(model="SmolLM2", name="x"),
        "spec.modelName",
        "write lower-case letters, digits and inner dashes",
    ),
    "a digest of md5": (version(manifestDigest="md5:1"), "spec.manifestDigest", "write sha256: and 64 lower-case hex"),
    "a digest in capitals": (
        version(manifestDigest=digest("x").upper().replace("SHA", "sha")),
        "spec.manifestDigest",
        "as 'modelparams publish' prints it",
    ),
    "no digest": (version(manifestDigest=None), "spec.manifestDigest", "Required value"),
    "no store": (version(source={}), "spec.source.s3", "Required value"),
    "an endpoint with a password": (
        version(source=source(endpoint="https://key:word@s3.example.com")),
        "spec.source.s3.endpoint",
        "write http(s)://host[:port] without user, path and query",
    ),
    "an endpoint that is no URL": (
        version(source=source(endpoint="s3.example.com")),
        "spec.source.s3.endpoint",
        "such as https://s3.example.com",
    ),
    "credentials in what no Secret can be called": (
        version(source=source(credentialsSecretRef={"name": "S3_keys"})),
        "spec.source.s3.credentialsSecretRef.name",
        "write the name of a Secret",
    ),
    "a port that is none": (
        version(source=source(endpoint="http://127.0.0.1:99999")),
        "spec.source.s3.endpoint",
        "write http(s)://host[:port]",
    ),
    "a key whose name leads out": (
        version(encryption={"keyRef": {"name": "../../etc/passwd"}}),
        "spec.encryption.keyRef.name",
        "segments with one slash between them, none of dots alone",
    ),
    "a key whose name has a blank": (
        version(encryption={"keyRef": {"name": "A B"}}),
        "spec.encryption.keyRef.name",
        "write letters, digits and ._:-",
    ),
    "a bucket with capitals": (version(source=source("Weights")), "spec.source.s3.bucket", "write 3 to 63 lower-case"),
    "a prefix that leads out": (
        version(source=source(prefix="../other model")),
        "spec.source.s3.prefix",
        "write path segments",
    ),
    "a lifecycle that is none": (version(lifecycle="Retired"), "spec.lifecycle", 'supported values: "Withdrawn"'),
    "pods that should be ready for longer than the deadline": (
        rollout(strategy={"minReadySeconds": 600}),
        "spec.strategy.minReadySeconds",
        "minReadySeconds must be less than progressDeadlineSeconds, or no rollout could succeed",
    ),
    "an approval of another model's version": (
        rollout(approvals=[approval(versionName="llama-1.0.0")]),
        "spec.approvals",
        "an approval must name a version of modelName, such as smollm2-1.4.2",
    ),
    "an approval of no step": (
        rollout(approvals=[approval(throughStep=0)]),
        "spec.approvals[0].throughStep",
        "should be greater than or equal to 1",
    ),
    "an approval of a step that no plan has": (
        rollout(approvals=[approval(throughStep=51)]),
        "spec.approvals[0].throughStep",
        "should be less than or equal to 50",
    ),
    "an approval of whatever has that name": (
        rollout(approvals=[approval(manifestDigest=None)]),
        "spec.approvals[0].manifestDigest",
        "Required value",
    ),
    "an approval by nobody": (
        rollout(approvals=[approval(approvedBy="")]),
        "spec.approvals[0].approvedBy",
        "should be at least 1 chars long",
    ),
    "two approvals of one version by one person": (
        rollout(approvals=[approval(), approval(throughStep=2)]),
        "spec.approvals[1]",
        "Duplicate value",
    ),
    "a wish to hurry whatever has that name": (
        rollout(expedite={"versionName": "smollm2-1.1.0"}),
        "spec.expedite.manifestDigest",
        "Required value",
    ),
    "a wish to hurry another model's version": (
        rollout(expedite=objects.expedite("1.0.0", model="llama")),
        "spec.expedite.versionName",
        "expedite must name a version of modelName, such as smollm2-1.4.2",
    ),
    "a pin without a name": (policy(type="Pinned"), "spec.versionPolicy", UNION),
    "a pin with a range": (
        policy(type="Pinned", versionName="smollm2-1.0.0", range=">=1.0.0"),
        "spec.versionPolicy",
        UNION,
    ),
    "a pin to another model": (
        policy(type="Pinned", versionName="llama-1.0.0"),
        "spec.versionPolicy.versionName",
        "versionName must name a version of smollm2: write smollm2-<version>",
    ),
    "a pin to another model with as long a name": (
        policy(type="Pinned", versionName="smollm3-1.0.0"),
        "spec.versionPolicy.versionName",
        "versionName must name a version of smollm2: write smollm2-<version>",
    ),
    "a pin without a dash": (
        policy(type="Pinned", versionName="smollm2.1.0.0"),
        "spec.versionPolicy.versionName",
        "versionName must name a version of smollm2: write smollm2-<version>",
    ),
    "a pin to what is no version": (
        policy(type="Pinned", versionName="smollm2-latest"),
        "spec.versionPolicy.versionName",
        "write smollm2-<version>, such as smollm2-1.4.2",
    ),
    "the highest of nothing": (policy(type="HighestSemver"), "spec.versionPolicy", UNION),
    "the highest with a name": (
        policy(type="HighestSemver", range=">=1.0.0", versionName="smollm2-1.0.0"),
        "spec.versionPolicy",
        UNION,
    ),
    "a policy that is none": (policy(type="Newest"), "spec.versionPolicy.type", '"HighestSemver", "Pinned"'),
    "a range with a wildcard": (rollout(range="1.x"), "spec.versionPolicy.range", RANGE),
    "a range with commas": (rollout(range=">=1.0.0,<2.0.0"), "spec.versionPolicy.range", RANGE),
    "a step of no pods": (steps(0), "spec.strategy.steps[0].pods", COUNT),
    "a step of ten times all": (steps("1000%"), "spec.strategy.steps[0].pods", COUNT),
    "a step of more than all": (steps("101%"), "spec.strategy.steps[0].pods", COUNT),
    "a step of no percent": (steps("0%"), "spec.strategy.steps[0].pods", COUNT),
    "a step in words": (steps("half"), "spec.strategy.steps[0].pods", COUNT),
    "steps that shrink": (steps(3, 2), "spec.strategy.steps", SIZES),
    "shares that shrink": (steps("25%", 4, "5%"), "spec.strategy.steps", SHARES),
    "a share of nobody may be unavailable": (
        rollout(strategy={"maxUnavailable": "0%"}),
        "spec.strategy.maxUnavailable",
        COUNT,
    ),
    "nobody may be unavailable": (rollout(strategy={"maxUnavailable": 0}), "spec.strategy.maxUnavailable", COUNT),
    "no time to progress": (
        rollout(strategy={"progressDeadlineSeconds": 0}),
        "spec.strategy.progressDeadlineSeconds",
        "greater than or equal to 1",
    ),
    "a pause back in time": (
        rollout(strategy={"steps": [{"pods": 1, "pause": {"durationSeconds": -1}}]}),
        "spec.strategy.steps[0].pause.durationSeconds",
        "greater than or equal to 0",
    ),
    "a failure that is ignored": (
        rollout(strategy={"onFailure": "Ignore"}),
        "spec.strategy.onFailure",
        'supported values: "Rollback", "Pause"',
    ),
    "a selector In nothing": (
        expression(operator="In"),
        "spec.selector.matchExpressions[0]",
        "operators In and NotIn need values, Exists and DoesNotExist take none",
    ),
    "a selector that Exists with values": (
        expression(operator="Exists", values=["a"]),
        "spec.selector.matchExpressions[0]",
        "Exists and DoesNotExist take none",
    ),
    "a selector's key with a blank": (
        expression(key="a b", operator="Exists"),
        "spec.selector.matchExpressions[0].key",
        "write a label's key, such as app or example.com/tier",
    ),
    "a selector's value that no label has": (
        expression(operator="In", values=["!!"]),
        "spec.selector.matchExpressions[0].values[0]",
        "write a label's value",
    ),
    "a selector's key with too long a domain": (
        expression(key="d" * 254 + "/tier", operator="Exists"),
        "spec.selector.matchExpressions[0].key",
        "write at most 253 characters before the slash of a label's key",
    ),
    "a selector for a key that no label has": (
        rollout(selector={"matchLabels": {"app": "web", "a b": "x"}}),
        "spec.selector.matchLabels",
        LABELS,
    ),
    "a selector for a key without a name": (
        rollout(selector={"matchLabels": {"example.com/": "x"}}),
        "spec.selector.matchLabels",
        LABELS,
    ),
    "a selector for an empty key": (rollout(selector={"matchLabels": {"": "x"}}), "spec.selector.matchLabels", LABELS),
    "a selector for a key in a domain with capitals": (
        rollout(selector={"matchLabels": {"Example.com/tier": "x"}}),
        "spec.selector.matchLabels",
        LABELS,
    ),
    "a selector for a key of too long a name": (
        rollout(selector={"matchLabels": {"n" * 64: "x"}}),
        "spec.selector.matchLabels",
        LABELS,
    ),
    "a selector for a key with too long a domain": (
        rollout(selector={"matchLabels": {"d" * 254 + "/tier": "x"}}),
        "spec.selector.matchLabels",
        "write at most 253 characters before the slash of a label's key",
    ),
    "a selector for too long a value": (
        rollout(selector={"matchLabels": {"tier": "v" * 64}}),
        "spec.selector.matchLabels.tier",
        "may not be more than 63",
    ),
    "a selector for a value that no label has": (
        rollout(selector={"matchLabels": {"tier": "!!"}}),
        "spec.selector.matchLabels[tier]",
        "write a label's value",
    ),
    "an order to activate what is not held": (
        assignment(POD, activate=digest("another")),
        "spec.activate",
        "activate must be the manifestDigest of one of releases",
    ),
    "an order without a pod": (assignment(POD, podUID=None), "spec.podUID", "Required value"),
    "an order to hold three": (
        assignment(POD, releases=[release("1.0.0"), release("1.1.0"), release("1.2.0")]),
        "spec.releases",
        "must have at most 2 items",
    ),
}

TAKEN: dict[str, Object] = {
    "a pause that waits for a person": rollout(strategy={"steps": [{"pods": 1, "pause": {}}]}),
    "pods that are watched for a while": rollout(strategy={"minReadySeconds": 30, "keepPreviousSeconds": 0}),
    "approvals of two people": rollout(approvals=[approval(), approval(approvedBy="bob@example.com", throughStep=2)]),
    "a wish to hurry a version": rollout(expedite=objects.expedite("1.1.0")),
    "a version": version(),
    "a pre-release": version("2.0.0-rc.1"),
    "a version on AWS": version(source=source(endpoint=None) | {"s3": {"bucket": "weights"}}),
    "a version on a port": version(source=source(endpoint="http://127.0.0.1:7070")),
    "a version on IPv6": version(source=source(endpoint="http://[::1]:7070/")),
    "a version with credentials": version(source=source(credentialsSecretRef={"name": "modelparams-s3"})),
    "a version on the last port": version(source=source(endpoint="http://127.0.0.1:65535")),
    "a key in a key service": version(
        encryption={"keyRef": {"name": "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab"}}
    ),
    "a withdrawn version": version(lifecycle="Withdrawn", suspend=True),
    "a rollout": rollout(),
    "a pin": rollout(pin="1.0.0"),
    "an exact range": rollout(range="1.4.2"),
    "a range with a pre-release": rollout(range=">=1.4.0-rc.1 !=1.4.1 <2.0.0"),
    "no steps": steps(),
    "counts and shares mixed": steps(1, "5%", 1, 4, "25%", "100%"),
    "a timed pause": rollout(strategy={"steps": [{"pods": "10%", "pause": {"durationSeconds": 600}}]}),
    "a selector": expression(operator="NotIn", values=["canary"]),
    "a selector for what has no such label": expression(operator="DoesNotExist"),
    "a selector by a key with a domain": expression(key="example.com/tier", operator="In", values=["A_b.c", ""]),
    "a selector for labels": rollout(selector={"matchLabels": LONGEST | {"app": "", "example.com/tier": "A_b.c"}}),
    "a selector for as many labels as can be": rollout(
        selector={"matchLabels": {f"{'d.' * 126}d/{n:063}": "v" * 63 for n in range(32)}}
    ),
    "a selector by the longest key": expression(key=next(iter(LONGEST)), operator="Exists"),
    "all controls": rollout(paused=True, suspend=True, retryToken="2026-11-24-a"),
    "an order": assignment(POD),
    "an order to hold": assignment(POD, releases=[release("1.0.0"), release("1.1.0")], activate=None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_words_that_help(api: Api, namespace: str, case: str) -> None:
    subject, field, words = REFUSED[case]
    with pytest.raises(ApiError) as refusal:
        create(api, namespace, subject)
    assert refusal.value.code == 422
    assert f"{field}: " in refusal.value.message
    assert words in refusal.value.message


@pytest.mark.parametrize("case", REFUSED)
def test_python_refuses_the_same(case: str) -> None:
    subject = REFUSED[case][0]
    with pytest.raises(InvalidSpec):
        SPECS[subject["kind"]].parse(subject["spec"])


@pytest.mark.parametrize("case", TAKEN)
def test_it_is_taken_and_reads_back_as_written(api: Api, namespace: str, case: str) -> None:
    subject = TAKEN[case]
    stored = create(api, namespace, subject)
    model = SPECS[subject["kind"]]
    assert model.parse(stored["spec"]) == model.parse(subject["spec"])


@pytest.mark.parametrize("name", ["production", "smollm3-1.0.0", "smollm2-1.0.1", "smollm2-1.0.0-rc.1"])
def test_a_name_that_does_not_match_is_refused_with_the_right_one(api: Api, namespace: str, name: str) -> None:
    with pytest.raises(ApiError, match=r"metadata.name must be smollm2-1\.0\.0"):
        create(api, namespace, version("1.0.0", name=name))


@pytest.mark.parametrize("number", ["1.4", "v1.4.0", "1.4.0+gpu", "1.4.0-RC.1", "1.4.0-rc-"])
def test_of_what_is_no_version_no_name_is_asked(api: Api, namespace: str, number: str) -> None:
    with pytest.raises(ApiError, match=SEMVER.partition("[")[0]) as refusal:
        create(api, namespace, version(number, name="x"))
    assert "metadata.name" not in refusal.value.message


def test_nor_of_what_is_no_model(api: Api, namespace: str) -> None:
    with pytest.raises(ApiError, match="write lower-case letters") as refusal:
        create(api, namespace, version(model="SmolLM2", name="x"))
    assert "metadata.name" not in refusal.value.message


EDITS: dict[str, tuple[Object, Object, str]] = {
    "another model": (version(), {"modelName": "llama"}, "modelName is immutable: create another ModelParamVersion"),
    "another version": (version(), {"version": "1.0.1"}, "version is immutable: create another ModelParamVersion"),
    "other bytes": (version(), {"manifestDigest": digest("other")}, "manifestDigest is immutable: publish under a new"),
    "another bucket": (version(), {"source": {"s3": {"bucket": "other"}}}, "source is immutable"),
    "a prefix dropped": (version(), {"source": {"s3": {"prefix": None}}}, "source is immutable, also what it leaves"),
    "credentials added": (
        version(),
        {"source": {"s3": {"credentialsSecretRef": {"name": "modelparams-s3"}}}},
        "source is immutable, also what it leaves out",
    ),
    "credentials dropped": (
        version(source=source(credentialsSecretRef={"name": "modelparams-s3"})),
        {"source": {"s3": {"credentialsSecretRef": None}}},
        "source is immutable, also what it leaves out",
    ),
    "another key": (version(), {"encryption": {"keyRef": {"name": "other"}}}, "encryption is immutable, also"),
    "a rollout of another model": (rollout(), {"modelName": "llama"}, "modelName is immutable: delete this rollout"),
    "a selector added": (rollout(), {"selector": {"matchLabels": {"tier": "a"}}}, "selector is immutable"),
    "a selector dropped": (
        rollout(selector={"matchLabels": {"tier": "a"}}),
        {"selector": None},
        "selector is immutable, also what it leaves out",
    ),
    "a term that goes back": (assignment(POD, term=7), {"term": 6}, "term may not go back: another operator leads"),
    "a term dropped": (assignment(POD, term=7), {"term": None}, "term may not go back: another operator leads"),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edit_of_what_is_immutable_is_refused_and_nothing_changes(api: Api, namespace: str, case: str) -> None:
    subject, edit, words = EDITS[case]
    stored = create(api, namespace, subject, dry=False)
    path = objects.path(PLURALS[subject["kind"]], namespace, subject["metadata"]["name"])
    with pytest.raises(ApiError, match=words.replace("(", r"\(")) as refusal:
        api.patch(path, {"spec": edit})
    assert refusal.value.code == 422
    assert api.get(path)["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


CHANGES: dict[str, tuple[Object, Object]] = {
    "withdraw": (version(), {"lifecycle": "Withdrawn"}),
    "take the withdrawal back": (version(lifecycle="Withdrawn"), {"lifecycle": None}),
    "suspend a version": (version(), {"suspend": True}),
    "pin": (rollout(), {"versionPolicy": {"type": "Pinned", "versionName": "smollm2-1.0.0", "range": None}}),
    "pause": (rollout(), {"paused": True}),
    "retry": (rollout(retryToken="a"), {"retryToken": "b"}),
    "other steps": (rollout(), {"strategy": {"steps": []}}),
    "a newer leader's order": (assignment(POD, term=7), {"term": 8}),
    "the same leader's order": (assignment(POD, term=7), {"term": 7, "attempt": "1"}),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_people_and_leaders_may_change_is_taken(api: Api, namespace: str, case: str) -> None:
    subject, edit = CHANGES[case]
    before = create(api, namespace, subject, dry=False)
    path = objects.path(PLURALS[subject["kind"]], namespace, subject["metadata"]["name"])
    after = api.patch(path, {"spec": edit})
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


def _begin(message: str) -> str:
    """Its first words; a messageExpression puts the object's own name after them."""
    return " ".join(message.split()[:5])


def test_every_rule_on_a_spec_has_refused_something() -> None:
    words = [said for _, _, said in [*REFUSED.values(), *EDITS.values()]]
    untold = [
        rule["message"]
        for plural in crds.PLURALS
        for at, node in crds.nodes(crds.schema(plural, "spec"))
        for rule in node.get("x-kubernetes-validations", ())
        if not at.startswith("releases[]")  # a version's own, repeated
        and not any(said in rule["message"] or _begin(rule["message"]) in said for said in words)
    ]
    assert untold == []


@pytest.mark.parametrize(
    "text",
    ["1.0.0", "1.0.0-0-1", "1.0.0-01", "1.0.0--a", "1.0.0-a..b", "1.0.0-rc.1.x-y", "1.0.0\n", "0.0.0", "1.0.0-0a.b0"],
)
def test_the_api_servers_regular_expressions_read_a_version_as_pythons_do(api: Api, namespace: str, text: str) -> None:
    subject = rollout(range=text)

    def is_taken() -> bool:
        with contextlib.suppress(ApiError):
            create(api, namespace, subject)
            return True
        return False

    def is_read() -> bool:
        with contextlib.suppress(InvalidSpec):
            RolloutSpec.parse(subject["spec"])
            return True
        return False

    assert is_taken() is is_read()
