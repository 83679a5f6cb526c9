"""A kubeconfig that cannot be used is one sentence, for whoever asks and for the operator."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes.aio import client

from modelparams.errors import UsageError
from modelparams.trust import SigningKey, TrustPolicy
from modelparams_operator.shell import kubeconfig

ASKS: dict[str, Callable[[], object]] = {
    "its contexts": lambda: kubeconfig.contexts_of(None),
    "a way to the server": lambda: asyncio.run(kubeconfig.load(client.Configuration())),
}
CUT = "users: [{name: a, user: {token: hunter2"


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
@pytest.mark.parametrize("text", [None, "", CUT, "just text", "apiVersion: v1", "contexts: 1", "- a"])
def test_one_that_cannot_be_used_is_one_sentence_without_what_is_in_it(
    ask: Callable[[], object],
    text: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "config"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(UsageError, match=r"^no way to an API server: [^\n]+$") as refused:
        ask()
    assert "hunter2" not in str(refused.value)
    assert capsys.readouterr() == ("", "")


def test_the_operator_ends_with_2_and_that_sentence(tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(TrustPolicy.of(SigningKey.generate()).to_json())
    (tmp_path / "config").touch()
    told = {"KUBECONFIG": str(tmp_path / "config"), "MODELPARAMS_TRUST": str(tmp_path / "trust.json")}
    ran = subprocess.run(
        [sys.executable, "-m", "modelparams_operator", "run"],
        env={name: value for name, value in os.environ.items() if not name.startswith("MODELPARAMS_")} | told,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert f"no way to an API server: {tmp_path / 'config'} is no kubeconfig" in ran.stderr
