"""One operator acts at a time: a `coordination.k8s.io` Lease, kept by a clock that never jumps.

The library's election compares wall clocks, never releases, and hangs with a hanging request; hence these lines.
The rules are client-go's (`leaderelection.go`): a lease is free when it is released, or when nobody renewed it for
its duration *as we saw it*. The term grows with each taking, so that pods can refuse an earlier holder's orders.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from modelparams import errors
from modelparams_operator.shell.backoff import Backoff
from modelparams_operator.shell.logs import logger
from modelparams_operator.shell.ports import JSON, LEASES, KubernetesAPI, ObjectKey


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: `retry < renew_deadline < duration`."""

    duration: float = 15
    renew_deadline: float = 10
    retry: float = 2


_TERM_MAX = 2**31 - 1
"""What the API server lets a Lease count to."""


class LeaseLost(Exception):
    """Another may act from now on: stop at once, whatever is half done."""


class Lease:
    """The right to act, from `acquire` to `release`, as long as `keep` runs.

    Args:
        highest_term: the highest term that any order has or any pod obeyed; the next one is above it, so that a Lease
            which was deleted, or restored from a backup, does not go on at terms which the pods refuse.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        key: ObjectKey,
        identity: str,
        *,
        timing: Timing,
        highest_term: Callable[[], Awaitable[int]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api, self._key, self._identity, self._timing = api, key, identity, timing
        self._highest_term, self._clock, self._sleep = highest_term, clock, sleep
        self._ours: JSON | None = None
        self._renewed_at = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        self._told = ""
        """The holder that was said to be waited for."""
        self.term = 0

    def is_held(self) -> bool:
        """Whether we may act at this moment. Asked before each write, in case the process was frozen."""
        return self._ours is not None and self._clock() < self._renewed_at + self._timing.renew_deadline

    async def acquire(self) -> int:
        """Wait until the lease is ours; return the term."""
        backoff = Backoff(first=self._timing.retry / 2, last=max(15.0, self._timing.retry))
        while True:
            try:
                if await self._try_to_take():
                    logger.info("Lease taken", lease=self._key.name, identity=self._identity, term=self.term)
                    return self.term
                backoff.reset()
                pause = self._timing.retry
            except errors.APIConflict:  # another one was faster
                pause = self._timing.retry
            except errors.APIError as error:
                pause = backoff.next()
                what = "Lease cannot be taken" if isinstance(error, errors.APIInvalid) else "Waiting for the API server"
                logger.warning(what, reason=error.reason, problem=str(error), pause=round(pause, 2))
            await self._sleep(pause)

    async def keep(self) -> NoReturn:
        """Renew until it fails.

        Raises:
            LeaseLost: another took it, or we could not renew in time.
        """
        while True:
            await self._sleep(self._timing.retry)
            left = self._renewed_at + self._timing.renew_deadline - self._clock()
            if left <= 0:
                raise LeaseLost(f"not renewed for {self._timing.renew_deadline:g} s")
            try:
                async with asyncio.timeout(left):
                    await self._renew()
            except TimeoutError:
                continue
            except errors.APIError as error:
                logger.warning("Lease not renewed", reason=error.reason, problem=str(error), left=round(left, 1))

    async def release(self) -> None:
        """Let the next one take over at once. Best effort: the lease runs out by itself."""
        if self._ours is None:
            return
        ours, self._ours = self._ours, None
        try:
            async with asyncio.timeout(3):
                await self._write(ours, holder="")
        except (errors.APIError, TimeoutError) as error:
            logger.warning("Lease not released", problem=str(error))

    async def _try_to_take(self) -> bool:
        try:
            lease = await self._api.get(LEASES, self._key)
        except errors.APIMissing:
            await self._make()
            return True
        if not self._is_free(lease):
            return False
        await self._take(lease)
        return True

    def _is_free(self, lease: JSON) -> bool:
        spec, version = lease.get("spec") or {}, lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        duration, holder = spec.get("leaseDurationSeconds") or self._timing.duration, spec.get("holderIdentity")
        if holder in (None, "", self._identity) or self._clock() > self._seen[1] + duration:
            return True
        self._tell(holder, duration)
        return False

    def _tell(self, holder: str, duration: float) -> None:
        """Say once of each holder that it is waited for."""
        if holder != self._told:
            self._told = holder
            until = f"it is released, or was not renewed for {duration:g} s"
            logger.info("Waiting for the lease", lease=self._key.name, holder=holder, until=until)

    async def _make(self) -> None:
        term, asked = self._after(await self._highest_term(), "an order"), self._clock()
        namespace, name = self._key
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": name, "namespace": namespace},
        }
        self._hold(await self._api.create(LEASES, namespace, {**body, "spec": self._spec(term)}), term, asked)

    async def _take(self, lease: JSON) -> None:
        past, ordered = (lease.get("spec") or {}).get("leaseTransitions") or 0, await self._highest_term()
        term, asked = self._after(max(past, ordered), "it" if past >= ordered else "an order"), self._clock()
        self._hold(await self._api.replace(LEASES, self._key, {**lease, "spec": self._spec(term)}), term, asked)

    def _after(self, term: int, whose: str) -> int:
        """The term that follows.

        Raises:
            APIInvalid: none does: somebody wrote a term that no count of takings leads to. Pods that obeyed it refuse
                every other, so it cannot be passed over.
        """
        if term < _TERM_MAX:
            return term + 1
        raise errors.APIInvalid(
            f"the Lease {self._key.namespace}/{self._key.name} cannot be taken: {whose} has the term {term}, "
            f"and none above {_TERM_MAX} can be",
            hint="delete this Lease and all orders (kubectl delete mpa --all --all-namespaces; pods serve on), "
            "then restart the pods whose orders had that term; it is tried again",
        )

    async def _renew(self) -> None:
        asked, ours = self._clock(), self._ours
        if ours is None:
            raise LeaseLost("released")
        try:
            self._hold(await self._write(ours, holder=self._identity), self.term, asked)
        except errors.APIConflict:
            # Ours still, when a renewal whose answer was lost did arrive.
            now = await self._api.get(LEASES, self._key)
            spec = now.get("spec") or {}
            if spec.get("holderIdentity") != self._identity or spec.get("leaseTransitions") != self.term:
                raise LeaseLost(f"taken by {spec.get('holderIdentity') or 'nobody'}") from None
            self._ours = now
        except errors.APIMissing:
            raise LeaseLost("deleted") from None

    async def _write(self, ours: JSON, *, holder: str) -> JSON:
        spec = {**ours["spec"], "holderIdentity": holder, "renewTime": _now()}
        return await self._api.replace(LEASES, self._key, {**ours, "spec": spec})

    def _hold(self, lease: JSON, term: int, asked: float) -> None:
        """Count from before the request was sent: the server may have written at once."""
        self._ours, self.term, self._renewed_at = lease, term, asked

    def _spec(self, term: int) -> JSON:
        now = _now()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._timing.duration)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": term,
        }


def _now() -> str:
    """metav1.MicroTime; for people only."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
