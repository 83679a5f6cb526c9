"""Fetch, verify and open a release into the arena that the engine gives for it."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from modelparams import errors
from modelparams.api.release import Release, S3Source
from modelparams.digest import Digest
from modelparams.keys import KeyProvider, LocalKeyProvider
from modelparams.manifest import Expectation, Manifest
from modelparams.protocol import EngineState, Reserve, Slot
from modelparams.pull import ReusableArena, SealedRelease, open_release, pull
from modelparams.store import ObjectStore, open_store
from modelparams.trust import TrustPolicy
from modelparams_serving.agent import metrics
from modelparams_serving.agent.arena import inode_of, mapped
from modelparams_serving.agent.background import in_background
from modelparams_serving.agent.memory import Filled

MANIFESTS_KEPT = 4
_LONG_AGO = datetime.fromtimestamp(0, UTC)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Staged:
    """A filled arena, and what its signed manifest says of the model's history."""

    filled: Filled
    floor: int


@dataclass
class Ticket:
    """One staging, seen from outside: stop it, or ask how far it is."""

    release: Release
    floor: int = 0
    """No sequence below it is taken."""
    resident: tuple[Release, Slot] | None = None
    """What lies in the other arena: its equal blobs are copied instead of fetched."""
    percent: int = 0
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _total: int = 0
    _done: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cancel(self) -> None:
        """Ask it to end soon; what was written is wiped."""
        self._cancelled.set()

    def is_cancelled(self) -> bool:
        """Whether it was asked to."""
        return self._cancelled.is_set()

    def start(self, task: str, total: int) -> None:  # noqa: ARG002 - the protocol's
        """See `modelparams.progress.Progress`."""
        self._total = total

    def advance(self, task: str, n: int) -> None:  # noqa: ARG002 - the protocol's
        """See `modelparams.progress.Progress`."""
        with self._lock:
            self._done += n
            self.percent = min(99, 100 * self._done // max(self._total, 1))


ReserveSlot = Callable[[Reserve], Awaitable[EngineState]]


class Stages(Protocol):
    """What the loop needs of this module."""

    async def stage(self, ticket: Ticket, reserve: ReserveSlot) -> Staged:
        """Fill an arena with the ticket's release.

        Raises:
            CancelledError (of concurrent.futures): the ticket was cancelled; nothing is left in the arena.
            ModelParamsError: nothing is left in the arena.
        """


@dataclass
class Stager:
    """`Stages` on real stores and arenas. Blocking work runs in threads at nice 19."""

    runtime_dir: Path
    trust: Path
    keys: KeyProvider
    workers: int = 4
    open_source: Callable[[S3Source], ObjectStore] = open_store
    now: Callable[[], datetime] = _now
    _manifests: OrderedDict[Digest, Manifest] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, runtime_dir: Path, trust: Path, keys: Path, workers: int) -> Stager:
        """With the keys that are mounted as files."""
        return cls(runtime_dir, trust, LocalKeyProvider(keys), workers)

    async def stage(self, ticket: Ticket, reserve: ReserveSlot) -> Staged:
        """See `Stages`."""
        with metrics.STAGING.time():
            sealed = await in_background(lambda: self._open(ticket.release, self._floor(ticket), self.now()))
            size, digest = sealed.layout.total, ticket.release.manifest_digest
            state = await reserve(Reserve(manifest_digest=digest, size=size))
            if state.slot is None:
                raise errors.EngineUnavailable("the engine named no slot to fill")
            slot = state.slot
            filled = await in_background(lambda: self._fill(sealed, slot, ticket))
        return Staged(filled, sealed.manifest.manifest.floor)

    def _open(self, release: Release, floor: int, now: datetime) -> SealedRelease:
        expect = Expectation(release.model_name, version=release.version, min_sequence=floor, now=now)
        try:
            sealed = open_release(
                self.open_source(release.source.s3),
                release.manifest_digest,
                trust=self._trusted(),
                expect=expect,
                keys=self.keys,
                key_ref=release.encryption.key_ref.name,
            )
        except (errors.SignerUnknown, errors.TooFewSignatures) as error:
            # The operator, by its own policy, counts who signed: the kubelet may bring the new one here later.
            raise errors.TrustUnavailable(f"{error.message}; by the policy of the operator it counts") from error
        self._manifests[release.manifest_digest] = sealed.manifest.manifest
        while len(self._manifests) > MANIFESTS_KEPT:
            self._manifests.popitem(last=False)
        return sealed

    def _trusted(self) -> TrustPolicy:
        """The policy, read each time: it is a mounted file that changes under us, and what is wrong with it passes."""
        try:
            return TrustPolicy.load(self.trust)
        except errors.UsageError as error:
            raise errors.TrustUnavailable(
                f"no signature can be checked by {self.trust.name}: {error.message}"
            ) from error

    def _floor(self, ticket: Ticket) -> int:
        """What the ticket says, or what is served says, which an agent that started anew has not seen before."""
        served = self._manifest_of(ticket.resident[0]) if ticket.resident else None
        return max(ticket.floor, served.floor if served else 0)

    def _manifest_of(self, release: Release) -> Manifest | None:
        """Of a release that was verified before; None when it cannot be had: it is worth no failure.

        It is served on when its time is over, and its floor and its blobs count on.
        """
        if release.manifest_digest not in self._manifests:
            with contextlib.suppress(errors.ModelParamsError):
                self._open(release, 0, _LONG_AGO)
        return self._manifests.get(release.manifest_digest)

    def _fill(self, sealed: SealedRelease, slot: Slot, ticket: Ticket) -> Filled:
        path = self.runtime_dir / slot.file_name
        inode = inode_of(path)  # before: if the file is made anew from here on, the two will differ
        with contextlib.ExitStack() as maps:
            arena = maps.enter_context(mapped(path, writable=True))
            reuse = self._reusable(ticket, slot, maps)
            pulled = pull(
                sealed, arena, workers=self.workers, reuse=reuse, progress=ticket, cancelled=ticket.is_cancelled
            )
        metrics.FETCHED.inc(pulled.fetched_bytes)
        metrics.REUSED.inc(pulled.reused_bytes)
        layout, small_hash = sealed.layout, pulled.small_hash
        return Filled(ticket.release, slot, layout.index, inode, layout.assets, small_hash, pulled.fetched_bytes)

    def _reusable(self, ticket: Ticket, slot: Slot, maps: contextlib.ExitStack) -> ReusableArena | None:
        """The other arena, when we know what it holds. Saving bytes is worth no failure."""
        if ticket.resident is None or ticket.resident[1] is slot:
            return None
        release, other = ticket.resident
        manifest = self._manifest_of(release)
        if manifest is None:
            return None
        with contextlib.suppress(errors.SwapError):
            buffer = maps.enter_context(mapped(self.runtime_dir / other.file_name, writable=False))
            return ReusableArena(manifest, buffer)
        return None
