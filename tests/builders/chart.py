"""The chart, and how tests render it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from cluster.helm import Helm

Object = dict[str, Any]
CHART = Path(__file__).parents[2] / "charts" / "modelparams"
RELEASE, SYSTEM = "modelparams", "modelparams-system"


def policy(key: bytes) -> str:
    """A trust policy's text, of one public key."""
    return json.dumps({"threshold": 1, "keys": {hashlib.sha256(key).hexdigest(): key.hex()}})


TRUST = policy(bytes(32))


def values(**given: Any) -> list[str]:
    """Arguments for values; `_` stands for a dot: values(crds_keep=False)."""
    full = {"trust_policy": TRUST, **given}
    arguments = (f"{key.replace('_', '.')}={json.dumps(value)}" for key, value in full.items() if value is not None)
    return [part for argument in arguments for part in ("--set-json", argument)]


def render(*arguments: str, namespace: str = SYSTEM, release: str = RELEASE, **given: Any) -> list[Object]:
    """The objects that helm would apply, for no cluster; hooks too.

    Raises:
        HelmFailed: the values are refused.
    """
    text = Helm()("template", release, CHART, "--namespace", namespace, *arguments, *values(**given))
    return [document for document in yaml.safe_load_all(text) if document]


def find(objects: list[Object], kind: str, name: str = "") -> Object:
    """The one object of that kind (and name)."""
    (found,) = [o for o in objects if o["kind"] == kind and name in ("", o["metadata"]["name"])]
    return found
