"""Hot swap for any torch program, without Kubernetes: `ParamLoader(module, source, keys).update(version)`.

    loader = ParamLoader(module, "s3://models/tiny?endpoint=http://store:9000", "keys/", trust="trust.json")
    loader.update("1.0.0")

    # in the threads that answer:                # in one that looks for news:
    with loader.step():                          if loader.update("1.1.0"):
        answer = module(batch)                       print("live:", loader.live)

What is inside of `step` sees one version from its first to its last line: keep a whole answer in it, or at least what
must not be mixed, and take no tensor of the module out of it. In coroutines it is `async with loader.step()`. `update`
fetches, opens and checks everything beside the running steps, and then waits for a moment without a step to exchange
the parameters, in about a microsecond each.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn

from modelparams.arena import ReadableArena
from modelparams.digest import Digest
from modelparams.errors import (
    KeyUnavailable,
    ModelParamsError,
    SequenceTooLow,
    UsageError,
    WrongModel,
    WrongVersion,
)
from modelparams.keys import KeyProvider
from modelparams.manifest import Manifest
from modelparams.names import ModelName, Version
from modelparams.progress import Progress
from modelparams.pull import PulledParams, ReusableArena, SealedRelease, pull
from modelparams.store import ObjectStore
from modelparams.trust import TrustPolicy
from modelparams.uninterrupted import uninterrupted
from modelparams_serving.module_tensors import Staged, brought_near, exchange, places_of, present, stage
from modelparams_serving.private_arena import LiveVersion, PrivateArena, check_digest
from modelparams_serving.release_source import ReleaseSource
from modelparams_serving.step_lock import Step, StepLock

__all__ = ["LiveVersion", "ParamLoader"]


class ParamLoader:
    """Keeps a module's parameters and persistent buffers at a verified version. Safe to use from several threads.

    Memory: two arenas of the version's size beside what the module had before. On a CPU the module's tensors lie in
    them: what an optimizer or running statistics write over a version is what `rollback` finds there later.

    It is of one process: after a fork, each child makes its own.

    Args:
        module: on a CPU, or on devices; its tensors' names, dtypes and shapes must be exactly the version's.
        source: the store that the model was published to: an `s3://` or `file://` URL, a directory, or a store.
        keys: a directory with the key-encryption key, or a provider.
        trust: who may sign, as a policy or its file; by default the file that MODELPARAMS_TRUST names.
        model: the model's name; by default the first version's, and from then on that one.
        key_ref: the key's name in `keys`; by default the only file in that directory.
        in_place: write over the module's memory instead of pointing it elsewhere, for compiled or captured code on a
            CPU. On devices it is always so.
        workers: threads that fetch and open.
    """

    def __init__(
        self,
        module: nn.Module,
        source: str | Path | ObjectStore,
        keys: str | Path | KeyProvider,
        *,
        trust: str | Path | TrustPolicy | None = None,
        model: str | None = None,
        key_ref: str | None = None,
        in_place: bool = False,
        workers: int = 4,
    ) -> None:
        self._module, self._places, self._process = module, places_of(module), os.getpid()
        self._source = ReleaseSource(source, keys, trust=trust, key_ref=key_ref)
        self._model = ModelName(model) if model else None
        self._in_place, self._workers = in_place, workers
        self._uid: str | None = None
        self._newest = 0
        """The highest sequence ever applied, so that going back is not undone by the next update."""
        self._now, self._idle = PrivateArena(), PrivateArena()
        self._steps = StepLock()
        self._changing = threading.RLock()
        """Taken by `with` itself: an exception of a signal's handler finds it taken and given back, or neither."""
        self.pause_seconds = 0.0
        """Time in which no step could run during the last exchange."""

    @property
    def live(self) -> LiveVersion | None:
        """The version that the module holds; None before the first update."""
        return self._now.live

    @property
    def previous(self) -> LiveVersion | None:
        """What `rollback` goes back to."""
        return self._idle.live

    def step(self) -> Step:
        """A stretch of work that sees one version: `with` in threads, `async with` in coroutines. They may be nested.

        Many may run at once. A plain `with` around an `await` is safe too, but coroutines of one thread that overlap
        in it without end let no update through.
        """
        return self._steps.step()

    def update(self, version: str | Version | Digest, *, progress: Progress | None = None) -> bool:
        """Apply a version if it is newer than any that was applied.

        Args:
            version: a semantic version, or the digest of a manifest, which pins every byte.
            progress: told of the bytes.

        Returns:
            True when it is live now; False when its sequence is not higher, and then nothing was fetched.

        Raises:
            ModelParamsError: it is bad, or could not be fetched. The module is as it was. What `rollback` would have
                gone back to is gone, if fetching had begun.
        """
        self._require_its_process()
        self._steps.refuse_inside_step()
        self._refuse_within_another()
        with self._changing, _hints_for_a_program():
            self._require_its_tensors()
            sealed = self._open(version)
            if sealed.manifest.manifest.sequence <= self._newest:
                return False
            pulled, staged = self._fetch(sealed, progress)
            self._apply(pulled, staged)
            return True

    def rollback(self) -> LiveVersion:
        """Go back to the version before, which is still in memory; again, to go forward.

        Raises:
            UsageError: there is none, or the module has got other tensors.
            SequenceTooLow: the live version's publisher forbids to serve it any more; the live one stays.
        """
        self._require_its_process()
        self._steps.refuse_inside_step()
        self._refuse_within_another()
        with self._changing:
            self._require_its_tensors()
            if self._idle.live is None:
                raise UsageError("there is no version to go back to", hint="update to the one that you want")
            _check_floor(self._idle.live, self._now.manifest)
            self._exchange(self._idle.staged, self._now.staged)
            assert self._now.live
            return self._now.live

    def _refuse_within_another(self) -> None:
        """Refuse to wait for this very thread, which is at a change, and runs a signal's handler meanwhile.

        Asked of the lock: a note beside it would outlast a handler's exception that comes before it is taken back.

        Raises:
            UsageError: so it is.
        """
        if self._changing._is_owned():  # type: ignore[attr-defined]  # what threading.Condition asks it
            raise UsageError(
                "a change was asked for within another one of this thread",
                hint="let a signal's handler note that it is wanted, and call it after the one that runs",
            )

    def _require_its_process(self) -> None:
        """Refuse what other threads may have held, or been in the middle of, when this process was forked.

        Raises:
            UsageError: the loader was made in another process.
        """
        if os.getpid() != self._process:
            raise UsageError(
                "the loader was made in another process than this fork of it",
                hint="make a ParamLoader in each process, after the fork",
            )

    def _require_its_tensors(self) -> None:
        """Refuse to exchange tensors that the module does not compute with any more.

        Raises:
            UsageError: some of the module's were replaced.
        """
        known, now = (
            {(place.names, id(place.tensor)) for place in places} for places in (self._places, places_of(self._module))
        )
        if changed := now - known:
            name = min(names[0] for names, _ in changed)
            raise UsageError(
                f"the module has got another tensor as {name} than the loader was made for",
                hint="make a new ParamLoader after load_state_dict(assign=True), another dtype or another submodule",
            )

    def _open(self, version: str | Version | Digest) -> SealedRelease:
        sealed = self._source.open(version, self._model)
        if self._uid not in (None, sealed.manifest.manifest.model.uid):
            raise WrongModel(f"{sealed.manifest.manifest.model.name} is another model of that name than the live one")
        return sealed

    def _fetch(self, sealed: SealedRelease, progress: Progress | None) -> tuple[PulledParams, list[Staged]]:
        """Fill the idle arena and check all of it; the module is not touched."""
        buffer = self._idle.emptied(sealed.layout.total)
        reuse = None
        if self._now.manifest and self._now.memory:
            reuse = ReusableArena(self._now.manifest, memoryview(self._now.memory))
        pulled = pull(sealed, buffer, workers=self._workers, reuse=reuse, progress=progress)
        arena = ReadableArena(buffer, sealed.layout.index, pulled.index)
        staged = stage(self._places, arena)
        check_digest(arena)
        return pulled, staged

    def _apply(self, pulled: PulledParams, staged: list[Staged]) -> None:
        manifest = pulled.manifest.manifest
        before = self._now.staged or present(self._places, in_place=self._in_place)
        coming = LiveVersion(
            manifest.model.name,
            manifest.version,
            manifest.sequence,
            pulled.manifest.digest,
            pulled.index.tensors_digest,
        )

        def note() -> None:
            self._idle.manifest, self._idle.staged, self._idle.live = manifest, staged, coming
            self._newest, self._model, self._uid = manifest.sequence, manifest.model.name, manifest.model.uid

        self._exchange(staged, before, note)

    def _exchange(self, staged: list[Staged], before: list[Staged], note: Callable[[], None] = lambda: None) -> None:
        """Exchange the parameters, and with them the arenas: an interrupt finds both done, or neither."""
        interrupts = list[bool]()

        def work() -> None:
            near = brought_near(staged)
            with self._steps.swap(lambda: bool(interrupts)):
                began = time.perf_counter()
                exchange(near, before, in_place=self._in_place)
                self.pause_seconds = time.perf_counter() - began
                note()
                self._now, self._idle = self._idle, self._now

        uninterrupted(work, lambda: interrupts.append(True))


# A pod's errors say what to correct in an object, and that its agent tries again. Only where they have no other hint.
_HERE: dict[type[ModelParamsError], str] = {
    KeyUnavailable: "give the loader the key that sealed the model, by keys and key_ref; then call update again",
    WrongModel: "give the loader that model's name, or another source",
    WrongVersion: "the version's pointer in the store was changed: restore it, or update to the manifest's digest",
}


@contextlib.contextmanager
def _hints_for_a_program() -> Iterator[None]:
    try:
        yield
    except ModelParamsError as error:
        own = error.next_step != error.hint
        step = error.next_step if own else _HERE.get(type(error), error.next_step)
        error.next_step = step.replace("it is tried again", "then call update again")
        raise


def _check_floor(wanted: LiveVersion, live: Manifest | None) -> None:
    """Refuse to serve again what the live version forbids.

    Raises:
        SequenceTooLow: it is below the live version's floor.
    """
    if live and wanted.sequence < live.floor:
        raise SequenceTooLow(
            f"{wanted.model} {wanted.version} has sequence {wanted.sequence}, and {live.version}, which is live, "
            f"forbids to serve any below {live.floor}"
        )
