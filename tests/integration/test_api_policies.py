"""Who may write what, with real identities: pods by their own bound tokens, the operator, people, the administrator.

The roles and policies are those of operator/deploy; the policies' bindings are narrowed down to this test's namespace,
so that other tests on the same cluster may write statuses as administrator.
"""

from __future__ import annotations

import uuid
from collections import defaultdict

import pytest

from builders.guarded import (
    AGENT,
    ASSIGNMENTS,
    PEOPLE,
    ROLLOUTS,
    SYSTEM,
    VERSIONS,
    Guarded,
    apply,
    code,
    documents,
    login_as,
    name_and_uid,
)
from builders.objects import OPERATOR, Object, assignment, rollout, version
from cluster.api import Api
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("policies")]


def answers(scene: Guarded, who: Api, name: str) -> tuple[int, str]:
    """Write the status of an order as agents do."""
    body = {
        "apiVersion": "modelparams.dev/v1alpha1",
        "kind": "ModelParamAssignment",
        "metadata": {"name": name},
        "status": {"observedGeneration": 1, "state": "Staging"},
    }
    path = scene.path(ASSIGNMENTS, name, "status")
    return code(lambda: who.apply(path, body, manager="modelparams-agent"))


# Answers come from pods.


def test_a_pod_answers_its_own_order(guarded: Guarded) -> None:
    web = guarded.ordered_pod("own")
    assert answers(guarded, guarded.login(AGENT, bound_to=web), "own") == (200, "")
    assert guarded.admin.get(guarded.path(ASSIGNMENTS, "own"))["status"]["state"] == "Staging"


def test_a_pod_does_not_answer_for_another(guarded: Guarded) -> None:
    mine, _ = guarded.ordered_pod("mine"), guarded.ordered_pod("theirs")
    refused, words = answers(guarded, guarded.login(AGENT, bound_to=mine), "theirs")
    assert refused == 403
    assert "pod mine may not write the status of theirs: each pod answers its own order" in words
    assert guarded.admin.get(guarded.path(ASSIGNMENTS, "theirs"))["status"] == {"observedGeneration": -1}


def test_a_token_that_is_bound_to_no_pod_answers_nothing(guarded: Guarded) -> None:
    guarded.ordered_pod("unbound")
    refused, words = answers(guarded, guarded.login(AGENT), "unbound")
    assert refused == 403
    assert "only a pod writes the status of its order, with a token that is bound to it" in words


def test_a_pod_does_not_answer_the_order_to_a_namesake_of_another_life(guarded: Guarded) -> None:
    former = guarded.pod("namesake")
    token = guarded.login(AGENT, bound_to=former)
    other_life = {"metadata": {"name": "namesake", "uid": str(uuid.uuid4())}}
    order = assignment(other_life)
    # Owned by the pod that lives as well, or the garbage collector would be faster than this test.
    order["metadata"]["ownerReferences"].append(
        {"apiVersion": "v1", "kind": "Pod", **name_and_uid(former), "blockOwnerDeletion": False}
    )
    guarded.operator.post(guarded.path(ASSIGNMENTS), order)
    refused, words = answers(guarded, token, "namesake")
    assert refused == 403
    assert "the order is for a namesake of this pod, of another life" in words


def test_a_pod_does_not_answer_an_order_that_another_pod_owns(guarded: Guarded) -> None:
    """Metadata stays open to others than the operator, owners among it."""
    mine, other = guarded.ordered_pod("disowned"), guarded.pod("disowned-other")
    owner = {"apiVersion": "v1", "kind": "Pod", **name_and_uid(other)}
    guarded.admin.patch(guarded.path(ASSIGNMENTS, "disowned"), {"metadata": {"ownerReferences": [owner]}})
    refused, words = answers(guarded, guarded.login(AGENT, bound_to=mine), "disowned")
    assert refused == 403
    assert "the order is for a namesake of this pod, of another life" in words


def test_a_pod_that_is_gone_answers_nothing(guarded: Guarded) -> None:
    web = guarded.ordered_pod("gone")
    token = guarded.login(AGENT, bound_to=web)
    guarded.admin.delete(f"/api/v1/namespaces/{guarded.namespace}/pods/gone", grace_seconds=0)
    assert answers(guarded, token, "gone")[0] == 401


