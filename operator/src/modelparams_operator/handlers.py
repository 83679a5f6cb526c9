"""The kopf shell: login, watches of our two kinds, start and stop. Events only wake; nothing is decided here.

No daemon, timer or change handler, so kopf writes nothing to any object: no finalizer and no annotation. A version that
Git prunes is gone in an instant, also while no operator runs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf

from modelparams.api import API_VERSION, FINALIZER, GROUP, rollout, version
from modelparams_operator.shell.backoff import Endless
from modelparams_operator.shell.ports import ModelKey


def make_registry(
    wake: Callable[[ModelKey], None], stop: Callable[[], Awaitable[None]], stopping: asyncio.Event
) -> kopf.OperatorRegistry:
    """Attach the handlers to a registry of their own; importing this module has no effect.

    Args:
        wake: told the model whose version or rollout came, changed or went.
        stop: ends what runs beside kopf; called when all watches have ended.
        stopping: the flag that `run` is given.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> Any:
        in_cluster = kopf.login_with_service_account(**kwargs)
        return by_address(in_cluster, os.environ) if in_cluster else kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        stopping.set()  # kopf waits 5 s for its own waiter on this flag otherwise
        await stop()

    @kopf.on.event(GROUP, API_VERSION, version.PLURAL, registry=registry)
    @kopf.on.event(GROUP, API_VERSION, rollout.PLURAL, registry=registry)
    async def changed(namespace: str | None, spec: kopf.Spec, **_: Any) -> None:
        wake(ModelKey(namespace or "", str(spec.get("modelName", ""))))

    return registry


def by_address(login: kopf.ConnectionInfo, environment: Mapping[str, str]) -> kopf.ConnectionInfo:
    """The API server by the address that each pod is told; kopf calls it by a name, and DNS may be away."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return login
    return dataclasses.replace(login, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")


def make_settings() -> kopf.OperatorSettings:
    """Kopf with everything off that would act on its own."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = 10
    # Never written, since no handler needs them; named all the same, so that nothing of kopf's defaults can show.
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP, key="last-handled", v1=False)
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Endless(1, 30)
    settings.watching.server_timeout = 290
    settings.watching.inactivity_timeout = 70  # bookmarks come every minute: do not lower
    settings.watching.chunk_size = 500
    settings.queueing.exit_timeout = 1
    return settings


async def run(registry: kopf.OperatorRegistry, namespaces: tuple[str, ...], stop: asyncio.Event) -> None:
    """Run kopf until a signal or `stop`; raises what ended its watches, so that the process can be started anew."""
    await kopf.operator(
        registry=registry,
        settings=make_settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )
