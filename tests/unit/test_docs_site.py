"""The site of docs/: what its pages show and name is held to the command line, the chart, the kinds and the tree."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from builders import crds, site_pages, values_page
from builders.chart import TRUST
from builders.doc_blocks import ROOT, Block, blocks
from cluster.helm import Helm
from cluster.tools import ToolMissing, binary
from deployed.serving import deployment
from modelparams.cli import build
from modelparams.reasons import Reason

DOCS = ROOT / "docs"
SAMPLES = ROOT / "params" / "samples" / "params" / "tiny-llama"
PAGES = sorted(DOCS.rglob("*.md"))
OURS = [page for page in PAGES if page.parent == DOCS]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
each_of_ours = pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)

INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHELL_WORDS = {"export", "kill", "mkdir", "rm", "curl", "python", "make"}
KIND = {
    ("create", "cluster"): {"--name"},
    ("load", "image-archive"): {"--name"},
    ("delete", "cluster"): {"--name"},
}


def shown(language: str, pages: list[Path] = PAGES) -> list[Block]:
    """The blocks of a language, in order."""
    return [block for page in pages for block in blocks(page) if block.language == language]


def commands(text: str) -> Iterator[list[str]]:
    """Each command of a shell text as words, without redirections; those inside of `$(…)` too."""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.startswith("#"):
            for inner in re.findall(r"\$\(([^)]+)\)", line):
                yield from commands(inner)
            yield from _commands(line)


def _commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if word in ("|", "&", ";", "&&"):
            found.append([])
        else:
            found[-1].append(word)
    for words in found:
        kept = words[: words.index(">")] if ">" in words else words
        if kept and not re.match(r"[a-z]+=", kept[0]):
            yield kept


def of(program: str) -> list[list[str]]:
    """What the site's pages give to a program."""
    return [words[1:] for block in shown("sh") for words in commands(block.text) if words[0] == program]


def test_every_block_of_commands_is_shell() -> None:
    for block in shown("sh"):
        done = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, (block.place, done.stderr)


