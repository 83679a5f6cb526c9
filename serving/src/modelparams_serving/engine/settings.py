"""The engine's settings, read once at the start from `MODELPARAMS_*`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from modelparams.variables import PREFIX
from modelparams_serving.service_links import PodSettings

_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


def _device(name: str) -> str:
    """Whether it is there is seen when torch is; a name that is none is told at once."""
    if not _DEVICE.fullmatch(name):
        raise ValueError(f"{name!r} is no device; give auto, cpu, cuda, or cuda:1 for the second one")
    return name


class EngineSettings(PodSettings):
    """Each field is the variable `MODELPARAMS_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True)

    runtime_dir: Path = Path("/run/modelparams")
    """The memory-backed volume shared with the agent: both arenas and the socket."""
    host: str = "0.0.0.0"  # noqa: S104 -- a pod serves its Service
    port: int = Field(default=8000, ge=0, le=65535)
    log_level: str = "info"
    device: Annotated[str, AfterValidator(_device)] = "auto"
    """`auto` takes CUDA where it is found; else `cpu`, `cuda`, `cuda:1`."""
    threads: int = Field(default=0, ge=0)
    """Threads of one forward pass on a CPU; 0 = the cores that this process may use."""
    num_blocks: int = Field(default=64, ge=1)
    """KV cache of each resident version, in blocks of `page_tokens` tokens."""
    page_tokens: int = Field(default=0, ge=0)
    """Tokens of one block; 0 = 256 on CUDA (its kernels want that), 64 on a CPU."""
    max_batch_tokens: int = Field(default=512, ge=16)
    """Tokens of one forward pass; longer prompts are taken in pieces."""
    max_requests: int = Field(default=256, ge=1)
    """Requests under way at once; more are told to come back."""
    max_body_bytes: int = Field(default=2 << 20, ge=1)
    """Of one request; a longer one is refused. All that are longer than 64 KiB may have 32 times as much together, with
    the numbers of embeddings and classes that clients have not taken yet."""
    stalled_seconds: float = Field(default=30.0, gt=0)
    """A client that takes nothing of its stream for so long is left: the version it holds could not be replaced. So is
    one that does not end its request's body, or asks nothing on its connection, for so long."""
    late_seconds: float = Field(default=5.0, ge=0)
    """After SIGTERM: how long new requests are still taken, since routers learn late of it; then they are refused."""
    grace_seconds: float = Field(default=20.0, ge=0)
    """After SIGTERM: the longest that running requests are waited for."""
    quiet_seconds: float = Field(default=1.0, ge=0)
    """After SIGTERM: leave early once no request has run for so long; the load balancer has then looked away."""

    @property
    def forward_threads(self) -> int:
        """`threads` with its default resolved."""
        return self.threads or len(os.sched_getaffinity(0))
