"""What is in the images: read in the builder's storage, nothing is run."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.images import Images, layers
from cluster.images.builder import storage
from cluster.images.inputs import TARGETS, version
from cluster.images.layers import Layer

pytestmark = [pytest.mark.integration, pytest.mark.node]

OURS = {"modelparams", "modelparams_operator", "modelparams_serving"}
PARAMETERS = re.compile(r"\.(safetensors|gguf|pt|pth|onnx|npz|h5|bin)$")
PAGE = 4096
"""Less holds no parameters: packages carry small files of such names."""


@dataclass(frozen=True)
class Image:
    """One image."""

    target: str
    whole: dict[str, Any]
    layers: list[Layer]

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.whole["config"])

    def paths(self, *folders: str) -> Iterator[Path]:
        """Each file of the image, as it lies in its layer."""
        for layer in self.layers:
            for folder in folders or ("",):
                yield from (layer.folder / folder).rglob("*")

    def named(self, path: str) -> list[Path]:
        return [layer.folder / path for layer in self.layers if os.path.lexists(layer.folder / path)]

    def packages(self) -> set[str]:
        found = {path for layer in self.layers for path in layer.folder.glob("opt/venv/lib/python3*/site-packages/*")}
        return {path.name for path in found}


@pytest.fixture(params=TARGETS)
def image(request: pytest.FixtureRequest, images: Images) -> Image:
    [built] = [built for built in images.built if built.target == request.param]
    if built.builder.name != "buildah":
        pytest.skip(f"reads buildah's storage, and {built.builder.name} built the images")
    config = built.config
    return Image(built.target, config, layers.of_image(storage(), config["rootfs"]["diff_ids"]))


def test_it_runs_as_nobody_in_particular_by_a_command_without_a_shell(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    command = [*image.config.get("Entrypoint", []), *image.config.get("Cmd", [])]
    assert command == {"operator": ["modelparams-operator", "run"], "serving": ["modelparams-serve"]}[image.target]
    assert image.config.get("StopSignal", "SIGTERM") == "SIGTERM"
    for name in (command[0], "modelparams-agent"):
        [script] = image.named(f"opt/venv/bin/{name}")
        assert script.read_text().startswith("#!/opt/venv/bin/python"), "no shell between the kernel and Python"
        assert os.access(script, os.X_OK)
    assert image.named("opt/venv/bin/python"), "helm test runs it"


def test_probes_are_the_clusters_and_labels_say_what_it_is(image: Image) -> None:
    assert "Healthcheck" not in image.config
    labels = image.config["Labels"]
    assert labels["org.opencontainers.image.version"] == version()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"org.opencontainers.image.title", "org.opencontainers.image.description"} <= labels.keys()


def test_the_last_layer_is_our_code_and_nothing_else(image: Image) -> None:
    *below, code = image.layers
    [packages] = code.folder.glob("opt/venv/lib/python3*/site-packages")
    assert {path.name for path in packages.iterdir()} == {
        *OURS,
        f"modelparams-{version()}.dist-info",
        "first_process.pth",
    }
    assert {path.name for path in (code.folder / "opt").iterdir()} == {"venv"}
    assert {path.name for path in code.folder.iterdir()} == {"opt"}
    assert code.size < sum(layer.size for layer in below) / 20


def test_what_changes_least_lies_lowest(image: Image) -> None:
    """The lock of a layer lies right below it, so each is named by the lock that made it."""
    order = [path.name for layer in image.layers for path in layer.folder.glob("opt/locks/*")]
    assert order == {"operator": ["operator.lock"], "serving": ["torch.lock", "serving.lock"]}[image.target]


def test_only_the_serving_image_has_torch(image: Image) -> None:
    heavy = {"torch", "transformers", "triton", "nvidia"} & image.packages()
    assert heavy == ({"torch", "transformers", "triton", "nvidia"} if image.target == "serving" else set())
    assert ("kopf" in image.packages()) == (image.target == "operator")


def test_it_holds_no_parameters(image: Image) -> None:
    named = [path for path in image.paths("opt", "root", "home") if PARAMETERS.search(path.name)]
    assert [path for path in named if path.stat().st_size > PAGE] == []


def test_nothing_of_the_build_stays_in_it(image: Image) -> None:
    assert image.named("etc/pip.conf") == []
    assert {"pip", "uv", "hatchling"} & image.packages() == set()
    left = [path for path in image.paths("tmp", "root/.cache", "src", "wheels", "opt/tools") if not path.is_dir()]
    assert left == []
    history = str(image.whole.get("history", "")) + str(image.config)
    assert "://" not in history, "no address of an index"


def test_all_of_our_code_is_compiled(image: Image) -> None:
    [packages] = image.layers[-1].folder.glob("opt/venv/lib/python3*/site-packages")
    sources = [path for name in OURS for path in (packages / name).rglob("*.py")]
    assert len(sources) > 100
    assert [path for path in sources if not any((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))] == []


def test_nobody_but_root_may_change_what_runs(image: Image) -> None:
    others = [
        path
        for path in image.paths("opt")
        if not path.is_symlink() and (path.stat().st_mode & stat.S_IWOTH or path.stat().st_uid != 0)
    ]
    assert others == []
