"""Images, without building any: names after inputs, what a build is told of an index, links instead of copies."""

from __future__ import annotations

import doctest
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from builders.doc_blocks import the_block
from cluster import images
from cluster.images import base, builder, inputs, layers, pip_config, seeding
from cluster.images.builder import Builder, BuildFailed, NoBuilder
from cluster.images.watching import watched
from cluster.tools.build import Progress


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """As much of a checkout as an image is made of."""
    locks = ("operator/requirements.lock", "serving/requirements.lock", "serving/torch.lock")
    flat = ("Dockerfile", ".dockerignore", "LICENSE", "README.md", "pyproject.toml", "requirements-setup.lock")
    for name in (*flat, *locks, "operator/src/a.py", "params/src/b.py", "serving/src/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "images"),
    [
        ("params/src/b.py", {"operator", "serving"}),
        ("params/src/new.py", {"operator", "serving"}),
        ("Dockerfile", {"operator", "serving"}),
        ("operator/requirements.lock", {"operator"}),
        ("serving/torch.lock", {"serving"}),
        ("params/src/__pycache__/b.cpython-311.pyc", set()),
        ("tests/test_b.py", set()),
    ],
)
def test_an_images_name_follows_what_it_is_made_of(tree: Path, changed: str, images: set[str]) -> None:
    before = {target: inputs.inputs_sum(target, "base", root=tree) for target in inputs.TARGETS}
    (tree / changed).parent.mkdir(parents=True, exist_ok=True)
    (tree / changed).write_text("changed")
    after = {target: inputs.inputs_sum(target, "base", root=tree) for target in inputs.TARGETS}
    assert {target for target in inputs.TARGETS if before[target] != after[target]} == images


def test_an_images_name_follows_its_base(tree: Path) -> None:
    assert inputs.inputs_sum("operator", "a", root=tree) != inputs.inputs_sum("operator", "b", root=tree)


