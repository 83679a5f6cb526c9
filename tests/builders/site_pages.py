"""The parts of the site's pages (docs/*.md) that follow from the chart and the code, so that no page can lag behind.

`PYTHONPATH=tests python -m builders.site_pages` writes them anew; tests/unit/test_docs_site.py fails while one is old.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.metrics import MetricWrapperBase

from builders import audit_log, spec_pages, states, values_page
from modelparams import errors
from modelparams_operator.shell import metrics as operator_metrics
from modelparams_serving.agent import metrics as agent_metrics
from modelparams_serving.engine.metrics import Metrics as EngineMetrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ALERTS = ROOT / "charts" / "modelparams" / "files" / "alerts.yaml"
FLUX = ROOT / "gitops" / "flux" / "kustomization.yaml"
PAGES = ("values.md", "metrics.md", "troubleshooting.md", "audit.md", "gitops.md")
OF_THE_COMMAND_LINE = (
    errors.InvalidName,
    errors.InvalidVersion,
    errors.ParamsHashMismatch,
    errors.VersionExists,
    errors.UsageError,
)


def metrics_of(holder: object) -> list[MetricWrapperBase]:
    """Every metric that a module or an object holds, by name."""
    found = [metric for metric in vars(holder).values() if isinstance(metric, MetricWrapperBase)]
    return sorted(found, key=_name)


def metric_table(holder: object) -> str:
    """Its metrics: series, type, labels, help."""
    rows = [
        f"| `{_name(m)}` | {m._type} | {_code(m._labelnames)} | {m._documentation.rstrip('.')} |"
        for m in metrics_of(holder)
    ]
    return "\n".join(["| metric | type | labels | meaning |", "| --- | --- | --- | --- |", *rows])


def alert_table() -> str:
    """Every alert with its page."""
    rules: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["rules"]
    rows = [
        f"| [{rule['alert']}](runbooks/{rule['alert']}.md) | {rule['labels']['severity']} "
        f"| {rule.get('for', 'at once')} | {_summary(rule)} |"
        for rule in rules
    ]
    return "\n".join(["| alert | severity | after | says |", "| --- | --- | --- | --- |", *rows])


def state_table() -> str:
    """What each tool makes of each state, by the reason of Ready."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for state in (*states.rollouts(), *states.versions()):
        reason = state.ready.get("reason", "")
        if reason and state.name != "changed_since":
            found.setdefault((state.kind, state.argo, state.flux, state.kstatus), []).append(reason)
    rows = [f"| {' | '.join(told)} | {_code(dict.fromkeys(reasons))} |" for told, reasons in found.items()]
    head = ["| kind | Argo CD | Flux | kstatus: Helm 4, Flux without the expressions | reason of `Ready` |"]
    return "\n".join([*head, "| --- | --- | --- | --- | --- |", *rows])


BLOCKS: dict[str, Callable[[], str]] = {
    "values": values_page.tables,
    "alerts": alert_table,
    "metrics of the operator": lambda: metric_table(operator_metrics),
    "metrics of the agent": lambda: metric_table(agent_metrics),
    "metrics of the engine": lambda: metric_table(EngineMetrics()),
    "reasons of versions": lambda: spec_pages.reason_table(spec_pages.OF_VERSIONS),
    "reasons of pods": lambda: spec_pages.reason_table(spec_pages.OF_PODS),
    "an audit": lambda: f"```text\n{audit_log.shown(audit_log.played().story())}\n```",
    "states": state_table,
    "flux": lambda: f"```yaml\n{FLUX.read_text().strip()}\n```",
    "reasons of the command line": lambda: spec_pages.reason_table(OF_THE_COMMAND_LINE),
}


def filled(text: str) -> str:
    """The page with its blocks as they should be; a block stands between `<!-- NAME -->` and `<!-- end -->`."""

    def fill(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{BLOCKS[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- (.+?) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def _name(metric: MetricWrapperBase) -> str:
    return metric._name + ("_total" if metric._type == "counter" else "")


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _summary(rule: dict[str, Any]) -> str:
    """As people read it: `{{ $labels.code }}` is *code*."""
    return re.sub(r"\{\{ \$(?:labels\.)?(\w+) \}\}", r"*\1*", rule["annotations"]["summary"])


def main() -> None:
    """Write all pages anew."""
    for page in PAGES:
        (DOCS / page).write_text(filled((DOCS / page).read_text()))


if __name__ == "__main__":
    main()
