"""`modelparams-agent`: wiring, and the only place that builds objects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from datetime import timedelta

import structlog

from modelparams.errors import UsageError
from modelparams.memory_directory import check_in_memory
from modelparams_serving.agent import health, kube, metrics
from modelparams_serving.agent.engine_client import EngineClient
from modelparams_serving.agent.loop import Agent
from modelparams_serving.agent.order_book import Orders
from modelparams_serving.agent.settings import AgentSettings
from modelparams_serving.agent.staging import Stager
from modelparams_serving.agent.status_writer import StatusWriter
from modelparams_serving.starting import refuse, started

logger: structlog.stdlib.BoundLogger = structlog.get_logger()


_WHAT = """Obey the orders for this pod: fetch, verify and open model parameters, and have the engine swap to them.

Runs until SIGTERM beside modelparams-serve, whose runtime directory it shares. S3 credentials are boto3's variables
(AWS_*); the API server is the pod's, or $KUBECONFIG's. Exit codes: 0 after SIGTERM, 2 settings."""


def main() -> None:
    """Run until SIGTERM."""
    settings = started("modelparams-agent", _WHAT, AgentSettings)
    try:
        if settings.agent_metrics_port:
            metrics.serve(settings.agent_metrics_port)
        check_in_memory(settings.runtime_dir)
        asyncio.run(run(settings))
    except UsageError as error:
        refuse("modelparams-agent", str(error))
    # A thread may hang in a read for as long as the store lets it; what it fills nobody looks at any more.
    sys.stderr.flush()
    os._exit(0)


async def run(settings: AgentSettings) -> None:
    """Drive the pod's engine until SIGTERM or SIGINT; the engine serves on."""
    pulse, beats = health.Pulse(), health.Pulse()
    if settings.agent_health_port:
        health.serve(
            settings.agent_health_host, settings.agent_health_port, (pulse, beats), settings.agent_stuck_seconds
        )
    orders = Orders(settings.model_name, settings.pod_uid)
    api = kube.PodAPI(settings.pod_namespace, settings.pod_name)
    writer = StatusWriter(api)
    stager = Stager.of(settings.runtime_dir, settings.trust, settings.keys, settings.staging_workers)
    async with EngineClient(settings.runtime_dir, on_loss=orders.changed.set) as engine:
        agent = Agent(
            orders=orders,
            runtime_dir=settings.runtime_dir,
            engine=engine,
            stages=stager,
            writer=writer,
            pulse=pulse,
            engine_grace=timedelta(seconds=settings.engine_grace_seconds),
        )
        logger.info("Started", pod=settings.pod_name, model=settings.model)
        await _until_stopped(
            agent.run(),
            writer.run(),
            kube.follow(api, orders.assigned),
            orders.seek(api),
            orders.remind(settings.pod_name, settings.pod_namespace),
            health.beat(beats),
        )
        await agent.stop()
    await api.close()
    logger.info("Stopped")


async def _until_stopped(*work: asyncio._CoroutineLike[None]) -> None:
    """Run all of it until a signal; a bug in one ends the process, and kubelet starts it again."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(one) for one in (*work, _wait(stop))]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        for task in done:
            task.result()


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


if __name__ == "__main__":
    main()
