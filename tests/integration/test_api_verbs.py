"""The verbs of people, who × what, on a real API server: a field's change needs a right, and carries an honest name.

No test here runs an operator: what a verb does is the planner's affair, whether it is taken is the API server's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from builders import objects
from builders.guarded import ROLLOUTS, VERSIONS, Guarded, apply_binding, code
from builders.objects import Object, rollout, version
from cluster.api import Api
from cluster.control_plane import Access
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("policies")]

FIELD = ("modelparams-training", "modelparams-inference", "modelparams-management")
WHO = ("view", "edit", "admin", *FIELD)
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def staffed(guarded: Guarded) -> Guarded:
    """With an account for each role of the field."""
    for role in FIELD:
        apply_binding(guarded, role)
    wait_until(
        lambda: all(code(lambda r=r: guarded.login(r).get(guarded.path(VERSIONS)))[0] == 200 for r in FIELD),
        "their rights",
        seconds=20,
    )  # type: ignore[misc]  # bound now
    return guarded


def made(scene: Guarded, **spec: Any) -> str:
    """A fresh rollout's path."""
    model = f"m{next(_NUMBERS)}"
    subject = rollout(model, model=model)
    subject["spec"] |= spec
    scene.admin.post(scene.path(ROLLOUTS), subject)
    return scene.path(ROLLOUTS, model)


def model_of(path: str) -> str:
    return path.rsplit("/", 1)[1]


def user(scene: Guarded, account: str) -> str:
    return f"system:serviceaccount:{scene.namespace}:{account}"


def approval(path: str, by: str, number: str = "1.1.0", through: int = 1) -> Object:
    return objects.approval(number, by, model=model_of(path), through=through)


Tries = Callable[[Guarded, Api, str], object]


def approves(scene: Guarded, who: Api, account: str) -> object:
    path = made(scene)
    return who.patch(path, {"spec": {"approvals": [approval(path, user(scene, account))]}})


def expedites(scene: Guarded, who: Api, account: str) -> object:
    path = made(scene)
    return who.patch(path, {"spec": {"expedite": objects.expedite("1.1.0", model=model_of(path))}})


def retries(scene: Guarded, who: Api, account: str) -> object:
    return who.patch(made(scene), {"spec": {"retryToken": "again"}})


def holds(scene: Guarded, who: Api, account: str) -> object:
    return who.patch(made(scene), {"spec": {"paused": True}})


def resumes(scene: Guarded, who: Api, account: str) -> object:
    return who.patch(made(scene, paused=True), {"spec": {"paused": None}})


def pins(scene: Guarded, who: Api, account: str) -> object:
    path = made(scene)
    pin = {"type": "Pinned", "versionName": f"{model_of(path)}-1.0.0", "range": None}
    return who.patch(path, {"spec": {"versionPolicy": pin}})


def publishes(scene: Guarded, who: Api, account: str) -> object:
    return who.post(scene.path(VERSIONS), version(model=f"m{next(_NUMBERS)}"))


def _version(scene: Guarded, **spec: Any) -> str:
    subject = version(model=f"m{next(_NUMBERS)}")
    subject["spec"] |= spec
    scene.admin.post(scene.path(VERSIONS), subject)
    return scene.path(VERSIONS, subject["metadata"]["name"])


def withdraws(scene: Guarded, who: Api, account: str) -> object:
    return who.patch(_version(scene), {"spec": {"lifecycle": "Withdrawn"}})


def brings_back(scene: Guarded, who: Api, account: str) -> object:
    return who.patch(_version(scene, lifecycle="Withdrawn"), {"spec": {"lifecycle": None}})


def deletes(scene: Guarded, who: Api, account: str) -> object:
    return who.delete(_version(scene))


EDITORS = {"edit", "admin", "modelparams-management"}
MANAGERS = {"modelparams-management"}
ALLOWED: dict[Tries, set[str]] = {
    approves: MANAGERS,
    expedites: MANAGERS,
    retries: MANAGERS,
    holds: EDITORS,
    resumes: MANAGERS,
    pins: EDITORS,
    publishes: EDITORS | {"modelparams-training"},
    withdraws: MANAGERS,
    brings_back: MANAGERS,
    deletes: EDITORS,
}


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("does", ALLOWED, ids=lambda does: does.__name__)
def test_each_does_what_its_role_allows_and_no_more(staffed: Guarded, who: str, does: Tries) -> None:
    answer, words = code(lambda: does(staffed, staffed.login(who), who))
    assert answer == (200 if who in ALLOWED[does] else 403), words


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (
            approves,
            "to approve a step you need the verb promote on modelparamrollouts: the role modelparams-management",
        ),
        (expedites, "to expedite a version you need the verb expedite on modelparamrollouts"),
        (retries, "to resume a rollout or to retry what failed you need the verb promote"),
        (withdraws, "to withdraw a version you need the verb withdraw on modelparamversions"),
        (brings_back, "to bring a withdrawn version back you need the verb promote on modelparamversions"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_who_may_not_is_told_which_verb_is_missing(staffed: Guarded, does: Tries, words: str) -> None:
    assert words in code(lambda: does(staffed, staffed.login("edit"), "edit"))[1]


def test_the_administrator_of_the_cluster_has_every_verb(staffed: Guarded) -> None:
    """As whoever has a role with `*`."""
    path = made(staffed)
    who = staffed.admin.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})["status"]["userInfo"]["username"]
    assert staffed.admin.patch(path, {"spec": {"approvals": [approval(path, who)]}})["spec"]["approvals"]


