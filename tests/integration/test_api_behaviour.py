"""How the kinds behave on a real API server: defaults, pruning, status, ratcheting, apply conflicts, columns."""

from __future__ import annotations

import copy
import itertools
import uuid
from collections.abc import Iterator

import pytest

from builders import crds, objects
from builders.kstatus import KStatus, kstatus
from builders.objects import Object, assignment, digest, pod, release, rollout, version
from cluster.api import Api, ApiError
from cluster.kubectl import Kubectl
from cluster.process import wait_until

pytestmark = pytest.mark.integration

VERSIONS, ROLLOUTS, ASSIGNMENTS = "modelparamversions", "modelparamrollouts", "modelparamassignments"
NOW = "2026-11-24T12:00:00Z"


def create(api: Api, namespace: str, subject: Object) -> Object:
    return api.post(objects.path(f"{subject['kind'].lower()}s", namespace), subject)


def create_pod(api: Api, namespace: str, name: str) -> Object:
    return api.post(f"/api/v1/namespaces/{namespace}/pods", pod(name))


def condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def test_a_rollout_shows_the_plan_that_it_did_not_name(api: Api, namespace: str) -> None:
    stored = create(api, namespace, rollout())
    assert stored["spec"]["strategy"] == {
        "steps": [{"pods": 1}, {"pods": "25%"}],
        "maxUnavailable": 1,
        "minReadySeconds": 0,
        "progressDeadlineSeconds": 600,
        "onFailure": "Rollback",
        "rollbackWindow": {"revisions": 3},
    }
    assert stored["spec"].keys() == {"modelName", "selector", "versionPolicy", "strategy"}


@pytest.mark.parametrize("subject", [version(), rollout()], ids=["version", "rollout"])
def test_an_object_is_in_progress_from_the_first_second(api: Api, namespace: str, subject: Object) -> None:
    stored = create(api, namespace, subject)
    assert stored["status"] == {"observedGeneration": -1}
    assert kstatus(stored) is KStatus.IN_PROGRESS


def test_an_unknown_field_is_dropped_and_kubectl_says_so(api: Api, namespace: str, kubectl: Kubectl) -> None:
    stored = create(api, namespace, version(expedite=True))
    assert "expedite" not in stored["spec"]
    with pytest.raises(Exception, match=r'unknown field "spec\.expedite"'):
        kubectl.apply(version("1.0.1", expedite=True))


def test_spec_and_status_are_written_apart(api: Api, namespace: str) -> None:
    before = create(api, namespace, version())
    path = objects.path(VERSIONS, namespace, "smollm2-1.0.0")
    told = api.patch(f"{path}/status", {"spec": {"suspend": True}, "status": {"observedGeneration": 1}})
    assert "suspend" not in told["spec"]
    assert told["status"] == {"observedGeneration": 1}
    assert told["metadata"]["generation"] == before["metadata"]["generation"]
    asked = api.patch(path, {"spec": {"suspend": True}, "status": {"observedGeneration": 7}})
    assert asked["status"] == {"observedGeneration": 1}
    assert asked["metadata"]["generation"] == before["metadata"]["generation"] + 1


