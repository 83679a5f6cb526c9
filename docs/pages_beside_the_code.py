"""Lets the site have pages that lie beside the code, and links go between pages as they do in the tree.

A page of docs/ links to `../crds/modelparamversions.md`, as a reader of the tree follows it; the site has that page at
`crds/modelparamversions.md`. What is in the tree and not in the site is named and not linked to.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

BESIDE_THE_CODE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "crds/modelparamassignments.md",
    "crds/modelparamrollouts.md",
    "crds/modelparamversions.md",
    "operator/README.md",
    "params/FORMAT.md",
    "serving/PROTOCOL.md",
    "serving/README.md",
)
_TREE = Path(__file__).parents[1]
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them."""
    for name in BESIDE_THE_CODE:
        files.append(File.generated(config, name, abs_src_path=str(_TREE / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn the tree's links into the site's."""
    here = page.file.src_uri
    parts = _FENCED.split(markdown)
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda link: _in_the_site(link, here), part) for part in parts
    )


def _in_the_site(link: re.Match[str], here: str) -> str:
    """A link of the page `here` as the site has it; its text alone when the site has no such page."""
    text, target, anchor = link[1], link[2], link[3] or ""
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(_in_the_tree(here)), target))
    if wanted.startswith("docs/") or wanted in BESIDE_THE_CODE:
        there = wanted.removeprefix("docs/")
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(here) or '.')}{anchor})"
    return text if (_TREE / wanted).exists() else link[0]


def _in_the_tree(page: str) -> str:
    return page if page in BESIDE_THE_CODE else f"docs/{page}"