def test_a_pod_gives_no_orders_and_changes_none(guarded: Guarded) -> None:
    web = guarded.ordered_pod("obedient")
    token = guarded.login(AGENT, bound_to=web)
    path = guarded.path(ASSIGNMENTS, "obedient")
    assert code(lambda: token.patch(path, {"spec": {"term": 9}}))[0] == 403
    assert code(lambda: token.delete(path))[0] == 403
    told = token.patch(f"{path}/status", {"spec": {"term": 9}, "status": {"term": 1}})
    assert told["spec"]["term"] == 1


def test_a_pod_reads_orders_and_rollouts_and_no_secret(guarded: Guarded) -> None:
    token = guarded.login(AGENT, bound_to=guarded.ordered_pod("reader"))
    assert token.get(guarded.path(ASSIGNMENTS), fieldSelector="metadata.name=reader")["items"]
    assert "items" in token.get(guarded.path(ROLLOUTS))
    assert code(lambda: token.get(f"/api/v1/namespaces/{guarded.namespace}/secrets"))[0] == 403
    assert code(lambda: token.get(f"/api/v1/namespaces/{guarded.namespace}/secrets/modelparams-s3"))[0] == 403


@pytest.mark.parametrize("who", ["admin of the cluster", "operator", "admin", "edit"])
def test_nobody_else_answers_for_a_pod(guarded: Guarded, who: str) -> None:
    name = f"spoken-for-{who.replace(' ', '-')}"
    guarded.ordered_pod(name)
    assert answers(guarded, login_as(guarded, who), name)[0] == 403


# Orders come from the operator.


@pytest.mark.parametrize("who", ["admin of the cluster", "admin", "edit"])
def test_only_the_operator_gives_orders(guarded: Guarded, who: str) -> None:
    name = f"hands-off-{who.replace(' ', '-')}"
    web = guarded.ordered_pod(name)
    somebody = login_as(guarded, who)
    assert code(lambda: somebody.post(guarded.path(ASSIGNMENTS), assignment(web)))[0] == 403
    assert code(lambda: somebody.patch(guarded.path(ASSIGNMENTS, name), {"spec": {"attempt": "x"}}))[0] == 403


@pytest.mark.parametrize("who", [*PEOPLE, "agent"])
def test_nobody_takes_an_order_away_or_touches_it(guarded: Guarded, who: str) -> None:
    name = f"kept-{who}"
    web = guarded.ordered_pod(name)
    somebody = guarded.login(AGENT, bound_to=web) if who == "agent" else guarded.login(who)
    path = guarded.path(ASSIGNMENTS, name)
    before = guarded.admin.get(path)
    assert code(lambda: somebody.delete(path))[0] == 403
    assert code(lambda: somebody.delete(f"{guarded.path(ASSIGNMENTS)}?fieldSelector=metadata.name={name}"))[0] == 403
    assert code(lambda: somebody.patch(path, {"metadata": {"labels": {"seen": "yes"}}}))[0] == 403
    assert code(lambda: somebody.put(path, before))[0] == 403
    assert guarded.admin.get(path) == before


def test_the_administrator_is_told_what_to_change_instead(guarded: Guarded) -> None:
    guarded.ordered_pod("told")
    _, words = code(lambda: guarded.admin.patch(guarded.path(ASSIGNMENTS, "told"), {"spec": {"attempt": "x"}}))
    assert "only the operator gives orders; change the ModelParamRollout instead" in words


def test_metadata_of_an_order_stays_open_to_the_garbage_collector_and_to_people(guarded: Guarded) -> None:
    guarded.ordered_pod("labelled")
    labelled = {"metadata": {"labels": {"seen": "yes"}}}
    assert guarded.admin.patch(guarded.path(ASSIGNMENTS, "labelled"), labelled)["metadata"]["labels"]


def test_an_order_goes_with_its_pod(guarded: Guarded) -> None:
    guarded.ordered_pod("short-lived")
    guarded.admin.delete(f"/api/v1/namespaces/{guarded.namespace}/pods/short-lived", grace_seconds=0)
    path = guarded.path(ASSIGNMENTS, "short-lived")
    wait_until(lambda: guarded.admin.find(path) is None, "the garbage collector", seconds=45)


@pytest.mark.parametrize(
    "fault", ["no owner", "another owner", "another kind", "another group", "another UID", "another name"]
)
def test_the_operator_itself_cannot_order_what_the_pod_does_not_own(guarded: Guarded, fault: str) -> None:
    name = f"unowned-{fault.replace(' ', '-').lower()}"
    order = assignment(guarded.pod(name))
    (owner,) = order["metadata"]["ownerReferences"]
    match fault:
        case "no owner":
            del order["metadata"]["ownerReferences"]
        case "another owner":
            owner["kind"], owner["apiVersion"] = "ReplicaSet", "apps/v1"
        case "another kind":
            owner["kind"] = "ConfigMap"
        case "another group":
            owner["apiVersion"] = "example.com/v1"
        case "another UID":
            order["spec"]["podUID"] = str(uuid.uuid4())
        case _:
            owner["name"] = "somebody-else"
    refused, words = code(lambda: guarded.operator.post(guarded.path(ASSIGNMENTS), order))
    assert refused == 422
    assert "an order is named as its pod, and owned by it with the UID of spec.podUID" in words


