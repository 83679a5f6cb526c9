"""The environment as frozen settings; a bad value stops the start with a sentence."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from modelparams.errors import UsageError
from modelparams.variables import PREFIX, problems


def _listed(value: Any) -> Any:
    """`a, b` as a tuple: what a chart can write into one variable."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _own_namespace() -> str:
    """The pod's, where its own Role is; outside of a cluster that of operator/deploy."""
    try:
        return _OWN_NAMESPACE.read_text().strip()
    except OSError:
        return "modelparams-system"


def _own_name() -> str:
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


class Settings(BaseSettings):
    """Each field is the variable `MODELPARAMS_<NAME>`. Durations are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, use_attribute_docstrings=True
    )

    trust: Path
    """The trust policy's file: who may sign, and how many must. Read again at each `resync`."""
    watch_namespaces: Listed = ()
    """Serve these alone; empty: the whole cluster."""
    allowed_endpoints: Listed = ()
    """S3 endpoints that a version may name (`https://s3.example.com`; `aws` for no endpoint); empty: any."""

    lease_namespace: str = Field(default_factory=_own_namespace, min_length=1)
    """Where the lease is: the pod's own namespace, else modelparams-system."""
    lease_name: str = "modelparams-operator"
    identity: str = Field(default_factory=_own_name, min_length=1)
    """Who holds the lease: another name for each process that can run at the same time."""
    lease_duration: float = Field(default=15, gt=0)
    """Others may take over when a holder was silent for so long."""
    lease_renew_deadline: float = Field(default=10, gt=0)
    """A holder that could not renew for so long exits."""
    lease_retry_period: float = Field(default=2, gt=0)

    metrics_host: str = "0.0.0.0"  # noqa: S104 - probes and scrapes come from outside the pod
    metrics_port: int = Field(default=9464, ge=0, le=65535)
    """/metrics, /healthz and /readyz; 0: any free port, named in the log."""

    verify_versions: int = Field(default=2, ge=1, le=16)
    """Versions that are checked at once; of one namespace one fewer, so that a slow store of one holds up no other."""
    verify_workers: int = Field(default_factory=lambda: min(max(os.cpu_count() or 2, 2), 8), ge=1, le=64)
    """Threads that read one version, each with a buffer of 1 MiB."""

    resync: float = Field(default=30, gt=0)
    """Look at each model, and at the trust policy, at least so often: what finds a deletion whose event was lost."""
    quiet_period: float = Field(default=0.02, ge=0)
    """Let events gather for so long after a pass."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _lease_adds_up(self) -> Settings:
        if not self.lease_retry_period < self.lease_renew_deadline < self.lease_duration:
            raise ValueError("LEASE_RETRY_PERIOD < LEASE_RENEW_DEADLINE < LEASE_DURATION must hold")
        return self

    @model_validator(mode="after")
    def _endpoints_are_urls(self) -> Settings:
        for endpoint in self.allowed_endpoints:
            parts = urlsplit(endpoint)
            if endpoint != "aws" and (parts.scheme not in ("http", "https") or not parts.netloc):
                raise ValueError(f"ALLOWED_ENDPOINTS has {endpoint!r}, which is neither a URL nor 'aws'")
        return self


def load() -> Settings:
    """Read the environment.

    Raises:
        UsageError: a variable is missing or wrong; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise UsageError(
            f"the operator's settings cannot be used: {problems(error)}",
            hint="'modelparams-operator run --help' lists the variables",
        ) from None
