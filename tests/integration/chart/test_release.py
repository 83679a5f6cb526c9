"""A release's life on a real API server: install, test, upgrade with live objects, uninstall, install again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.chart import CHART, RELEASE, SYSTEM, TRUST, find, render, values
from builders.objects import source, version
from builders.operator_process import OperatorProcess
from cluster.api import Api, ApiError
from cluster.control_plane import ControlPlane
from cluster.helm import Helm, HelmFailed
from cluster.process import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("chart-release")]

VERSIONS = "/apis/modelparams.dev/v1alpha1/namespaces/models/modelparamversions"
PLURALS = ("modelparamversions", "modelparamrollouts", "modelparamassignments")
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
POLICIES = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/modelparams-operator"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:modelparams-operator"
GIVEN = {"serving_namespaces": [{"name": "models"}]}


@pytest.fixture(scope="module")
def with_namespaces(bare_cluster: ControlPlane) -> ControlPlane:
    for name in ("models", "others"):
        Api(bare_cluster.kubeconfig).post("/api/v1/namespaces", {"metadata": {"name": name}})
    return bare_cluster


@pytest.fixture
def empty(with_namespaces: ControlPlane) -> Iterator[ControlPlane]:
    """Without a release, before the test and after it; kinds of an earlier test may be there."""
    yield with_namespaces
    uninstall(with_namespaces)


def release(plane: ControlPlane, *arguments: str, chart: Path = CHART, **given: object) -> str:
    """Install or upgrade it; return the notes once the kinds are served."""
    command = ("upgrade", "--install", RELEASE, chart, "--namespace", SYSTEM, "--create-namespace")
    told = Helm(plane.kubeconfig)(*command, *arguments, *values(**(GIVEN | given)))
    wait_until(lambda: all(is_served(Api(plane.kubeconfig), plural) for plural in PLURALS), "the kinds", seconds=30)
    return told


def is_served(api: Api, plural: str) -> bool:
    """Not yet with 404, nor with 429: for a moment after it was made a kind's storage begins."""
    try:
        api.get(f"/apis/modelparams.dev/v1alpha1/{plural}", limit=1)
    except ApiError as error:
        if error.code in (404, 429):
            return False
        raise
    return True


def uninstall(plane: ControlPlane) -> None:
    Helm(plane.kubeconfig)("uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found")


def names(api: Api, path: str) -> set[str]:
    return {item["metadata"]["name"] for item in api.get(path)["items"]}


def test_objects_outlive_upgrades_and_the_release(empty: ControlPlane) -> None:
    api = Api(empty.kubeconfig)
    assert "helm test modelparams --namespace modelparams-system" in release(empty)
    uid = api.post(VERSIONS, version())["metadata"]["uid"]

    release(empty, agent_memory="8Gi", replicas=3)
    assert api.get(f"{VERSIONS}/smollm2-1.0.0")["metadata"]["uid"] == uid
    assert "'8Gi'" in str(api.get(f"{POLICIES}/modelparams-agent"))

    uninstall(empty)
    assert api.get(f"{VERSIONS}/smollm2-1.0.0")["metadata"]["uid"] == uid
    assert not names(api, POLICIES)

    release(empty)
    assert api.get(f"{VERSIONS}/smollm2-1.0.0")["metadata"]["uid"] == uid


def the_one_before(folder: Path) -> Path:
    """This chart as its predecessor could be: another number, and one field fewer in a kind."""
    chart = Path(shutil.copytree(CHART, folder / "modelparams"))
    facts, kind = chart / "Chart.yaml", chart / "files" / "crds" / "modelparamrollouts.yaml"
    facts.write_text(re.sub(r"(?m)^(version|appVersion): \S+", r"\1: 0.0.9", facts.read_text()))
    lines = kind.read_text().splitlines(keepends=True)
    kind.write_text("".join(line for line in lines if FIELD not in line))
    return chart


FIELD = "stagingPercents"


def test_the_chart_before_this_one_is_upgraded_with_its_objects(empty: ControlPlane, tmp_path: Path) -> None:
    api, kind = Api(empty.kubeconfig), f"{CRDS}/modelparamrollouts.modelparams.dev"
    release(empty, chart=the_one_before(tmp_path))
    assert FIELD not in str(api.get(kind))
    made = api.post(VERSIONS, version("2.0.0"))["metadata"]
    release(empty)
    assert FIELD in str(api.get(kind))
    kept = api.get(f"{VERSIONS}/{made['name']}")["metadata"]
    assert (kept["uid"], kept["generation"]) == (made["uid"], made["generation"])
    assert "modelparams-0.0.9" not in Helm(empty.kubeconfig)("list", "--namespace", SYSTEM)
    api.delete(f"{VERSIONS}/{made['name']}")