def test_every_command_is_one_that_a_reader_was_told_to_have() -> None:
    first = {words[0] for block in shown("sh") for words in commands(block.text)}
    assert first - SHELL_WORDS == {"modelparams", "kubectl", "helm", "kind"}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a folder with all that the pages made before, as each command line finds it."""
    for model in ("my-model", "samples/params/tiny-llama"):
        shutil.copytree(SAMPLES, tmp_path / "params" / model)
    for file in ("release.pem", "trust.json", "build/quickstart/release.pem", "build/quickstart/trust.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "keys").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELPARAMS_STORE", "s3://weights/my-model")
    return tmp_path


def parsed(arguments: list[str]) -> str:
    """The command that the real command line finds, with every argument and option parsed and checked.

    Raises:
        click.UsageError: it does not take them.
    """
    command: Any = typer.main.get_command(build())
    path = []
    while hasattr(command, "commands"):
        assert arguments[0] in command.commands, arguments
        command, *arguments = command.commands[arguments[0]], *arguments[1:]
        path.append(command.name)
    command.make_context(command.name, list(arguments))
    return " ".join(path)


def test_every_line_of_modelparams_is_one_that_it_takes(reader: Path) -> None:
    found = {parsed(arguments) for arguments in of("modelparams")}
    assert found >= {"hash", "keys kek", "keys signer", "keys trust", "publish", "serve", "status", "verify"}


def test_every_option_of_modelparams_that_a_page_names_is_one() -> None:
    group: Any = typer.main.get_command(build())
    leaves = [group, *group.commands.values(), *group.commands["keys"].commands.values()]
    known = {"--help", *(option for leaf in leaves for parameter in leaf.params for option in parameter.opts)}
    named = {
        span.split()[0] for page in OURS if page.name == "your-model.md" for span in INLINE.findall(page.read_text())
    }
    assert {name for name in named if name.startswith("--")} <= known


@cache
def help_of(program: str, *words: str) -> str:
    """What a program says of one of its commands and of the options of all."""
    path = binary(program)
    environment = {**os.environ, "HELM_CACHE_HOME": "/nonexistent"}
    said = [
        subprocess.run([path, *command], capture_output=True, text=True, env=environment, check=True).stdout
        for command in ((*words, "--help"), *([("options",)] if program == "kubectl" else []))
    ]
    return "\n".join(said)


SHORT = ("-n", "-o", "-p", "-c", "--type", "--name")


def options_of(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def plain(words: list[str]) -> list[str]:
    """Without options, and the values of short ones."""
    before = ["", *words]
    return [word for word, last in zip(words, before, strict=False) if not re.match("-", word) and last not in SHORT]


SPANS = [span for page in PAGES for span in INLINE.findall(page.read_text())]
KUBECTL = [*of("kubectl"), *(shlex.split(span)[1:] for span in SPANS if span.startswith("kubectl "))]


def subcommand(words: list[str]) -> tuple[str, ...]:
    """`create secret generic`, `rollout status`, `get`."""
    said = plain(words)
    depth = {"create": 2, "rollout": 2}.get(said[0], 1)
    return tuple(said[: depth + (said[:2] == ["create", "secret"])])


def test_every_option_of_kubectl_is_one_of_its_command() -> None:
    assert len(KUBECTL) > 30
    for words in KUBECTL:
        text = help_of("kubectl", *subcommand(words))
        for option in options_of(words):
            assert re.search(rf"{option}[=\s]", text), (option, words)


def test_every_kind_that_kubectl_is_asked_for_is_one() -> None:
    ours = {name for plural in crds.PLURALS for name in crds.crd(plural)["spec"]["names"]["shortNames"]}
    theirs = {"pods", "pod", "events", "crd", "namespace", "configmap", "deployment", "service", "lease", "secret"}
    for words in KUBECTL:
        said = plain(words)
        if said[0] in ("get", "describe", "patch", "wait", "delete"):
            kinds = said[1].partition("/")[0].split(",")
            assert set(kinds) <= ours | theirs, words


@pytest.fixture
def helm() -> Helm:
    """It is built by `make tools`, which CI has done before."""
    try:
        binary("helm")
    except ToolMissing as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
    return Helm()


def test_every_option_of_helm_is_one_of_its_command(helm: Helm) -> None:
    for words in of("helm"):
        text = help_of("helm", words[0])
        for option in options_of(words):
            assert re.search(rf"{option}[\s]", text), (option, words)


def test_every_command_of_kind_is_one_that_was_looked_up() -> None:
    assert of("kind")
    for words in of("kind"):
        assert options_of(words) <= KIND[words[0], words[1]], words


MONITORING = [f"monitoring.coreos.com/v1/{kind}" for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")]
UPGRADES = [words for words in of("helm") if words[0] == "upgrade"]


@pytest.mark.parametrize("words", UPGRADES, ids=" ".join)
def test_the_chart_takes_what_helm_is_told(words: list[str], helm: Helm, reader: Path) -> None:
    """By `helm template`: the chart and the values of the line; those that it keeps from before are ours."""
    given = [part for at, w in enumerate(words) if w in ("--set", "--set-file") for part in words[at : at + 2]]
    for file in ("trust.json", "build/quickstart/trust.json"):
        (reader / file).write_text(TRUST)
    (reader / "charts").symlink_to(ROOT / "charts")
    kept = [] if "--set-file" in given else ["--set=trust.existingConfigMap=kept"]
    name, chart = [word for word in plain(words[1:]) if word not in given][:2]
    assert helm("template", name, chart, *given, *kept, *(f"--api-versions={kind}" for kind in MONITORING))


def has_value(path: str) -> bool:
    """True of a path that values.schema.json has."""
    node: Any = {"properties": values_page.schema()["properties"]}
    for name in path.split("."):
        bare = re.sub(r"\[\d*\]$", "", name)
        if node.get("type") == "object" and "properties" not in node:
            return True  # free-form
        node = node.get("properties", {}).get(bare, {})
        node = node.get("items", {}) if bare != name else node
    return bool(node)


def test_a_path_that_is_no_value_is_known_as_one() -> None:
    assert has_value("serving.namespaces[0].name")
    assert not has_value("serving.namespaces[0].nom")
    assert not has_value("agent.memori")


def test_every_value_that_helm_is_given_is_one() -> None:
    given = [
        words[at + 1].partition("=")[0]
        for words in of("helm")
        for at, word in enumerate(words)
        if word in ("--set", "--set-file")
    ]
    assert "trust.policy" in given
    assert [path for path in given if not has_value(path)] == []


@each_page
def test_every_value_and_field_that_a_page_names_is_one(page: Path) -> None:
    roots = set(values_page.schema()["properties"])
    fields = {
        f"{part}.{at}"
        for p in crds.PLURALS
        for part in ("spec", "status")
        for at, _ in crds.nodes(crds.schema(p, part))
    }
    for span in INLINE.findall(page.read_text()):
        path = re.split(r"[=:{ ]", span)[0]
        root, dot, _ = path.partition(".")
        if not dot or not re.fullmatch(r"\w+(\[\])?(\.\w+(\[\])?)+", path) or path.endswith((".json", ".yaml")):
            continue
        if root in ("spec", "status"):
            assert path in fields, span
        elif root in roots:
            assert has_value(path), span


@each_page
def test_every_label_and_annotation_that_a_page_names_is_one_of_the_chart(page: Path) -> None:
    chart = "".join(file.read_text() for file in (ROOT / "charts/modelparams/templates").glob("*.*"))
    known = set(re.findall(r"modelparams\.dev/[a-z-]+", chart))
    assert set(re.findall(r"(?<![\w.])modelparams\.dev/(?!v1)[a-z-]+", page.read_text())) <= known


ROOMS = "charts|crds|docs|gitops|operator|params|serving|tests"


@each_of_ours
def test_every_file_of_the_tree_that_a_page_names_is_there(page: Path) -> None:
    text = "\n".join([*(b.text for b in blocks(page) if b.language == "sh"), *INLINE.findall(page.read_text())])
    named = set(re.findall(rf"(?<![\w./-])((?:{ROOMS})/[\w./-]*)", text))
    own = {name for name in named if name.startswith("params/my-model")}
    assert sorted(name for name in named - own if not (ROOT / name).exists()) == []


def slugs(page: Path) -> set[str]:
    """The anchors of its headings, as mkdocs makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    bare = [
        re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    ]
    return {re.sub(r"[-\s]+", "-", heading) for heading in bare}


