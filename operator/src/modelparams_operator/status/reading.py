"""Read an overview from the API server, as the person who asks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import client

from modelparams.errors import UsageError
from modelparams_operator.shell import kubeconfig as kubeconfigs
from modelparams_operator.shell.kube import Kube
from modelparams_operator.shell.ports import ASSIGNMENTS, JSON, ROLLOUTS, VERSIONS, Resource
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


async def _all(api: Kube, resource: Resource, namespace: str | None, fields: str) -> list[JSON]:
    found, token = list[dict[str, Any]](), None
    while True:
        page = await api.list_page(resource, namespace, fields=fields, token=token)
        found += page.items
        token = page.token
        if not token:
            return found