def test_kinds_that_are_missing_or_of_another_release_are_named(empty: ControlPlane) -> None:
    api = Api(empty.kubeconfig)
    release(empty, crds_keep=False)
    uninstall(empty)
    wait_until(lambda: not names(api, CRDS), "the kinds to go", seconds=30)
    with pytest.raises(
        HelmFailed, match=r"crds\.install is false, and the cluster has no modelparamversions\.modelparams"
    ):
        release(empty, crds_install=False)

    crds = [o for o in render() if o["kind"] == "CustomResourceDefinition"]
    for crd in crds:
        api.post(CRDS, crd)
    release(empty, crds_install=False)

    (older,) = [c for c in crds if c["spec"]["names"]["kind"] == "ModelParamVersion"]
    del older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["suspend"]
    api.apply(f"{CRDS}/{older['metadata']['name']}", older)
    with pytest.raises(HelmFailed, match="has other fields than this release's: apply this release's first"):
        release(empty, crds_install=False)

    release(empty, "--take-ownership")
    found = api.get(f"{CRDS}/{older['metadata']['name']}")
    assert "suspend" in found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]


def test_a_serving_namespace_that_is_not_there_is_named(empty: ControlPlane) -> None:
    with pytest.raises(HelmFailed, match='namespaces "nowhere" not found'):
        release(empty, serving_namespaces=[{"name": "nowhere"}])


def may_act(operator: Api) -> bool:
    """The API server learns of roles a moment after they were made."""
    try:
        operator.get(VERSIONS)
        return operator.find(LEASE) is None
    except ApiError as error:
        if error.code == 403:
            return False
        raise


def check(plane: ControlPlane, folder: Path, token: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `helm test` runs, as the operator's account."""
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(plane.ca.read_bytes())
    pod = find(render(), "Pod")["spec"]["containers"][0]
    host, port = plane.url.removeprefix("https://").split(":")
    told = {"SERVICE_ACCOUNT": str(folder), "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    command = [sys.executable, *pod["command"][1:], *pod["args"][:-1], "models"]
    return subprocess.run(
        command, env=dict(os.environ) | told | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_operator_works_with_roles_in_its_namespaces_alone_and_helm_test_sees_it(
    empty: ControlPlane, tmp_path: Path
) -> None:
    api = Api(empty.kubeconfig)
    release(empty, watch_namespaces=["models"])
    login = empty.kubeconfig_for(ACCOUNT, ["system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}"])
    for denied in (
        "/api/v1/pods",
        "/apis/modelparams.dev/v1alpha1/modelparamversions",
        "/api/v1/namespaces/others/pods",
    ):
        with pytest.raises(ApiError) as refusal:
            Api(login).get(denied)
        assert refusal.value.code == 403
    wait_until(lambda: may_act(Api(login)), "the operator's roles", seconds=30)
    spec = {"spec": {"expirationSeconds": 600}}
    accounts = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/modelparams-operator/token"
    token = api.post(accounts, spec)["status"]["token"]

    alone = check(empty, tmp_path, token, PATIENCE_SECONDS="0")
    assert alone.returncode == 1
    assert "leases/modelparams-operator answered 404" in alone.stderr

    trust = tmp_path / "trust.json"
    trust.write_text(TRUST)
    with OperatorProcess(
        tmp_path / "operator",
        kubeconfig=login,
        namespace="models",
        trust=trust,
        environment={"MODELPARAMS_LEASE_NAMESPACE": SYSTEM, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"},
    ) as operator:
        # Nobody listens there: what counts is that it was looked at, and that it was said.
        api.post(VERSIONS, version(model="watched", source=source(endpoint="http://127.0.0.1:9")))
        operator.wait_until_said("Verification failed", reason="SourceUnavailable", seconds=60)
        wait_until(lambda: "conditions" in api.get(f"{VERSIONS}/watched-1.0.0").get("status", {}), "it", seconds=60)
        (port,) = [record["port"] for record in operator.records() if record["event"] == "Serving metrics and probes"]
        service = {"MODELPARAMS_OPERATOR_SERVICE_HOST": "127.0.0.1", "MODELPARAMS_OPERATOR_SERVICE_PORT": str(port)}
        seen = check(empty, tmp_path, token, **service)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout == "working: the kinds are served, the Lease is kept, an operator is ready\n"
    assert not re.search(r"\b403\b", operator.log.read_text()), "as a word: digits of a time or a digest are none"
