"""A resident version: a model whose parameters are in memory, its tokenizer, and the thread that serves it.

`load` does what is slow and needs no thread of its own, for the background; `start` begins to serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
import torch

from modelparams.arena import ReadableArena
from modelparams.assets import Assets, parse_assets
from modelparams.errors import IndexInvalid, LayoutMismatch, NotFinite
from modelparams.index import tensors_digest
from modelparams.protocol import Region, Resident
from modelparams.tensors import TensorSpec, is_finite
from modelparams_serving.engine import device as devices
from modelparams_serving.engine import weights
from modelparams_serving.engine.assets import Tokenizer
from modelparams_serving.engine.classify import Classifier
from modelparams_serving.engine.defaults import Defaults
from modelparams_serving.engine.embed import Embedder
from modelparams_serving.engine.generate import GenerationFailed, Prompt, TextGenerator, end_tokens
from modelparams_serving.engine.passes import OnePass, PassFailed
from modelparams_serving.engine.rendering import Renderer
from modelparams_serving.engine.settings import EngineSettings
from modelparams_serving.engine.skeleton import Blueprint, Task, blueprint
from modelparams_serving.module_tensors import DTYPES

_log = structlog.get_logger("engine")
Service = TextGenerator | Embedder | Classifier
_WARM_UP_LENGTHS = (1, 64)  # tokens: a decode step, a prefill
_PROOF_LENGTHS = (1,)
_WARM_UP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Schema:
    """What two versions must have in common to replace each other."""

    architecture: str
    specs: Mapping[str, TensorSpec]


@dataclass(slots=True, eq=False)
class ResidentVersion:
    """One version in memory. `requests` is changed on the event loop only."""

    identity: Resident
    schema: Schema
    tensors_digest: str
    """Over the tensors where they are served from."""
    tokenizer: Tokenizer
    defaults: Defaults
    service: Service
    renderer: Renderer = field(default_factory=Renderer)
    requests: int = 0

    def start(self) -> None:
        """Begin to serve, at the priority of the calling thread."""
        self.service.start()

    async def warm_up(self, beside: Schema | None) -> None:
        """Run a few passes, so that the first user does not pay for them.

        One is enough beside a version that runs with the same schema: kernels and threads are the process's, and warm.

        Raises:
            LayoutMismatch: the parameters bind, but the model cannot run on them.
        """
        try:
            async with asyncio.timeout(_WARM_UP_SECONDS):
                for length in _PROOF_LENGTHS if beside == self.schema else _WARM_UP_LENGTHS:
                    await self._pass(min(length, self.service.context - 2))
        except (GenerationFailed, PassFailed, TimeoutError) as error:
            # The library's words may name tensors or shapes, which are confidential, and this text leaves the pod.
            _log.warning("Model did not run", version=self.identity.version_name, problem=str(error))
            kind = "it took too long" if isinstance(error, TimeoutError) else "a pass of it failed"
            raise LayoutMismatch(
                f"the model of {self.identity.version_name} did not run: {kind}; the engine's log says more"
            ) from error

    async def _pass(self, length: int) -> None:
        ids = [0] * max(1, length)
        if isinstance(self.service, OnePass):
            await self.service.rows([ids])
            return
        async for _ in self.service.tokens(Prompt(ids, max_tokens=2), every=False):
            pass

    def stop(self) -> None:
        """End the thread and free model and KV cache. Blocks."""
        self.service.stop()


def load(
    arena: memoryview,
    index: Region,
    identity: Resident,
    *,
    beside: Schema | None,
    device: torch.device,
    settings: EngineSettings,
) -> ResidentVersion:
    """Check a filled arena and build its model over it. Seconds; changes nothing that is served.

    Args:
        arena: the whole arena, read-only; it must live as long as the result.
        index: where the tensor index is.
        identity: what the agent says it is.
        beside: the schema of the version that is current, which this one must match.
        device: where to serve from.
        settings: sizes of caches and batches.

    Raises:
        IndexInvalid: index, assets or the tensors' digest are not what they should be.
        LayoutMismatch: the tensors are not the architecture's, or not those of the version that is current.
        NotFinite: a tensor holds NaN or infinity.
    """
    readable = ReadableArena(arena, index)
    with _assets_of(identity):
        assets = parse_assets(readable.assets())
    plan = blueprint(assets.config)
    _check_depth(plan, readable, identity)
    model = plan.build()
    schema = Schema(plan.architecture, dict(readable.specs))
    _check_layout(model, schema, beside, identity)
    _check_finite(readable, identity)
    given = {name: weights.view(readable.tensor(name), spec) for name, spec in schema.specs.items()}
    resident = devices.place(given, device)
    digest = _check_digest(readable, resident, identity)
    passed_over = weights.ignored(model, resident)
    weights.bind(model, {name: tensor for name, tensor in resident.items() if name not in passed_over})
    with _assets_of(identity):
        tokenizer, defaults = Tokenizer(assets), Defaults.read(assets.generation)
        service = _service(plan, model, assets, settings)
    _check_context(service, identity)
    return ResidentVersion(identity, schema, digest, tokenizer, defaults, service)


@contextlib.contextmanager
def _assets_of(identity: Resident) -> Iterator[None]:
    """Call a value of another type than it should be what it is: whatever reads it fails in its own way."""
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise IndexInvalid(
            f"an asset of {identity.version_name} holds a value that cannot be used ({type(error).__name__})",
            hint="publish the directory as save_pretrained writes it",
        ) from error


def _check_context(service: Service, identity: Resident) -> None:
    least = 1 if isinstance(service, OnePass) else 2  # a token of the prompt, and a new one
    if service.context < least:
        raise IndexInvalid(
            f"{identity.version_name} has a context of {service.context} tokens, in which no request fits",
            hint="correct max_position_embeddings in config.json, and publish again",
        )


def _check_layout(model: Any, schema: Schema, beside: Schema | None, identity: Resident) -> None:
    if beside is not None:
        if beside.architecture != schema.architecture:
            raise LayoutMismatch(
                f"{identity.version_name} is a {schema.architecture}, the version that runs a {beside.architecture}"
            )
        weights.refuse_differences(weights.differences(beside.specs, schema.specs), against="the version that runs")
    unbindable = sorted(name for name, spec in schema.specs.items() if spec.dtype not in DTYPES)
    if unbindable:
        which = weights.numbered(unbindable[0], schema.specs)
        raise LayoutMismatch(f"{which} has a dtype that this release of torch has not")
    passed_over = weights.ignored(model, schema.specs)
    given = {name: spec for name, spec in schema.specs.items() if name not in passed_over}
    weights.refuse_differences(
        weights.differences(weights.wanted_layout(model, given), given), against=f"a {schema.architecture}"
    )


def _check_depth(plan: Blueprint, readable: ReadableArena, identity: Resident) -> None:
    """Refuse a model of more layers than tensors before it is built: each layer is modules, whatever they hold."""
    layers, tensors = getattr(plan.config, "num_hidden_layers", None), len(readable.specs)
    if isinstance(layers, int) and layers > tensors:
        raise LayoutMismatch(
            f"config.json of {identity.version_name} says {layers} layers, and it has {tensors} tensors"
        )


def _check_finite(readable: ReadableArena, identity: Resident) -> None:
    for name, spec in readable.specs.items():
        if not is_finite(readable.tensor(name), spec.dtype):
            which = weights.numbered(name, readable.specs)
            raise NotFinite(f"{which} of {identity.version_name} holds NaN or infinity")


def _check_digest(readable: ReadableArena, resident: Mapping[str, torch.Tensor], identity: Resident) -> str:
    """Digest the tensors where they are served from: it catches a bad copy as well as a bad arena."""
    found = tensors_digest(
        bytes.fromhex(readable.index.salt),
        ((name, spec, devices.host_bytes(resident[name])) for name, spec in readable.specs.items()),
    )
    if not hmac.compare_digest(found, readable.index.tensors_digest):
        raise IndexInvalid(f"the tensors of {identity.version_name} in memory are not those that were published")
    return found


def _service(plan: Blueprint, model: Any, assets: Assets, settings: EngineSettings) -> Service:
    if plan.task is Task.EMBED:
        return Embedder(model, assets, max_batch_tokens=settings.max_batch_tokens)
    if plan.task is Task.CLASSIFY:
        return Classifier(model, max_batch_tokens=settings.max_batch_tokens)
    generator = TextGenerator(model, eos=end_tokens(plan.config, assets.generation.get), settings=settings)
    generator.allocate()
    return generator
