"""The chart says the same as the rest of the tree: kinds, roles, versions, metrics, alerts and their pages."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from builders.spec_pages import OF_VERSIONS
from modelparams.failure import classify
from modelparams.reasons import Reason
from modelparams_operator.shell import metrics as operator_metrics
from modelparams_serving.agent import metrics as agent_metrics

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "modelparams"
COPIES = {"crds": ROOT / "crds", "deploy": ROOT / "operator" / "deploy"}
COMPONENT = ROOT / "serving" / "kustomize" / "agent" / "agent.yaml"


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


@pytest.mark.parametrize("folder", COPIES)
def test_what_the_chart_holds_of_the_tree_is_as_in_the_tree(folder: str) -> None:
    source = {file.name: file.read_text() for file in COPIES[folder].glob("*.yaml")}
    copies = {file.name: file.read_text() for file in (CHART / "files" / folder).glob("*.yaml")}
    assert copies == source, "make chart"


def test_chart_images_and_component_are_of_this_release() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart, values = read(CHART / "Chart.yaml"), read(CHART / "values.yaml")
    assert (chart["version"], chart["appVersion"]) == (version, version)
    (agent,) = read(COMPONENT)["spec"]["template"]["spec"]["initContainers"]
    assert agent["image"] == f"{values['agent']['image']['repository']}:{version}"


def entries(values: Any, schema: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each place that the defaults or the schema have: its path, the default and its schema, None where missing."""
    yield path, values, schema
    properties = (schema or {}).get("properties", {})
    if properties:
        for key in sorted(set(properties) | set(values)):
            yield from entries(values.get(key), properties.get(key), f"{path}.{key}")


PLACES = list(entries(read(CHART / "values.yaml"), json.loads((CHART / "values.schema.json").read_text())))


@pytest.mark.parametrize(("path", "default", "schema"), PLACES[1:], ids=[path for path, *_ in PLACES[1:]])
def test_every_value_has_a_default_a_type_and_a_description(path: str, default: Any, schema: Any) -> None:
    assert schema is not None, "values.schema.json does not know it"
    assert schema.get("description")
    assert default is not None or path == ".global", "values.yaml does not show it"


ALERTS = {rule["alert"]: rule for rule in read(CHART / "files" / "alerts.yaml")["rules"]}
RUNBOOKS = ROOT / "docs" / "runbooks"


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == set(ALERTS)
    for name in ALERTS:
        assert (RUNBOOKS / f"{name}.md").read_text().startswith(f"# {name}\n")


def test_the_runbook_of_a_refused_version_knows_every_reason_for_which_one_is() -> None:
    text = (RUNBOOKS / "ModelParamsVersionRefused.md").read_text()
    final = {kind.reason for kind in OF_VERSIONS if classify(kind("x")).is_final}
    assert len(final) > 10
    assert {str(reason) for reason in final if f"`{reason}`" not in text} == set()


def families() -> set[str]:
    """Every series that operator and agent show."""
    metrics = [metric for metric in vars(agent_metrics).values() if isinstance(metric, MetricWrapperBase)]
    kinds = [family for source in (operator_metrics.REGISTRY, *metrics) for family in source.collect()]
    names: set[str] = set()
    for family in kinds:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


def expressions() -> dict[str, str]:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    shown = {panel["title"]: target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    variables = {entry["name"]: entry["query"] for entry in dashboard["templating"]["list"]}
    return shown | variables | {name: rule["expr"] for name, rule in ALERTS.items()}


def test_alerts_and_dashboard_look_at_series_that_there_are() -> None:
    named = {name for text in expressions().values() for name in re.findall(r"modelparams_\w+", text)}
    assert len(named) > 10
    assert named - families() == set()


def test_the_reasons_that_alerts_tell_apart_are_reasons() -> None:
    wanted = [
        part
        for rule in ALERTS.values()
        for text in re.findall(r'reason[!=]~"([^"]+)"', rule["expr"])
        for part in text.split("|")
    ]
    assert wanted
    for pattern in wanted:
        assert any(re.fullmatch(pattern, reason) for reason in Reason), pattern
