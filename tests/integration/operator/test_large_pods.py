"""A pod of somebody else's that is as large as a pod can be."""

from __future__ import annotations

import uuid

import pytest

from builders.operator_stage import Stage

pytestmark = pytest.mark.integration


def test_the_largest_pod_of_another_namespace_hides_no_other(stage: Stage) -> None:
    """In an event each `<` of it is six bytes: more than the client's own buffer for a line."""
    other = f"other-{uuid.uuid4().hex[:8]}"
    stage.api.post("/api/v1/namespaces", {"metadata": {"name": other}})
    stage.wait(lambda: stage.api.find(f"/api/v1/namespaces/{other}/serviceaccounts/default"), "the account of pods")
    large = {
        "metadata": {"name": "large", "labels": {"modelparams.dev/model": "x"}},
        "spec": {
            "containers": [{"name": "c", "image": "none", "args": ["<" * 1_000_000]}],
            "automountServiceAccountToken": False,
        },
    }
    stage.pods("web-0")
    stage.apply("1.0.0")
    try:
        with stage.operator(environment={"MODELPARAMS_WATCH_NAMESPACES": ""}) as operator:
            stage.wait_until_live(web_0="1.0.0")
            stage.api.post(f"/api/v1/namespaces/{other}/pods", large)
            stage.pods("web-1")
            stage.wait_until_live(web_0="1.0.0", web_1="1.0.0")
            assert "Watch interrupted" not in operator.log.read_text()
    finally:
        stage.api.delete(f"/api/v1/namespaces/{other}")