# Reports come from the operator.


@pytest.mark.parametrize(
    ("plural", "subject"),
    [(VERSIONS, version(model="reported")), (ROLLOUTS, rollout("reported", model="reported"))],
    ids=["version", "rollout"],
)
def test_only_the_operator_writes_what_is_reported(guarded: Guarded, plural: str, subject: Object) -> None:
    name = subject["metadata"]["name"]
    guarded.admin.post(guarded.path(plural), subject)
    path, report = guarded.path(plural, name, "status"), {"status": {"observedGeneration": 1}}
    for who in ("admin of the cluster", "admin", "edit"):
        refused, words = code(lambda who=who: login_as(guarded, who).patch(path, report))  # type: ignore[misc]  # bound now
        assert refused == 403, who
        assert "only the operator writes this status" in words or "cannot patch resource" in words
    assert code(lambda: guarded.login(AGENT).patch(path, report))[0] == 403
    assert guarded.operator.patch(path, report)["status"] == {"observedGeneration": 1}


def test_an_account_that_is_only_called_as_the_operator_is_not_the_operator(guarded: Guarded) -> None:
    """With the rights of a cluster's administrator, in a namespace that is not the operator's."""
    name, scene = "modelparams-operator", guarded
    apply(scene.admin, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, scene.namespace)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{name}-namesake"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": scene.namespace}],
    }
    apply(scene.admin, binding, scene.namespace)
    scene.admin.post(scene.path(VERSIONS), version(model="namesake"))
    web, namesake = scene.pod("namesakes-order"), scene.login(name)
    wait_until(lambda: code(lambda: namesake.get(scene.path(VERSIONS)))[0] == 200, "its rights", seconds=20)
    report = {"status": {"observedGeneration": 1}}
    reported = code(lambda: namesake.patch(scene.path(VERSIONS, "namesake-1.0.0", "status"), report))
    ordered = code(lambda: namesake.post(scene.path(ASSIGNMENTS), assignment(web)))
    assert (reported[0], ordered[0]) == (403, 403)
    assert "only the operator writes this status" in reported[1]
    assert "only the operator gives orders" in ordered[1]


def test_an_editor_changes_the_spec_of_what_people_write(guarded: Guarded) -> None:
    editor = guarded.login("edit")
    editor.post(guarded.path(VERSIONS), version(model="edited"))
    editor.post(guarded.path(ROLLOUTS), rollout("edited", model="edited"))
    assert editor.patch(guarded.path(VERSIONS, "edited-1.0.0"), {"spec": {"suspend": True}})["spec"]["suspend"]
    assert editor.patch(guarded.path(ROLLOUTS, "edited"), {"spec": {"paused": True}})["spec"]["paused"]


@pytest.mark.parametrize("who", PEOPLE)
def test_people_see_all_three_kinds(guarded: Guarded, who: str) -> None:
    somebody = guarded.login(who)
    for plural in (VERSIONS, ROLLOUTS, ASSIGNMENTS):
        assert "items" in somebody.get(guarded.path(plural)), plural


# What fails to be decided is denied.


@pytest.mark.parametrize("policy", documents("policies.yaml"), ids=lambda p: f"{p['kind']}-{p['metadata']['name']}")
def test_a_policy_that_cannot_decide_denies(policy: Object) -> None:
    spec = policy["spec"]
    decides = spec["failurePolicy"] if "validations" in spec else spec["validationActions"]
    assert decides in ("Fail", ["Deny"])


# Everybody's rights are the least that works.

EVERY_CHANGE = {"create", "update", "patch", "delete", "deletecollection"}
CHANGES: dict[str, dict[str, set[str]]] = {
    "view": {},
    "edit": {VERSIONS: EVERY_CHANGE, ROLLOUTS: EVERY_CHANGE},
    "admin": {VERSIONS: EVERY_CHANGE, ROLLOUTS: EVERY_CHANGE},
    AGENT: {f"{ASSIGNMENTS}/status": {"patch"}},
    "operator": {
        ROLLOUTS: {"create", "delete"},
        f"{VERSIONS}/status": {"patch"},
        f"{ROLLOUTS}/status": {"patch"},
        ASSIGNMENTS: {"create", "patch", "delete"},
    },
}
"""Who changes what of our kinds, beside the administrator of the cluster."""


