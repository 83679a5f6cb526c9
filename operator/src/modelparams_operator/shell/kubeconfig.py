"""A kubeconfig as the client library reads it; one that it cannot use is refused in a sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import client, config

from modelparams.errors import UsageError

# The library looks for nothing that could be missing or of another type than it should be.
_NO_KUBECONFIG = (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError)
_HINT = "set KUBECONFIG to a file by which kubectl reaches one"


def contexts_of(kubeconfig: Path | None) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All contexts, and the current one.

    Args:
        kubeconfig: a file; by default what $KUBECONFIG names, else ~/.kube/config.

    Raises:
        UsageError: there is no such file, or it is no kubeconfig.
    """
    file = _file(kubeconfig)
    try:
        found: tuple[list[dict[str, Any]], dict[str, Any]] = config.list_kube_config_contexts(file)
    except (config.ConfigException, OSError, *_NO_KUBECONFIG) as error:
        raise _unusable(file, error) from None
    return found


async def load(settings: client.Configuration, kubeconfig: Path | None = None, context: str | None = None) -> None:
    """Write into `settings` where the API server is and who asks. Nothing is written to the file.

    Raises:
        UsageError: as `contexts_of`.
    """
    file = _file(kubeconfig)
    try:
        await config.load_kube_config(file, context, settings, persist_config=False)
    except (config.ConfigException, OSError, *_NO_KUBECONFIG) as error:
        raise _unusable(file, error) from None


def _file(kubeconfig: Path | None) -> str:
    """What the client shall read; several files, as $KUBECONFIG may name, have a colon between them."""
    named = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    if not any(Path(one).expanduser().is_file() for one in named.split(os.pathsep) if one):
        raise UsageError(f"no way to an API server: there is no file {named}", hint=_HINT)
    return named


def _unusable(file: str, error: Exception) -> UsageError:
    """Of what a parser stumbled over nothing is repeated: it may be a token."""
    why = f"{file} is no kubeconfig" if isinstance(error, _NO_KUBECONFIG) else str(error)
    return UsageError(f"no way to an API server: {why}", hint=_HINT)
