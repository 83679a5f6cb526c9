"""Who reaches for what is not theirs gets 403, from inside a real pod too."""

from __future__ import annotations

import json

import pytest

from cluster.kubectl import KubectlFailed
from deployed.model import Model
from deployed.scene import Scene
from deployed.serving import name_of

pytestmark = [pytest.mark.integration]

# What a pod's container gets of the API server with the token of that container: "STATUS VERB PATH" a line.
ASK = """
import json, os, ssl, sys, urllib.error, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(folder + "/token").read()
context = ssl.create_default_context(cafile=folder + "/ca.crt")
host = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
for verb, path, body in json.loads(sys.argv[1]):
    data = body and json.dumps(body).encode()
    request = urllib.request.Request("https://%s:%s%s" % (*host, path), method=verb, data=data)
    request.add_header("Authorization", "Bearer " + token)
    request.add_header("Content-Type", "application/merge-patch+json" if verb == "PATCH" else "application/json")
    try:
        print(urllib.request.urlopen(request, context=context).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


def asked_from_the_agent(world: Scene, pod: str, *requests: tuple[str, str, object]) -> list[int]:
    """The statuses."""
    said = world.kubectl("exec", pod, "-c", "modelparams-agent", "--", "python", "-c", ASK, json.dumps(requests))
    return [int(line) for line in said.split()]


def test_a_pod_may_write_its_own_answer_and_nothing_else(world: Scene, model: Model) -> None:
    own, other = sorted(name_of(pod) for pod in world.serving.pods())[:2]
    namespace = f"/namespaces/{world.plan.namespace}"
    orders = f"/apis/modelparams.dev/v1alpha1{namespace}/modelparamassignments"
    answer = {"status": {"message": ""}}
    statuses = asked_from_the_agent(
        world,
        own,
        ("GET", f"{orders}/{own}", None),
        ("PATCH", f"{orders}/{own}/status", answer),
        ("PATCH", f"{orders}/{other}/status", answer),
        ("PATCH", f"{orders}/{own}", {"spec": {"term": 99}}),
        ("DELETE", f"{orders}/{own}", None),
        ("GET", f"/api/v1{namespace}/secrets", None),
        ("GET", f"/api/v1{namespace}/secrets/{world.plan.model}", None),
        ("DELETE", f"/api/v1{namespace}/pods/{other}", None),
        ("GET", "/apis/modelparams.dev/v1alpha1/modelparamversions", None),
        ("DELETE", f"/apis/modelparams.dev/v1alpha1{namespace}/modelparamversions/{world.plan.model}-1.0.0", None),
    )
    assert statuses == [200, 200, *[403] * 8]


def test_the_engine_has_no_token_no_key_and_no_credential(world: Scene, model: Model) -> None:
    pod = name_of(world.serving.pods()[0])
    look = (
        "import os; print([p for p in ('/var/run/secrets', '/run/secrets', '/etc/modelparams') if os.path.exists(p)],"
        " [n for n in os.environ if n.startswith('AWS_') or 'TOKEN' in n])"
    )
    assert world.kubectl("exec", pod, "-c", "engine", "--", "python", "-c", look).strip() == "[] []"


@pytest.fixture(scope="module")
def editor(world: Scene) -> str:
    """The account of someone with the built-in role `edit` in the namespace."""
    namespace = world.plan.namespace
    world.kubectl("create", "serviceaccount", "editor")
    world.kubectl("create", "rolebinding", "editor", "--clusterrole=edit", f"--serviceaccount={namespace}:editor")
    return f"system:serviceaccount:{namespace}:editor"


@pytest.mark.parametrize(
    "command",
    [
        ("create", "--dry-run=server", "-f", "-"),
        ("patch", "mpa", "POD", "--type=merge", "-p", '{"spec":{"term":99}}'),
        ("patch", "mpa", "POD", "--subresource=status", "--type=merge", "-p", '{"status":{"message":""}}'),
        ("delete", "mpa", "POD", "--wait=false"),
        ("patch", "mpv", "MODEL-1.0.0", "--subresource=status", "--type=merge", "-p", '{"status":{"conditions":[]}}'),
        ("patch", "mpr", "MODEL-default", "--subresource=status", "--type=merge", "-p", '{"status":{"step":"9/9"}}'),
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_a_namespaces_editor_may_neither_order_nor_answer_for_pods(
    world: Scene, model: Model, editor: str, command: tuple[str, ...]
) -> None:
    pod = name_of(world.serving.pods()[0])
    order = json.dumps(
        {
            "apiVersion": "modelparams.dev/v1alpha1",
            "kind": "ModelParamAssignment",
            "metadata": {"name": "forged"},
            "spec": model.orders()[pod]["spec"],
        }
    )
    words = [word.replace("POD", pod).replace("MODEL", world.plan.model) for word in command]
    with pytest.raises(KubectlFailed, match=r"[Ff]orbidden"):
        world.kubectl(*words, f"--as={editor}", stdin=order if "-f" in words else "")
