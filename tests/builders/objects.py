"""The three kinds as JSON, with sane defaults: what a user, the operator or a pod would send to the API server.

version("1.1.0", lifecycle="Withdrawn")
rollout(range=">=1.0.0 <2.0.0", strategy={"steps": [{"pods": 1}]})
assignment(pod("web-0", uid), releases=[release("1.0.0")], activate=digest("1.0.0"))
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from modelparams.api import API_VERSION, GROUP, MODEL_LABEL

Object = dict[str, Any]

MODEL = "smollm2"
OPERATOR = "system:serviceaccount:modelparams-system:modelparams-operator"


def path(plural: str, namespace: str, name: str = "", subresource: str = "") -> str:
    """Where the API server has it."""
    parts = ["", "apis", GROUP, API_VERSION, "namespaces", namespace, plural, name, subresource]
    return "/".join(part for index, part in enumerate(parts) if part or index == 0)


def digest(seed: str) -> str:
    """A well-formed digest, another one for each seed."""
    return "sha256:" + hashlib.sha256(seed.encode()).hexdigest()


def source(bucket: str = "weights", **s3: Any) -> Object:
    """A store; `source(endpoint=…, credentialsSecretRef={"name": …})`."""
    return {"s3": {"endpoint": "https://s3.example.com", "bucket": bucket, "prefix": f"models/{MODEL}", **s3}}


def version(number: str = "1.0.0", *, model: str = MODEL, name: str | None = None, **spec: Any) -> Object:
    """A ModelParamVersion; `spec` replaces fields, and a field that is None is left out."""
    body = {
        "modelName": model,
        "version": number,
        "manifestDigest": digest(f"{model}-{number}"),
        "source": source(),
        "encryption": {"keyRef": {"name": model}},
    }
    return _object("ModelParamVersion", name or f"{model}-{number}", {**body, **spec})


def approval(number: str, by: str, *, model: str = MODEL, through: int = 1) -> Object:
    """Somebody's word for a version and its bytes, through a step."""
    name = f"{model}-{number}"
    return {"versionName": name, "manifestDigest": digest(name), "throughStep": through, "approvedBy": by}


def expedite(number: str, *, model: str = MODEL) -> Object:
    """The wish to hurry a version."""
    return {"versionName": f"{model}-{number}", "manifestDigest": digest(f"{model}-{number}")}


def rollout(name: str = MODEL, *, model: str = MODEL, pin: str | None = None, **spec: Any) -> Object:
    """A ModelParamRollout: the highest of 1.x, or `range`, or pinned to the version number `pin`."""
    versions: Object = {"type": "HighestSemver", "range": spec.pop("range", ">=1.0.0 <2.0.0")}
    if pin is not None:
        versions = {"type": "Pinned", "versionName": f"{model}-{pin}"}
    return _object("ModelParamRollout", name, {"modelName": model, "versionPolicy": versions, **spec})


def release(number: str = "1.0.0", *, model: str = MODEL) -> Object:
    """A version as it stands in an order."""
    spec = version(number, model=model)["spec"]
    return {"versionName": f"{model}-{number}", **spec}


def pod(name: str = "web-0", uid: str = "", *, model: str = MODEL, **labels: str) -> Object:
    """A pod that opts in, as far as orders and selectors look at it."""
    metadata = {"name": name, "labels": {MODEL_LABEL: model, **labels}} | ({"uid": uid} if uid else {})
    spec = {"nodeName": "workbench", "containers": [{"name": "engine", "image": "none"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def assignment(to: Mapping[str, Any], *, releases: Sequence[Object] | None = None, **spec: Any) -> Object:
    """The order to a pod that has a UID: by default to hold 1.0.0 and serve it."""
    name, uid = to["metadata"]["name"], to["metadata"]["uid"]
    held = [release()] if releases is None else list(releases)
    body: Object = {"rolloutName": MODEL, "podUID": uid, "releases": held, "term": 1}
    if held:
        body["activate"] = held[0]["manifestDigest"]
    order = _object("ModelParamAssignment", name, {**body, **spec})
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}
    return {**order, "metadata": {"name": name, "ownerReferences": [owner]}}


def _object(kind: str, name: str, spec: Object) -> Object:
    present = {key: value for key, value in spec.items() if value is not None}
    return {"apiVersion": f"{GROUP}/{API_VERSION}", "kind": kind, "metadata": {"name": name}, "spec": present}
