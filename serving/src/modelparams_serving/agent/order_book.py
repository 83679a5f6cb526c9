"""Which order the pod follows now: its assignment's unless that is stale, else what is live in its rollout."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from modelparams import errors
from modelparams.api import MODEL_LABEL
from modelparams.api.assignment import AssignmentStatus
from modelparams.names import ModelName
from modelparams.reasons import Reason
from modelparams_serving.agent.order import Assignment, Order, Rollout, from_rollouts, is_for, is_stale

SEEK_SOON, SEEK_LATER = 1.5, 15.0
REMIND_FIRST, REMIND_LAST = 30.0, 600.0
logger: structlog.stdlib.BoundLogger = structlog.get_logger()


class SeesRollouts(Protocol):
    """Where rollouts can be looked up."""

    async def rollouts(self) -> tuple[Rollout, ...]:
        """All of the namespace; raises an APIError."""


class Orders:
    """What is known of orders for one pod. While the API server is away, what was last known holds."""

    def __init__(self, model: ModelName, pod_uid: str) -> None:
        self.pod_uid = pod_uid
        self.generation = -1
        """Of the assignment whose order was last accepted."""
        self.changed = asyncio.Event()
        """Set when it is worth to look again, whatever for."""
        self._model = model
        self._has_heard = False
        self._assignment: Assignment | None = None
        self._earlier: AssignmentStatus | None = None
        self._order: Order | None = None
        self._fallback: Order | None = None
        self._refused = -1

    @property
    def own_assignment(self) -> Assignment | None:
        """The pod's assignment, if it is for this life of the pod."""
        found = self._assignment
        return found if found and is_for(found, self.pod_uid) else None

    def assigned(self, assignment: Assignment | None) -> None:
        """Take what the API server says of the pod's assignment; None: there is none."""
        if assignment and not self._has_heard and assignment.status.pod_uid == self.pod_uid:
            self._earlier = assignment.status
        self._assignment, self._has_heard = assignment, True
        self.changed.set()

    def earlier_life(self) -> AssignmentStatus | None:
        """What an agent of this pod before us reported; given once."""
        earlier, self._earlier = self._earlier, None
        return earlier

    def accept(self, seen_term: int) -> Order | None:
        """The order to follow."""
        found = self.own_assignment
        if found is None:
            self._order = self._fallback
            return self._order
        order = Order.of(found.spec)
        if not is_stale(order, seen_term):
            self._take(order, found.generation)
        elif self._refused != found.generation:
            self._refused = found.generation
            logger.warning("Order ignored", reason=Reason.STALE_TERM, term=order.term, seen_term=seen_term)
        return self._order

    def _take(self, order: Order, generation: int) -> None:
        if order != self._order:
            logger.info(
                "Order taken",
                releases=[release.version_name for release in order.releases],
                activate=str(order.activate or ""),
                term=order.term,
            )
        self._order, self.generation = order, generation

    async def seek(self, source: SeesRollouts) -> None:
        """While nobody gives orders, look what is live in the rollout; for ever."""
        while True:
            pause = SEEK_SOON
            if self._has_heard and self.own_assignment is None:
                try:
                    self._found(from_rollouts(await source.rollouts(), self._model))
                except errors.APIError as error:
                    logger.warning("Rollouts not read", reason=error.reason, problem=str(error))
                pause = SEEK_LATER if self._fallback else 2 * SEEK_SOON
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    async def remind(self, pod: str, namespace: str, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Say, ever more rarely, that nobody has given an order yet, and where to look; for ever.

        A mistyped label is no error anywhere else: no rollout selects such a pod, so nobody speaks of it. While
        the API server has told nothing, the watch says so.
        """
        pause = REMIND_FIRST
        while True:
            await sleep(pause)
            is_waiting = self._has_heard and self._order is None
            pause = min(2 * pause, REMIND_LAST) if is_waiting else REMIND_FIRST
            if is_waiting:
                look = f"kubectl --namespace={namespace} get mpr,mpv"
                hint = f"{look}: is there a rollout of this model, and is it what the pod's label {MODEL_LABEL} says?"
                logger.warning("Waiting for an order", pod=pod, namespace=namespace, model=str(self._model), hint=hint)

    def _found(self, order: Order | None) -> None:
        if order != self._fallback:
            self._fallback = order
            self.changed.set()