def test_conditions_of_two_writers_live_side_by_side(api: Api, namespace: str) -> None:
    create(api, namespace, version())
    path = objects.path(VERSIONS, namespace, "smollm2-1.0.0", "status")
    head = {key: version()[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": "smollm2-1.0.0"}}
    api.apply(path, {**head, "status": {"conditions": [condition("Ready", "Unknown", "Verifying")]}}, manager="a")
    both = api.apply(path, {**head, "status": {"conditions": [condition("Scanned", "True", "Clean")]}}, manager="b")
    assert [c["type"] for c in both["status"]["conditions"]] == ["Ready", "Scanned"]


def test_applying_a_field_that_another_manager_owns_conflicts_and_names_it(api: Api, namespace: str) -> None:
    path = objects.path(ROLLOUTS, namespace, "smollm2")
    api.apply(path, rollout(pin="1.0.0"), manager="flux", force=False)
    with pytest.raises(ApiError, match=r'conflict with "flux": \.spec\.versionPolicy\.versionName') as refusal:
        api.apply(path, rollout(pin="1.1.0"), manager="modelparams-cli", force=False)
    assert refusal.value.code == 409


def test_a_patch_by_people_on_call_survives_the_next_apply_from_git(api: Api, namespace: str) -> None:
    path = objects.path(VERSIONS, namespace, "smollm2-1.0.0")
    api.apply(path, version(), manager="flux")
    api.patch(path, {"spec": {"lifecycle": "Withdrawn"}})
    assert api.apply(path, version(), manager="flux")["spec"]["lifecycle"] == "Withdrawn"


def test_steps_are_owned_as_a_whole(api: Api, namespace: str) -> None:
    path = objects.path(ROLLOUTS, namespace, "smollm2")
    api.apply(path, rollout(strategy={"steps": [{"pods": 1}, {"pods": 2}]}), manager="flux")
    after = api.apply(path, rollout(strategy={"steps": [{"pods": "50%"}]}), manager="flux")
    assert after["spec"]["strategy"]["steps"] == [{"pods": "50%"}]


def test_versions_and_orders_are_listed_by_their_fields(api: Api, namespace: str) -> None:
    for subject in (version("1.0.0"), version("1.1.0"), version("1.0.0", model="other")):
        create(api, namespace, subject)
    create(api, namespace, assignment(create_pod(api, namespace, "web-0"), rolloutName="other"))
    create(api, namespace, assignment(create_pod(api, namespace, "web-1")))

    def names(plural: str, selector: str) -> list[str]:
        found = api.get(objects.path(plural, namespace), fieldSelector=selector)["items"]
        return [item["metadata"]["name"] for item in found]

    assert names(VERSIONS, "spec.modelName=smollm2") == ["smollm2-1.0.0", "smollm2-1.1.0"]
    assert names(VERSIONS, "spec.version=1.0.0") == ["other-1.0.0", "smollm2-1.0.0"]
    assert names(ASSIGNMENTS, "spec.rolloutName=smollm2") == ["web-1"]
    assert names(ASSIGNMENTS, "metadata.name=web-0") == ["web-0"]


# An object that was stored before a rule existed.


@pytest.fixture
def unruled(api: Api) -> Iterator[str]:
    """A group of its own, with our kinds under other names as they would be without any rule."""
    group = f"{uuid.uuid4().hex[:8]}.test.modelparams.dev"
    create_kinds(api, group, ruled=False)
    yield group
    for plural in crds.PLURALS:
        api.delete(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/old{plural}.{group}")


def create_kinds(api: Api, group: str, *, ruled: bool) -> None:
    for plural in crds.PLURALS:
        body = copy.deepcopy(crds.crd(plural))
        names = {
            "plural": f"old{plural}",
            "kind": f"Old{body['spec']['names']['kind']}",
        }  # kubectl must not mix them up
        body["metadata"]["name"], body["spec"]["group"], body["spec"]["names"] = f"old{plural}.{group}", group, names
        if not ruled:
            for _, node in crds.nodes(body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
                node.pop("x-kubernetes-validations", None)
        api.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/old{plural}.{group}", body)


def answer(api: Api, path: str, subject: Object) -> int:
    """The code that creating it would get; 429 and 404 while a kind comes up."""
    try:
        api.post(path + "?dryRun=All", subject)
    except ApiError as refusal:
        return refusal.code
    return 201


def test_an_old_object_that_new_rules_forbid_still_takes_unrelated_edits(
    api: Api, namespace: str, unruled: str
) -> None:
    def path(plural: str, name: str = "") -> str:
        return (
            objects.path(plural, namespace, name)
            .replace("/modelparams.dev/", f"/{unruled}/")
            .replace("/modelparam", "/oldmodelparam")
        )

    def of_group(subject: Object) -> Object:
        return subject | {"apiVersion": f"{unruled}/v1alpha1", "kind": f"Old{subject['kind']}"}

    old_version = of_group(version("1.4", name="old", source={"s3": {"bucket": "UPPER"}}))
    old_rollout = of_group(rollout(range="1.x", strategy={"steps": [{"pods": 3}, {"pods": 0}]}))
    old_pin = of_group(rollout("pinned", pin="latest"))
    probe = of_group(version("1.5", name="another"))
    wait_until(lambda: answer(api, path(VERSIONS), probe) == 201, "the kinds without rules", seconds=20)
    wait_until(lambda: answer(api, path(ROLLOUTS), old_rollout) == 201, "the kinds without rules", seconds=20)
    api.post(path(VERSIONS), old_version)
    api.post(path(ROLLOUTS), old_rollout)
    api.post(path(ROLLOUTS), old_pin)

    create_kinds(api, unruled, ruled=True)

    wait_until(lambda: answer(api, path(VERSIONS), probe) == 422, "the rules", seconds=20)
    wait_until(lambda: answer(api, path(ROLLOUTS), old_rollout) == 422, "the rules", seconds=20)
    labelled = {"metadata": {"labels": {"team": "a"}}}
    assert api.patch(path(VERSIONS, "old"), labelled)["metadata"]["labels"] == {"team": "a"}
    assert api.patch(path(VERSIONS, "old"), {"spec": {"lifecycle": "Withdrawn"}})["spec"]["lifecycle"] == "Withdrawn"
    assert api.patch(path(ROLLOUTS, "smollm2"), {"spec": {"paused": True}})["spec"]["paused"] is True
    assert api.patch(path(ROLLOUTS, "pinned"), {"spec": {"paused": True}})["spec"]["paused"] is True
    assert api.patch(path(ROLLOUTS, "smollm2") + "/status", {"status": {"observedGeneration": 1}})
    with pytest.raises(ApiError, match="version is immutable"):
        api.patch(path(VERSIONS, "old"), {"spec": {"version": "1.5"}})
    with pytest.raises(ApiError, match="write comparators of full versions"):
        api.patch(path(ROLLOUTS, "smollm2"), {"spec": {"versionPolicy": {"range": "2.x"}}})


# What people see.


@pytest.fixture
def scene(api: Api, namespace: str) -> str:
    """A version, a rollout on its way to another one, and a pod's answer, as their writers would write them."""
    create(api, namespace, version(lifecycle="Withdrawn"))
    create(api, namespace, rollout(paused=True))
    web = create_pod(api, namespace, "web-0")
    create(api, namespace, assignment(web, term=3))
    checked = {"manifestDigest": digest("smollm2-1.0.0")}
    verified = {**checked, "sequence": 1, "blobs": 12, "sizeBytes": 269, "verifiedAt": NOW}
    held = {**checked, "versionName": "smollm2-1.0.0", "version": "1.0.0"}
    failure = {**held, "reason": "SealBroken", "message": "blob 3 does not open", "time": NOW}
    reports = {
        (VERSIONS, "smollm2-1.0.0"): {
            "observedGeneration": 1,
            "verified": verified,
            "conditions": [
                condition("Ready", "True", "Withdrawn", "it is withdrawn"),
                condition("Verified", "True", "Verified"),
            ],
        },
        (ROLLOUTS, "smollm2"): {
            "observedGeneration": 1,
            "live": release("1.0.0"),
            "target": release("1.1.0"),
            "step": "1/3",
            "pods": {"total": 12, "updated": 1, "summary": "1/12"},
            "conditions": [
                condition("Ready", "Unknown", "Paused", "paused at step 1 of 3"),
                condition("Available", "True", "PodsServing"),
                condition("Reconciling", "True", "Paused"),
            ],
        },
        (ASSIGNMENTS, "web-0"): {
            "observedGeneration": 1,
            "podUID": web["metadata"]["uid"],
            "state": "Live",
            "live": held,
            "staged": [held],
            "pauseMicroseconds": 41,
            "fetchedBytes": 269,
            "lastFailure": failure,
        },
    }
    for (plural, name), status in reports.items():
        api.patch(objects.path(plural, namespace, name, "status"), {"status": status})
    return namespace


def table(text: str) -> dict[str, str]:
    """kubectl's table with one row, by its headings. Columns begin where their heading does."""
    head, row = text.rstrip("\n").splitlines()
    starts = [0] + [i for i in range(2, len(head)) if head[i] != " " and head[i - 2 : i] == "  "]
    edges = [*starts, None]
    return {head[a:b].strip(): row[a:b].strip() for a, b in itertools.pairwise(edges)}


def test_kubectl_get_shows_versions_at_a_glance(scene: str, kubectl: Kubectl) -> None:
    row = table(kubectl("get", "mpv"))
    assert row.pop("AGE")
    assert row == {
        "NAME": "smollm2-1.0.0",
        "MODEL": "smollm2",
        "VERSION": "1.0.0",
        "READY": "True",
        "STATUS": "Withdrawn",
        "VERIFIED": "True",
    }
    wide = table(kubectl("get", "mpv", "-o", "wide"))
    assert (wide["DIGEST"], wide["BYTES"]) == (digest("smollm2-1.0.0"), "269")
    assert (wide["LIFECYCLE"], wide["MESSAGE"]) == ("Withdrawn", "it is withdrawn")


def test_kubectl_get_shows_rollouts_at_a_glance(scene: str, kubectl: Kubectl) -> None:
    row = table(kubectl("get", "mpr"))
    assert row.pop("AGE")
    assert row == {
        "NAME": "smollm2",
        "MODEL": "smollm2",
        "LIVE": "1.0.0",
        "TARGET": "1.1.0",
        "STEP": "1/3",
        "PODS": "1/12",
        "READY": "Unknown",
        "STATUS": "Paused",
    }
    wide = table(kubectl("get", "mpr", "-o", "wide"))
    assert (wide["POLICY"], wide["AVAILABLE"], wide["PAUSED"]) == ("HighestSemver", "True", "true")
    assert wide["MESSAGE"] == "paused at step 1 of 3"


def test_kubectl_get_shows_what_each_pod_answers(scene: str, kubectl: Kubectl) -> None:
    row = table(kubectl("get", "mpa"))
    assert row.pop("AGE")
    assert row == {
        "NAME": "web-0",
        "ROLLOUT": "smollm2",
        "LIVE": "1.0.0",
        "STATE": "Live",
        "PROGRESS": "",
        "PAUSE-US": "41",
        "FAILURE": "SealBroken",
    }
    wide = table(kubectl("get", "mpa", "-o", "wide"))
    assert (wide["DIGEST"], wide["ORDERED"]) == (digest("smollm2-1.0.0"), digest("smollm2-1.0.0"))
    assert (wide["FETCHED"], wide["TERM"], wide["MESSAGE"]) == ("269", "3", "blob 3 does not open")


def test_one_category_lists_all_three_kinds(scene: str, kubectl: Kubectl) -> None:
    found = kubectl("get", "modelparams", "-o", "name").split()
    assert found == [
        "modelparamassignment.modelparams.dev/web-0",
        "modelparamrollout.modelparams.dev/smollm2",
        "modelparamversion.modelparams.dev/smollm2-1.0.0",
    ]


def test_kubectl_explain_explains_a_field(kubectl: Kubectl, scene: str) -> None:
    told = kubectl("explain", "mpr.spec.strategy.onFailure")
    assert "Rollback: changed pods go back to what is live." in told


def test_kubectl_wait_knows_when_a_rollout_is_done(scene: str, kubectl: Kubectl, api: Api) -> None:
    ready = [condition("Ready", "True", "Promoted"), condition("Available", "True", "PodsServing")]
    api.patch(objects.path(ROLLOUTS, scene, "smollm2", "status"), {"status": {"conditions": ready}})
    assert "condition met" in kubectl("wait", "mpr/smollm2", "--for=condition=Ready", "--timeout=5s")
