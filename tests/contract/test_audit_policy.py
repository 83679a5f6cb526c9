"""The audit policy that users install: what it records of which request, and never a secret's body."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from builders.doc_blocks import ROOT
from modelparams_operator.audit.gaps import Kind

POLICY: dict[str, Any] = yaml.safe_load((ROOT / "operator" / "deploy" / "audit-policy.yaml").read_text())
PAGE = (ROOT / "docs" / "audit.md").read_text()
LEASE = ("coordination.k8s.io", "leases", "modelparams-system", "modelparams-operator")


def level(verb: str, group: str, resource: str, namespace: str = "models", name: str = "x") -> str:
    """What the first rule says that matches, as the API server finds it."""
    for rule in POLICY["rules"]:
        groups = rule.get("resources")
        is_one = groups is None or any(
            one["group"] == group
            and resource in one.get("resources", [resource])
            and name in one.get("resourceNames", [name])
            for one in groups
        )
        is_asked = verb in rule.get("verbs", [verb]) and namespace in rule.get("namespaces", [namespace])
        if is_one and is_asked and "nonResourceURLs" not in rule:
            return str(rule["level"])
    raise AssertionError("no rule")


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete", "deletecollection"])
@pytest.mark.parametrize(
    "resource",
    ["modelparamversions", "modelparamrollouts", "modelparamrollouts/status", "modelparamassignments/status"],
)
def test_each_write_to_our_kinds_is_recorded_with_what_was_stored(verb: str, resource: str) -> None:
    assert level(verb, "modelparams.dev", resource) == "RequestResponse"


@pytest.mark.parametrize("verb", ["get", "list", "watch"])
def test_reads_of_our_kinds_are_not_recorded(verb: str) -> None:
    assert level(verb, "modelparams.dev", "modelparamassignments") == "None"


def test_of_all_leases_the_operator_s_alone_is_recorded() -> None:
    assert level("update", *LEASE) == "Request"
    assert level("update", *LEASE[:2], "kube-system", "kube-scheduler") == "None"


@pytest.mark.parametrize(
    ("group", "resource"),
    [("", "secrets"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews"), ("", "configmaps")],
)
def test_nothing_else_is_recorded_with_a_body(group: str, resource: str) -> None:
    assert level("create", group, resource) == "Metadata"
    with_bodies = [rule for rule in POLICY["rules"] if rule["level"].startswith("Request")]
    assert {one["group"] for rule in with_bodies for one in rule["resources"]} == {"modelparams.dev", LEASE[0]}


def test_the_page_names_every_gap_and_no_other() -> None:
    named = re.findall(r"`([A-Z][A-Za-z]+)`", "".join(re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE)))
    assert sorted(named) == sorted(Kind)
