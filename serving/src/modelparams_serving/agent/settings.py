"""The agent's settings, from `MODELPARAMS_*` variables; a bad value stops the start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from modelparams.names import ModelName
from modelparams.variables import PREFIX
from modelparams_serving.service_links import PodSettings


def _model(text: str) -> str:
    return ModelName(text).text


class AgentSettings(PodSettings):
    """S3 credentials are boto3's own business (`AWS_*`), the API server's address that of the pod or `KUBECONFIG`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, use_attribute_docstrings=True)

    model: Annotated[str, AfterValidator(_model)]
    """The model that this pod serves: its opt-in label's value."""
    pod_name: str
    pod_namespace: str
    pod_uid: str
    runtime_dir: Path = Path("/run/modelparams")
    """The memory-backed volume that agent and engine share: the socket and the arenas."""
    trust: Path = Path("/etc/modelparams/trust.json")
    """Whose signatures count; the pod's own, whatever the operator thinks."""
    keys: Path = Path("/etc/modelparams/keys")
    """A directory with a file for each key-encryption key, named as `encryption.keyRef`."""
    staging_workers: int = Field(default=4, ge=1, le=64)
    """Threads that fetch and open; each holds a buffer of 1 MiB."""
    engine_grace_seconds: float = Field(default=120.0, ge=0)
    """So long after its own start the agent waits for an engine that it has never seen, before it calls it away."""
    agent_metrics_port: int = Field(default=0, ge=0, le=65535)
    """Prometheus metrics of the agent; 0: none."""
    agent_health_host: str = "0.0.0.0"  # noqa: S104 -- kubelet asks at the pod's address
    agent_health_port: int = Field(default=0, ge=0, le=65535)
    """`/healthz` for a liveness probe: 200 while the agent's loop goes on; 0: none."""
    agent_stuck_seconds: float = Field(default=60.0, gt=0)
    """`/healthz` is 503 once the loop is late by more."""
    log_level: str = "INFO"

    @property
    def model_name(self) -> ModelName:
        """The same, parsed."""
        return ModelName(self.model)
