"""Orders as they are written: all of a pass, and none of the next before it is known what came of each."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable

from modelparams import errors
from modelparams_operator.core.model import Assign
from modelparams_operator.shell.at_once import each
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.observe import Model
from modelparams_operator.shell.ports import ASSIGNMENTS, KubernetesAPI, ModelKey, ObjectKey
from modelparams_operator.shell.record import Recorder
from modelparams_operator.shell.views import Assignment
from modelparams_operator.shell.watch import Mirrors


class OrderWriter:
    """Writes orders, and sees to it that the next pass counts them, whatever the API server answered.

    Args:
        assignments: told of each order that was written.
        places: how many are written at once.
    """

    def __init__(
        self, api: KubernetesAPI, assignments: Mirrors[Assignment], record: Recorder, places: asyncio.Semaphore
    ) -> None:
        self._api, self._assignments, self._record, self._places = api, assignments, record, places
        self._doubted = defaultdict[ModelKey, set[str]](set)
        """Pods whose order may have been written or not: no answer came."""

    async def write(self, model: Model, orders: Iterable[Assign]) -> list[BaseException]:
        """Write each of them; gives what failed."""
        return await each((self._write(model, order) for order in orders), self._places)

    async def clear_up(self, key: ModelKey) -> None:
        """Read the orders whose writing got no answer: until it is known who moves, nobody else may.

        Raises:
            APIError: it is not known yet.
        """
        for name in tuple(self._doubted[key]):
            with contextlib.suppress(errors.APIMissing):
                found = await self._api.get(ASSIGNMENTS, ObjectKey(key.namespace, name))
                self._assignments.in_namespace(key.namespace).note(found)
            self._doubted[key].discard(name)

    def forget(self, key: ModelKey) -> None:
        """Drop what is remembered of a model that is gone."""
        self._doubted.pop(key, None)

    async def _write(self, model: Model, action: Assign) -> None:
        known = model.assignments.get(action.pod_name)
        logger.info(
            "Order",
            namespace=model.key.namespace,
            pod=action.pod_name,
            hold=[release.version_name for release in action.order.releases],
            term=action.order.term,
            activate=str(action.order.activate or ""),
        )
        try:
            written = await self._record.order(model.key, action, known)
        except errors.APIUnavailable:
            self._doubted[model.key].add(action.pod_name)
            raise
        self._assignments.in_namespace(model.key.namespace).note(written)