@pytest.mark.parametrize("who", CHANGES)
def test_each_changes_this_of_our_kinds_and_no_more(guarded: Guarded, who: str) -> None:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": guarded.namespace},
    }
    answer = login_as(guarded, who).post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", body)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for rule in answer["status"]["resourceRules"]:
        if {"modelparams.dev", "*"} & set(rule["apiGroups"]):
            for resource in rule["resources"]:
                found[resource] |= set(rule["verbs"]) - {"get", "list", "watch"}
    assert {resource: verbs for resource, verbs in found.items() if verbs} == CHANGES[who]


WATCHED = (VERSIONS, ROLLOUTS, ASSIGNMENTS)
MAY = [
    *((verb, "modelparams.dev", plural, "", "") for plural in WATCHED for verb in ("get", "list", "watch")),
    ("create", "modelparams.dev", ROLLOUTS, "", ""),
    ("patch", "modelparams.dev", ROLLOUTS, "status", ""),
    ("patch", "modelparams.dev", VERSIONS, "status", ""),
    ("patch", "modelparams.dev", ASSIGNMENTS, "", ""),
    ("list", "", "pods", "", ""),
    ("watch", "", "pods", "", ""),
    ("create", "events.k8s.io", "events", "", ""),
    ("get", "events.k8s.io", "events", "", ""),
    ("patch", "events.k8s.io", "events", "", ""),
    ("get", "", "secrets", "", "modelparams-s3"),
]
MAY_NOT = [
    ("create", "modelparams.dev", VERSIONS, "", ""),
    ("patch", "modelparams.dev", VERSIONS, "", ""),
    ("patch", "modelparams.dev", ASSIGNMENTS, "status", ""),
    ("get", "", "secrets", "", "a-key"),
    ("list", "", "secrets", "", ""),
    ("watch", "", "secrets", "", ""),
    ("patch", "", "secrets", "", "modelparams-s3"),
    ("delete", "events.k8s.io", "events", "", ""),
    ("get", "coordination.k8s.io", "leases", "", "modelparams-operator"),
    ("create", "", "pods", "", ""),
    ("create", "", "pods", "exec", ""),
    ("patch", "", "pods", "", ""),
    ("delete", "", "pods", "", ""),
    ("get", "", "nodes", "", ""),
    ("get", "", "configmaps", "", ""),
    ("create", "", "serviceaccounts", "token", ""),
    ("impersonate", "", "users", "", ""),
]


@pytest.mark.parametrize(("right", "allowed"), [(r, True) for r in MAY] + [(r, False) for r in MAY_NOT])
def test_the_operator_may_do_this_and_not_that(
    guarded: Guarded, right: tuple[str, str, str, str, str], allowed: bool
) -> None:
    verb, group, resource, subresource, name = right
    about = {"verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name}
    assert is_allowed(guarded, OPERATOR, namespace=guarded.namespace, **about) is allowed


@pytest.mark.parametrize(
    ("verb", "name", "allowed"),
    [
        ("create", "", True),
        ("get", "modelparams-operator", True),
        ("update", "modelparams-operator", True),
        ("delete", "modelparams-operator", False),
        ("get", "another", False),
        ("update", "another", False),
    ],
)
def test_the_operator_takes_its_own_lease_and_no_other(guarded: Guarded, verb: str, name: str, allowed: bool) -> None:
    about = {"group": "coordination.k8s.io", "resource": "leases", "verb": verb, "name": name}
    assert is_allowed(guarded, OPERATOR, namespace=SYSTEM, **about) is allowed


@pytest.mark.parametrize("plural", [ASSIGNMENTS, ROLLOUTS])
@pytest.mark.parametrize("verb", ["get", "list", "watch"])
def test_an_agent_may_follow_orders_and_rollouts(guarded: Guarded, plural: str, verb: str) -> None:
    about = {"group": "modelparams.dev", "resource": plural, "verb": verb}
    agent = f"system:serviceaccount:{guarded.namespace}:{AGENT}"
    assert is_allowed(guarded, agent, namespace=guarded.namespace, **about)


def is_allowed(scene: Guarded, user: str, **about: str) -> bool:
    """The API server's answer to whether a user may do something."""
    spec = {"user": user, "resourceAttributes": about}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = scene.admin.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
