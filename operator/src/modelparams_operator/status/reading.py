"""Read an overview from the API server, as the person who asks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import client, config

from modelparams.errors import UsageError
from modelparams_operator.shell.kube import Kube
from modelparams_operator.shell.ports import ASSIGNMENTS, JSON, ROLLOUTS, VERSIONS, Resource
from modelparams_operator.status.overview import Overview, overview


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look. No namespace: all of them."""

    kubeconfig: Path | None
    context: str | None
    namespace: str | None


_UNREADABLE = (config.ConfigException, OSError, yaml.YAMLError, TypeError)


def namespace_of(kubeconfig: Path | None, context: str | None) -> str:
    """The namespace that a kubeconfig's context names; `default` when it names none.

    Raises:
        UsageError: there is no such file or context.
    """
    try:
        contexts, current = config.list_kube_config_contexts(_file(kubeconfig))  # type: ignore[no-untyped-call]  # theirs has none
    except _UNREADABLE as error:
        raise _unusable(error) from None
    chosen = next((c for c in contexts if c["name"] == context), None) if context else current
    if chosen is None:
        raise UsageError(f"the kubeconfig has no context {context!r}", hint="see: kubectl config get-contexts")
    return str(chosen["context"].get("namespace") or "default")


async def read(place: Place, model: str = "") -> Overview:
    """Read once.

    Raises:
        UsageError: there is no way to the API server.
        APIError: it did not answer as hoped.
    """
    settings = client.Configuration()
    try:
        await config.load_kube_config(  # type: ignore[no-untyped-call]  # theirs has none
            _file(place.kubeconfig), place.context, settings, persist_config=False
        )
    except _UNREADABLE as error:
        raise _unusable(error) from None
    settings.retries = None  # one clear answer at once
    async with Kube(client.ApiClient(settings)) as api:
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


def _file(kubeconfig: Path | None) -> str:
    """What the client shall read; several files, as $KUBECONFIG may name, have a colon between them."""
    named = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    if not any(Path(one).expanduser().is_file() for one in named.split(os.pathsep) if one):
        raise _unusable(f"there is no file {named}")
    return named


def _unusable(why: Exception | str) -> UsageError:
    return UsageError(f"no way to an API server: {why}", hint="name one with --kubeconfig, or set KUBECONFIG")