# Names are honest.


def test_nobody_approves_in_another_s_name(staffed: Guarded) -> None:
    path = made(staffed)
    forged = {"spec": {"approvals": [approval(path, "alice@example.com")]}}
    answer, words = code(lambda: staffed.login("modelparams-management").patch(path, forged))
    assert answer == 403
    assert f"approvedBy must be your own user name: write {user(staffed, 'modelparams-management')}" in words


def test_nobody_makes_a_rollout_with_another_s_approval_in_it(staffed: Guarded) -> None:
    model = f"m{next(_NUMBERS)}"
    subject = rollout(model, model=model)
    subject["spec"]["approvals"] = [approval(staffed.path(ROLLOUTS, model), "alice@example.com")]
    answer, words = code(lambda: staffed.login("modelparams-management").post(staffed.path(ROLLOUTS), subject))
    assert answer == 403
    assert "approvedBy must be your own user name" in words


def synced(scene: Guarded, path: str, *approvals: Object) -> Callable[[], Object]:
    """What a Git engine does every minute, with an account that has the verb: apply all that Git names."""
    subject = rollout(model_of(path), model=model_of(path))
    subject["spec"] |= {"approvals": list(approvals)} if approvals else {}
    engine = scene.login("modelparams-management")
    return lambda: engine.apply(path, subject, manager="kustomize-controller")


def test_git_approves_in_the_name_of_the_account_that_applies_it_and_in_no_other(staffed: Guarded) -> None:
    path, account = made(staffed), user(staffed, "modelparams-management")
    own = approval(path, account)
    for _ in range(2):
        assert synced(staffed, path, own)()["spec"]["approvals"] == [own]
    answer, words = code(synced(staffed, path, own, approval(path, "alice@example.com")))
    assert (answer, f"approvedBy must be your own user name: write {account}" in words) == (403, True)


def test_a_person_s_approval_stands_beside_git_s_through_every_sync(staffed: Guarded) -> None:
    path, account = made(staffed), user(staffed, "modelparams-management")
    who = staffed.admin.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})["status"]["userInfo"]["username"]
    own, person_s = approval(path, account), approval(path, who)
    assert "approvals" not in synced(staffed, path)()["spec"]
    staffed.admin.patch(path, {"spec": {"approvals": [person_s]}})
    assert synced(staffed, path)()["spec"]["approvals"] == [person_s]
    found = synced(staffed, path, own)()["spec"]["approvals"]
    assert sorted(found, key=str) == sorted([own, person_s], key=str)


def test_nobody_stretches_another_s_approval_to_a_later_step(staffed: Guarded) -> None:
    path = made(staffed)
    manager, boss = staffed.login("modelparams-management"), staffed.admin
    name = boss.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {})["status"]["userInfo"]["username"]
    boss.patch(path, {"spec": {"approvals": [approval(path, name)]}})
    stretched = {"spec": {"approvals": [approval(path, name, through=2)]}}
    assert code(lambda: manager.patch(path, stretched))[0] == 403


def test_an_editor_may_change_other_things_beside_an_approval_that_stands(staffed: Guarded) -> None:
    path = made(staffed)
    manager = staffed.login("modelparams-management")
    manager.patch(path, {"spec": {"approvals": [approval(path, user(staffed, "modelparams-management"))]}})
    editor = staffed.login("edit")
    assert editor.patch(path, {"spec": {"paused": True}})["spec"]["paused"]
    assert not editor.patch(path, {"spec": {"approvals": None}})["spec"].get("approvals"), (
        "taking back waves nothing on"
    )


# The API server's audit log says who did what, and who tried.


@pytest.mark.parametrize(
    ("does", "key", "words"),
    [
        (approves, "approved", "{user} approves {name}-1.1.0 {digest} through step 1"),
        (expedites, "expedited", "{user} expedites {name}-1.1.0 {digest}"),
        (retries, "retried", "{user} retries with the token again"),
        (holds, "held", "{user} holds"),
        (resumes, "resumed", "{user} resumes"),
        (pins, "released", "{user} releases {name}-1.0.0"),
        (publishes, "published", "{user} publishes {name} sha256:"),
        (withdraws, "withdrawn", "{user} withdraws {name}"),
        (brings_back, "reinstated", "{user} brings back {name}"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("account", ["modelparams-management", "edit"])
def test_the_audit_log_says_who_did_it_and_who_tried(
    staffed: Guarded, control_plane: Access, does: Tries, key: str, words: str, account: str
) -> None:
    answer, _ = code(lambda: does(staffed, staffed.login(account), account))
    assert answer == (200 if account in ALLOWED[does] else 403)
    event = [e for e in control_plane.audit_events() if _is_a_change_of(e, user(staffed, account))][-1]
    name = event["objectRef"].get("name") or event["requestObject"]["metadata"]["name"]
    said = next(text for at, text in event["annotations"].items() if at.endswith(f"/{key}"))
    assert said.startswith(
        words.format(user=event["user"]["username"], name=name, digest=objects.digest(f"{name}-1.1.0"))
    )
    assert event["responseStatus"]["code"] in ((200, 201) if answer == 200 else (403,))


def _is_a_change_of(event: Object, who: str) -> bool:
    """Whoever was not let in at all has no name."""
    return (
        event["user"].get("username") == who
        and event["verb"] in ("create", "patch")
        and event["stage"] == "ResponseComplete"
    )
