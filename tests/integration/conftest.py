"""Real servers: a control plane for the run, an S3 server for the worker; a fresh namespace or bucket for a test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders.guarded import Guarded, guarded_namespace
from cluster import shared
from cluster.api import Api
from cluster.control_plane import CRDS, Access, ControlPlane, create_crds
from cluster.faults import FaultProxy
from cluster.kubectl import Kubectl
from cluster.process import wait_until
from cluster.s3 import S3Server, SeaweedFS, Versitygw
from cluster.tools import ToolMissing, binary

EXTERNAL = "MODELPARAMS_TEST_KUBECONFIG"


def _need(*names: str) -> None:
    """Skip on a laptop, fail in CI, when a program is missing."""
    try:
        for name in names:
            binary(name)
    except ToolMissing as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))


@pytest.fixture(scope="session")
def control_plane_tools() -> None:
    """For a test that starts a control plane in its own way."""
    _need("etcd", "kube-apiserver", "kube-controller-manager")


@pytest.fixture(scope="session")
def versitygw_tool() -> None:
    """For a test that starts an S3 server in its own way."""
    _need("versitygw")


@pytest.fixture(scope="session")
def verdict_tool() -> None:
    """For a test that asks Flux and kstatus themselves."""
    _need("verdict")


@pytest.fixture(scope="session")
def control_plane(testrun_main: int, control_plane_tools: None) -> Access:
    """Ours, shared by all workers: audit log, certificates for any user. Do not break it: see `own_control_plane`."""
    if EXTERNAL in os.environ:
        pytest.skip(f"needs the harness's own control plane, and {EXTERNAL} names another")
    return shared.control_plane(testrun_main)


@pytest.fixture
def own_control_plane(control_plane_tools: None) -> Iterator[ControlPlane]:
    """For a test that kills parts of it; takes 3 s."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="session")
def testrun_main() -> int:
    """The process that the user started; under xdist the parent of the workers."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> Path:
    """Of an administrator, with our kinds installed: MODELPARAMS_TEST_KUBECONFIG, or our own control plane's."""
    if external := os.environ.get(EXTERNAL):
        create_crds(Api(Path(external)), sorted(CRDS.glob("*.yaml")))
        return Path(external)
    plane: Access = request.getfixturevalue("control_plane")
    return plane.kubeconfig


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Api:
    """Raw calls as the administrator."""
    return Api(kubeconfig)


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """A fresh one, with its default service account; deleted afterwards, without waiting."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": {"modelparams.dev/test": "true"}}})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    wait_until(lambda: api.find(account) is not None, f"the default service account of {name}", seconds=30)
    yield name
    api.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def kubectl(kubeconfig: Path, namespace: str) -> Kubectl:
    """kubectl in the test's namespace."""
    return Kubectl(kubeconfig, namespace)


@pytest.fixture(scope="session")
def s3(versitygw_tool: None) -> Iterator[Versitygw]:
    """versitygw."""
    with Versitygw() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """The second S3 server of the matrix."""
    _need("weed")
    with SeaweedFS() as server:
        yield server


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and the server that it is on."""

    name: str
    server: S3Server


@pytest.fixture
def bucket(s3: Versitygw) -> Bucket:
    """A fresh one on versitygw."""
    return Bucket(s3.bucket(f"test-{uuid.uuid4().hex[:10]}"), s3)


@pytest.fixture(params=["s3", pytest.param("seaweedfs", marks=pytest.mark.xdist_group("seaweedfs"))])
def any_bucket(request: pytest.FixtureRequest) -> Bucket:
    """A fresh one on each server of the matrix; one worker takes all tests of the slow one."""
    server: S3Server = request.getfixturevalue(request.param)
    return Bucket(server.bucket(f"test-{uuid.uuid4().hex[:10]}"), server)


@pytest.fixture
def s3_faults(s3: Versitygw) -> Iterator[FaultProxy]:
    """A fault injector before versitygw."""
    with s3.proxy() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def guarded(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Where roles and policies are in force; for the tests of one worker."""
    with guarded_namespace(api, tmp_path_factory.mktemp("logins")) as scene:
        yield scene
