"""The quick start, as its page has it, on a real node: all but kind's own commands and the building of images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders.doc_blocks import ROOT, blocks
from cluster.images import ensure, load_into
from cluster.node import Node
from cluster.node.images import Image
from cluster.tools import binary

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]

PAGE = ROOT / "docs" / "quickstart.md"
S3 = ROOT / "docs" / "quickstart" / "s3.yaml"
NEXT = "=== "
_NOT_HERE = ("Build the images", "Clean up")
_SECONDS = 800


@pytest.fixture(scope="module")
def node() -> Node:
    """The node that the test runs inside of, with the images that the page loads and the S3 server's."""
    found = Node.inside()
    if found is None:
        pytest.skip("runs inside of a node: make test-docs")
    load_into(found, ensure())
    (s3,) = re.findall(r"image: (versity/\S+)", S3.read_text())
    server = Image.scratch(["/bin/versitygw"]).with_layer({"bin/versitygw": binary("versitygw")})
    found.load(server.archive(f"docker.io/{s3}"))
    return found


def script() -> str:
    """The page's commands, each heading said before its own."""
    parts = [block for block in blocks(PAGE) if block.language == "sh" and block.heading not in _NOT_HERE]
    text = "".join(f"echo '{NEXT}{part.heading}'\n{part.text}" for part in parts)
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("kind "))
    # The node has no DNS.
    address = "http://$(kubectl --namespace=models get service s3 --output=jsonpath={.spec.clusterIP}):7070"
    assert "http://s3.models.svc:7070" in text
    return text.replace("http://s3.models.svc:7070", address) + f"echo '{NEXT}the end'\nkill %1 %2\n"


def said_by(folder: Path, node: Node) -> dict[str, str]:
    """What the commands below each heading print, run in something like a checkout."""
    for room in ("charts", "docs", "params"):
        (folder / room).symlink_to(ROOT / room)
    programs = {
        str(Path(sys.executable).parent): None,
        str(binary("helm").parent): None,
        str(binary("kubectl").parent): None,
    }
    environment = {
        "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
        "HOME": str(folder),
        "KUBECONFIG": str(node.kubeconfig),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script()],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    parts = [part.partition("\n") for part in done.stdout.split(NEXT)[1:]]
    said: dict[str, str] = {}
    for heading, _, text in parts:
        said[heading] = said.get(heading, "") + text
    return said


def get(node: Node, kinds: str) -> list[dict[str, Any]]:
    """Objects of the page's namespace."""
    command = [
        binary("kubectl"),
        f"--kubeconfig={node.kubeconfig}",
        "--namespace=models",
        "get",
        kinds,
        "--output=json",
    ]
    items: list[dict[str, Any]] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)[
        "items"
    ]
    return items


def test_the_quick_start_does_what_it_says(node: Node, tmp_path: Path) -> None:
    said = said_by(tmp_path, node)
    assert re.search(r"^Phase: +Succeeded$", said["Install the chart"], re.MULTILINE)
    assert re.search(r"^tiny-llama-\S+ +\d/2 ", said["Start the pods"], re.MULTILINE)
    assert "x-modelparams-version: 1.0.0" in said["Publish and apply a version"].lower()
    assert "x-modelparams-version: 1.1.0" in said["See the swap"].lower()

    answers = [
        re.findall(r'"text":\s*("[^"]*")', said[part])[-1] for part in ("Publish and apply a version", "See the swap")
    ]
    assert answers[0] != answers[1]
    assert len(re.findall(r"^pod/tiny-llama-\S+ +2/2 +Running +0 ", said["See the swap"], re.MULTILINE)) == 3
    assert [order["status"]["live"]["version"] for order in get(node, "mpa")] == ["1.0.0"] * 3
    pods = [pod for pod in get(node, "pods") if pod["metadata"]["name"].startswith("tiny-llama")]
    statuses = [s for p in pods for s in p["status"]["containerStatuses"] + p["status"]["initContainerStatuses"]]
    assert [status["restartCount"] for status in statuses] == [0] * 6
