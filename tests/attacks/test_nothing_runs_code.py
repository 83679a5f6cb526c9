"""A signed file must not be able to run code: no module of ours can unpickle, and none trusts a repository's code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for root in ("params", "operator", "serving") for path in (ROOT / root / "src").rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
FORBIDDEN_CALLS = {"torch.load", "torch.hub.load", "numpy.load", "np.load", "yaml.load", "yaml.unsafe_load"}
FORBIDDEN_NAMES = {"eval", "exec", "__import__"}


def violations(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"import {a.name}" for a in names if a.name.split(".")[0] in FORBIDDEN_MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in FORBIDDEN_MODULES:
                yield f"from {module}"
            case ast.Call(func=ast.Attribute() as func) if ast.unparse(func) in FORBIDDEN_CALLS:
                yield ast.unparse(func)
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN_NAMES:
                yield name
            case ast.keyword(arg="trust_remote_code", value=value) if ast.unparse(value) != "False":
                yield "trust_remote_code"
            case ast.keyword(arg="allow_pickle", value=value) if ast.unparse(value) != "False":
                yield "allow_pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_run_code_from_a_file(path):
    assert list(violations(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, dill.source",
        "from joblib import load",
        "import torch\ntorch.load('x', weights_only=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=flag)",
        "np.load(x, allow_pickle=True)",
        "yaml.load(x)",
        "eval(x)",
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert list(violations(source))


def test_the_search_looks_at_all_three_roots():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == {"params", "operator", "serving"}
