"""What every CRD of ours keeps to, so that Git engines, kubectl and CEL's cost limits get along with it."""

from __future__ import annotations

import pytest

from builders import crds

EACH_KIND = pytest.mark.parametrize("plural", crds.PLURALS)


@EACH_KIND
def test_every_field_is_explained_to_kubectl_explain(plural: str) -> None:
    silent = [
        at
        for part in ("spec", "status")
        for at, node in crds.nodes(crds.schema(plural, part), part)
        if not at.endswith(("[]", ".*")) and not str(node.get("description", "")).strip().endswith(".")
    ]
    assert silent == []


@EACH_KIND
def test_every_string_list_and_map_is_bounded(plural: str) -> None:
    bound = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        at
        for part in ("spec", "status")
        for at, node in crds.nodes(crds.schema(plural, part), part)
        if (node.get("type") in bound and bound[node["type"]] not in node and not {"enum", "format"} & node.keys())
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


@EACH_KIND
def test_every_list_says_how_it_is_merged(plural: str) -> None:
    lists = [node for _, node in crds.nodes(crds.schema(plural)) if node.get("type") == "array"]
    assert lists
    assert all("x-kubernetes-list-type" in node for node in lists)


@EACH_KIND
def test_no_default_stands_inside_a_list(plural: str) -> None:
    # Git engines see a defaulted list item as a change for ever (argo-cd#28724).
    assert [at for at, node in crds.nodes(crds.schema(plural)) if "[]" in at and "default" in node] == []


@pytest.mark.parametrize("field", ["spec.lifecycle", "spec.suspend", "spec.paused", "spec.retryToken"])
def test_controls_have_no_default_so_that_a_patch_survives_git(field: str) -> None:
    found = [node for plural in crds.PLURALS for at, node in crds.nodes(crds.schema(plural)) if at == field]
    assert found
    assert all("default" not in node for node in found)


@EACH_KIND
def test_every_rule_says_what_to_write_instead(plural: str) -> None:
    rules = [rule for _, node in crds.nodes(crds.schema(plural)) for rule in node.get("x-kubernetes-validations", ())]
    assert rules
    assert [rule["rule"] for rule in rules if len(rule["message"].split()) < 4] == []


@EACH_KIND
def test_the_status_is_a_subresource_and_the_kind_has_its_short_name_and_category(plural: str) -> None:
    spec = crds.crd(plural)["spec"]
    assert spec["versions"][0]["subresources"] == {"status": {}}
    assert spec["names"]["categories"] == ["modelparams"]
    assert spec["names"]["shortNames"] == [f"mp{plural.removeprefix('modelparam')[0]}"]
    assert spec["scope"] == "Namespaced"
