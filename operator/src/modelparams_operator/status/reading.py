"""Read from the API server, as the person who asks: an overview, one object, or all that the planner would see."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import client

from modelparams.api import MODEL_LABEL
from modelparams.errors import APIMissing, UsageError
from modelparams_operator.core.explain import Snapshot
from modelparams_operator.shell import kubeconfig as kubeconfigs
from modelparams_operator.shell import views
from modelparams_operator.shell.kube import Kube
from modelparams_operator.shell.ports import (
    ASSIGNMENTS,
    JSON,
    PODS,
    ROLLOUTS,
    VERSIONS,
    ModelKey,
    ObjectKey,
    Resource,
)
from modelparams_operator.shell.saved import of_objects
from modelparams_operator.status.overview import Overview, overview

PERSON = "modelparams-cli"
"""Whose the fields are that a person changes: a Git engine takes those of managers that begin with kubectl away."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look. No namespace: all of them."""

    kubeconfig: Path | None
    context: str | None
    namespace: str | None


def namespace_of(kubeconfig: Path | None, context: str | None) -> str:
    """The namespace that a kubeconfig's context names; `default` when it names none.

    Raises:
        UsageError: there is no such file or context.
    """
    contexts, current = kubeconfigs.contexts_of(kubeconfig)
    chosen = next((c for c in contexts if c["name"] == context), None) if context else current
    if chosen is None:
        raise UsageError(f"the kubeconfig has no context {context!r}", hint="see: kubectl config get-contexts")
    return str(chosen["context"].get("namespace") or "default")


@contextlib.asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Kube]:
    """The API server, as the person who asks; what is written is known as this program's.

    Raises:
        UsageError: there is no way to it.
    """
    settings = client.Configuration()
    await kubeconfigs.load(settings, place.kubeconfig, place.context)
    settings.retries = None  # one clear answer at once
    async with Kube(client.ApiClient(settings), PERSON) as api:
        yield api


async def read(place: Place, model: str = "") -> Overview:
    """Read once.

    Raises:
        UsageError: there is no way to the API server.
        APIError: it did not answer as hoped.
    """
    async with connected(place) as api:
        fields = f"spec.modelName={model}" if model else ""
        return overview(
            await _all(api, ROLLOUTS, place.namespace, fields),
            await _all(api, VERSIONS, place.namespace, fields),
            await _all(api, ASSIGNMENTS, place.namespace, ""),
            model,
        )


async def found(api: Kube, resource: Resource, key: ObjectKey) -> JSON:
    """Get one object that a person named.

    Raises:
        UsageError: it is not there.
        APIError: the API server did not answer as hoped.
    """
    try:
        return await api.get(resource, key)
    except APIMissing:
        raise UsageError(
            f"there is no {resource.kind} {key.name} in namespace {key.namespace}",
            hint=f"see: kubectl get {resource.plural} --all-namespaces",
        ) from None


async def read_snapshot(place: Place, rollout: str) -> Snapshot:
    """Read what the planner would see of a rollout, whatever else its model has.

    Raises:
        UsageError: it is not there, or there is no way to the API server.
        InvalidSpec: it cannot be used.
        APIError: the API server did not answer as hoped.
    """
    async with connected(place) as api:
        subject = await found(api, ROLLOUTS, ObjectKey(place.namespace or "", rollout))
        key = ModelKey(place.namespace or "", str(views.rollout(subject).spec.model_name))
        of_model = f"spec.modelName={key.model}"
        seen = of_objects(
            key,
            versions=await _all(api, VERSIONS, place.namespace, of_model),
            rollouts=await _all(api, ROLLOUTS, place.namespace, of_model),
            pods=await _all(api, PODS, place.namespace, labels=f"{MODEL_LABEL}={key.model}"),
            orders=await _all(api, ASSIGNMENTS, place.namespace),
        )
    mine = next((one for one in seen if one.desired.name == rollout), None)
    if mine is None:
        raise UsageError(f"{rollout} was deleted meanwhile", hint="see: kubectl get mpr")
    return mine


async def _all(
    api: Kube, resource: Resource, namespace: str | None, fields: str = "", *, labels: str = ""
) -> list[JSON]:
    items, token = list[dict[str, Any]](), None
    while True:
        page = await api.list_page(resource, namespace, fields=fields, labels=labels, token=token)
        items += page.items
        token = page.token
        if not token:
            return items