def test_every_file_that_decides_a_name_may_be_seen_by_a_build() -> None:
    allowed = [line[1:] for line in (inputs.ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = inputs.files(inputs.ROOT, [name for name in allowed if "*" not in name])
    assert {"pyproject.toml", "params/src/modelparams/floe.py"} < {str(p.relative_to(inputs.ROOT)) for p in copied}


def test_the_chart_asks_for_the_tag_that_the_images_get() -> None:
    chart = yaml.safe_load((inputs.ROOT / "charts/modelparams/Chart.yaml").read_text())
    assert chart["appVersion"] == inputs.version()
    assert inputs.short(inputs.reference("operator")) == f"modelparams/operator:{inputs.version()}"


def test_a_build_is_told_of_an_index_by_files_and_variables_and_of_nothing_else(tmp_path: Path) -> None:
    first, last = tmp_path / "first", tmp_path / "last"
    first.write_text("[global]\nindex-url = a\ncert = /ca\n")
    last.write_text("[global]\nindex-url = b\nextra-index-url =\n  c\n  d\n")
    said = pip_config.text([first, last, tmp_path / "none"], {"PIP_TRUSTED_HOST": "e", "PIP_NO_INPUT": "1"})
    assert said == "[global]\nindex-url = b\nextra-index-url = c\n    d\ntrusted-host = e\n"
    assert pip_config.text([first], {"PIP_INDEX_URL": "z"}) == "[global]\nindex-url = z\n"
    assert pip_config.text([], {}) == ""


def test_what_a_build_is_told_is_for_this_user_alone_and_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "a")
    with pip_config.file() as path:
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "index-url = a" in path.read_text()
    assert not path.exists()


def test_a_docker_client_without_an_engine_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho client; echo 'Cannot connect to the Docker daemon' >&2; exit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "Cannot connect to the Docker daemon" in Builder("docker", ("docker",)).works()
    with pytest.raises(NoBuilder, match=r"(?s)Start Docker or Podman.*docker: .*Cannot connect to the Docker daemon"):
        builder.find("docker")


def test_of_each_target_the_newest_images_stay() -> None:
    listed = [{"names": [f"localhost/modelparams/{t}:{n}"], "created": n} for t in ("a", "b") for n in (2, 3, 1)]
    listed.append({"names": None, "created": 9})
    old = ["localhost/modelparams/a:1", "localhost/modelparams/b:1"]
    assert builder.superseded(listed, 2) == old
    assert builder.superseded(listed, 3) == []


def test_a_long_command_says_what_it_is_at_and_gives_its_words_when_it_fails() -> None:
    out = io.StringIO()
    code, lines = watched(["sh", "-c", "echo one; echo two >&2; exit 3"], os.environ, Progress("x", out))
    assert (code, lines) == (3, ["one", "two"])


@pytest.mark.parametrize("name", ["serving/none.lock", "/etc/passwd", "serving/README.md"])
def test_a_lock_of_torch_that_a_build_cannot_see_is_refused(name: str) -> None:
    with pytest.raises(BuildFailed, match=f"TORCH is {name}: name a lock in the tree"):
        images._torch({"TORCH": name})


def test_a_builder_that_nobody_knows_is_refused_with_those_that_are() -> None:
    with pytest.raises(NoBuilder, match="no builder kaniko: one of docker, podman, buildah"):
        builder.find("kaniko")


def test_the_layers_of_an_image_are_found_by_what_they_lie_on(tmp_path: Path) -> None:
    (tmp_path / "overlay-layers").mkdir()
    entries = [
        {"id": "1", "diff-digest": "sha256:a", "diff-size": 1},
        {"id": "2", "parent": "1", "diff-digest": "sha256:b", "diff-size": 2},
        {"id": "3", "parent": "2", "diff-digest": "sha256:b", "diff-size": 2},  # an empty one, say, twice
    ]
    (tmp_path / "overlay-layers" / "layers.json").write_text(json.dumps(entries))
    found = layers.of_image(tmp_path, ["sha256:a", "sha256:b", "sha256:b"])
    assert [layer.folder.parent.name for layer in found] == ["1", "2", "3"]
    assert found[1].chain == "sha256:" + hashlib.sha256(b"sha256:a sha256:b").hexdigest()
    with pytest.raises(layers.NotInStorage, match="no layer sha256:c on 1"):
        layers.of_image(tmp_path, ["sha256:a", "sha256:c"])


def test_a_layer_is_linked_not_copied_with_modes_and_links(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "bin").mkdir(parents=True, mode=0o751)
    (source / "bin" / "python3").write_text("x")
    (source / "bin" / "python").symlink_to("python3")
    target.mkdir()
    seeding.link(source, target)
    assert (target / "bin" / "python3").samefile(source / "bin" / "python3")
    assert (target / "bin" / "python").readlink() == Path("python3")
    assert stat.S_IMODE((target / "bin").stat().st_mode) == stat.S_IMODE((source / "bin").stat().st_mode)


def test_the_base_is_the_dockerfiles_or_named_after_what_it_is_made_of() -> None:
    assert base.default() == "python:3.12-slim"
    assert base.name().startswith("localhost/modelparams/base:")


def test_the_examples_of_these_pages_are_right() -> None:
    assert [doctest.testmod(module).failed for module in (inputs, layers)] == [0, 0]


def test_a_build_without_a_builder_ends_with_one_message(tmp_path: Path) -> None:
    environment = os.environ | {"MODELPARAMS_BUILDER": "kaniko", "PYTHONPATH": str(inputs.ROOT / "tests")}
    command = [sys.executable, "-m", "cluster.images"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "no builder kaniko: one of docker, podman, buildah\n")


def test_the_commands_of_the_page_are_there() -> None:
    lines = the_block("tests/cluster/images/README.md", "The images", "").splitlines()
    assert len(lines) == 5
    for line in lines:
        command = line.partition("#")[0].split()
        if command[0] == "make":
            tried = [*command, "-n"]
        else:
            assert command[:2] == ["PYTHONPATH=tests", ".venv/bin/python"]
            tried = [sys.executable, *command[2:], "--help"]
        environment = os.environ | {"PYTHONPATH": str(inputs.ROOT / "tests")}
        done = subprocess.run(tried, cwd=inputs.ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_what_a_killed_build_left_is_removed_and_what_another_is_at_stays(tmp_path: Path) -> None:
    for name in (str(os.getpid()), "99999999", "oci1234"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "layer").write_bytes(b"x")
    builder.sweep(tmp_path)
    assert [left.name for left in tmp_path.iterdir()] == [str(os.getpid())]
