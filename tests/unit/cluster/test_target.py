"""Which cluster is used, and what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.images import Images
from cluster.node import Node
from deployed.target import LOAD, Elsewhere, NoTarget, target


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "inside", lambda: None)
    monkeypatch.setenv(LOAD, "true")


def test_a_kubeconfig_that_is_not_there_is_told_before_gigabytes_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nope")
    with pytest.raises(NoTarget, match="names no file: /nope"):
        target()


def test_nothing_is_packed_for_nodes_that_pull_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    (tmp_path / "kubeconfig").touch()
    there = target()
    assert isinstance(there, Elsewhere)
    monkeypatch.setattr(Images, "archives", property(lambda _: pytest.fail("an archive was written")))
    there.take(Images(()))