@each_page
def test_every_link_leads_to_a_page_and_a_heading_of_it(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)\s#:]*)(?:#([^)\s]+))?\)", page.read_text()):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in slugs(there), f"{target}#{anchor}"


def navigation(node: Any) -> Iterator[str]:
    """Every page that mkdocs.yml names."""
    if isinstance(node, str):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from navigation(inner)


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    named = set(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    ours = {str(page.relative_to(DOCS)) for page in PAGES}
    assert ours <= named
    hook = (DOCS / "pages_beside_the_code.py").read_text()
    assert named - ours == set(re.findall(r'^    "(.+\.md)",$', hook, re.MULTILINE))
    assert all((ROOT / page).exists() for page in named - ours)


def test_the_site_is_built_and_nothing_in_it_is_amiss(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="make docs and make test install it")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "true"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "install.html").read_text()
    assert 'href="crds/modelparamversions.html"' in (tmp_path / "index.html").read_text()
    assert 'id="before-136"' in made
    assert "../" not in re.sub(r'="\.\.?/?"', "", " ".join(re.findall(r'<a href="([^"]+)"', made)))


@pytest.mark.parametrize("name", site_pages.PAGES)
def test_tables_are_those_of_the_chart_and_the_code(name: str) -> None:
    text = (DOCS / name).read_text()
    assert text == site_pages.filled(text), "write them anew: PYTHONPATH=tests python -m builders.site_pages"
    assert "<!-- end -->" in text


def test_every_value_is_in_its_table() -> None:
    text = (DOCS / "values.md").read_text()
    paths = [entry.path for entry in values_page.entries()]
    assert len(paths) > 70
    assert [path for path in paths if f"`{path}`" not in text] == []


def test_metrics_are_made_nowhere_but_where_the_tables_look() -> None:
    rooms = [ROOT / room / "src" for room in ("operator", "params", "serving")]
    imports = re.compile(
        r"^(from prometheus_client import .*(Counter|Gauge|Histogram)|import prometheus)", re.MULTILINE
    )
    made = {
        str(file.relative_to(ROOT)) for room in rooms for file in room.rglob("*.py") if imports.search(file.read_text())
    }
    assert made == {
        "operator/src/modelparams_operator/shell/metrics.py",
        "serving/src/modelparams_serving/agent/metrics.py",
        "serving/src/modelparams_serving/engine/metrics.py",
    }


