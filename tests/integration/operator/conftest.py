"""A stage for each test: a namespace, the operator's own rights, played pods, real sealed versions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.agents import Agents
from builders.operator_stage import OPERATOR_USER, Stage, install_rights, open_namespace
from builders.releases import Releases
from cluster.api import Api
from cluster.control_plane import Access
from cluster.s3 import Versitygw


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory, s3: Versitygw) -> Releases:
    """Versions for reading, published in their order; a test that breaks one makes its own."""
    made = Releases(tmp_path_factory.mktemp("releases"), s3, s3.bucket(f"operator-{os.urandom(4).hex()}"))
    for version in ("1.0.0", "1.1.0"):
        made.publish(version)
    return made


@pytest.fixture(scope="session")
def operator_kubeconfig(api: Api, control_plane: Access) -> Path:
    """With the operator's own rights, no more."""
    install_rights(api)
    return control_plane.kubeconfig_for(OPERATOR_USER, ["system:serviceaccounts"])


@pytest.fixture
def bare_stage(
    api: Api, namespace: str, operator_kubeconfig: Path, releases: Releases, tmp_path: Path
) -> Iterator[Stage]:
    """Without the store's credentials."""
    open_namespace(api, namespace)
    with Agents(api, namespace, Releases.model) as agents:
        yield Stage(api, namespace, operator_kubeconfig, releases, agents, tmp_path)


@pytest.fixture
def stage(bare_stage: Stage) -> Stage:
    """With all that a working deployment needs but its versions."""
    bare_stage.api.post(f"/api/v1/namespaces/{bare_stage.namespace}/secrets", bare_stage.releases.secret())
    return bare_stage