def test_every_alert_and_every_metric_is_on_the_page_of_metrics() -> None:
    text = (DOCS / "metrics.md").read_text()
    for runbook in (DOCS / "runbooks").glob("*.md"):
        assert f"[{runbook.stem}](runbooks/{runbook.name})" in text
    holders = (site_pages.operator_metrics, site_pages.agent_metrics, site_pages.EngineMetrics())
    names = [metric._name for holder in holders for metric in site_pages.metrics_of(holder)]
    assert len(names) > 20
    assert [name for name in names if name not in text] == []


def test_troubleshooting_has_every_reason_and_no_other() -> None:
    rows = [line for line in (DOCS / "troubleshooting.md").read_text().splitlines() if line.startswith("| `")]
    first = {found[1] for row in rows if (found := re.match(r"\| `([A-Z]\w+)` \|", row))}
    assert first - {"ContainerCreating", "OOMKilled"} == set(map(str, Reason))


def test_no_reason_is_without_a_meaning_and_something_to_do() -> None:
    for line in (DOCS / "troubleshooting.md").read_text().splitlines():
        if re.match(r"\| `[A-Z]\w+` \|", line):
            assert all(cell.strip() for cell in line.strip("|").split("|")), line


def as_the_end_to_end_tests_have_it(shown: Any) -> Any:
    """The Deployment that tests/e2e brings to a real node, with the names and sizes of the one that is shown."""
    template = shown["spec"]["template"]
    (engine,) = template["spec"]["containers"]
    wanted = deployment(
        template["metadata"]["labels"]["modelparams.dev/model"],
        shown["spec"]["replicas"],
        image=engine["image"],
        memory=template["metadata"]["annotations"]["modelparams.dev/memory"],
        limit=engine["resources"]["limits"]["memory"],
        **{variable["name"]: variable["value"] for variable in engine.get("env", [])},
    )
    (theirs,) = wanted["spec"]["template"]["spec"]["containers"]
    del theirs["imagePullPolicy"]  # the node there has the image, and no registry
    if not theirs["env"]:
        del theirs["env"]
    return wanted


def test_the_quick_start_s_deployment_is_that_of_the_end_to_end_tests() -> None:
    made, service = yaml.safe_load_all((DOCS / "quickstart" / "tiny-llama.yaml").read_text())
    assert made == as_the_end_to_end_tests_have_it(made)
    assert service["spec"]["selector"] == made["spec"]["template"]["metadata"]["labels"]


def test_the_deployment_that_is_shown_has_the_pod_of_the_end_to_end_tests() -> None:
    (block,) = shown("yaml", [DOCS / "your-deployment.md"])
    made = yaml.safe_load(block.text)
    wanted = as_the_end_to_end_tests_have_it(made)
    assert made["spec"]["template"]["spec"] == wanted["spec"]["template"]["spec"]
    assert made["spec"]["selector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()


def test_the_values_that_are_shown_are_values() -> None:
    def paths(node: Any, above: str) -> Iterator[str]:
        inner = node.items() if isinstance(node, dict) else ((f"[{at}]", value) for at, value in enumerate(node))
        for name, value in inner:
            path = f"{above}{name}" if isinstance(node, list) else f"{above}.{name}".lstrip(".")
            yield from paths(value, path) if isinstance(value, dict | list) else [path]

    block = shown("yaml", [DOCS / "install.md"])[0]
    found = list(paths(yaml.safe_load(block.text), ""))
    assert "serving.namespaces[0].name" in found
    assert [path for path in found if not has_value(path)] == []


def test_the_quick_start_s_images_are_of_this_release() -> None:
    version = yaml.safe_load((ROOT / "charts/modelparams/Chart.yaml").read_text())["appVersion"]
    texts = [file.read_text() for file in [*(DOCS / "quickstart").iterdir(), DOCS / "your-deployment.md"]]
    tags = {tag for text in texts for tag in re.findall(r"image: modelparams/\w+:(\S+)", text)}
    assert tags == {str(version)}
