"""The module tree of a model without its parameters: made on the meta device, from config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch

from modelparams.errors import LayoutMismatch


class Task(StrEnum):
    """What a model is served for."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A class of the installed transformers library and its configuration."""

    architecture: str
    task: Task
    model_class: Any
    config: Any

    def build(self) -> Any:
        """Make the modules on the meta device: no memory, a few milliseconds, no global state of torch touched.

        Raises:
            LayoutMismatch: the configuration contradicts itself.
        """
        try:
            with torch.device("meta"):
                return self.model_class(self.config).eval()
        except Exception as error:  # whatever the model's code raises on values that do not fit together
            raise _no_model(self.architecture, error) from error


def blueprint(config: Mapping[str, Any]) -> Blueprint:
    """Read config.json.

    Raises:
        LayoutMismatch: it names no architecture that this engine serves, or has values that make no model.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    names = config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else ""
    model_type = str(config.get("model_type"))
    task = _task(architecture)
    if task is None or model_type not in CONFIG_MAPPING:
        raise LayoutMismatch(
            f"the architecture {architecture!r} of model type {model_type!r} is not served",
            hint="publish a causal language model, a sequence classifier or an encoder that transformers knows",
        )
    import transformers

    data = {key: value for key, value in config.items() if key not in ("auto_map", "modelparams")}
    try:
        parsed: Any = CONFIG_MAPPING[model_type].from_dict(data)
        return Blueprint(architecture, task, getattr(transformers, architecture), parsed)
    except Exception as error:  # the library validates with exceptions of several kinds
        raise _no_model(architecture, error) from error


def _no_model(architecture: str, error: Exception) -> LayoutMismatch:
    return LayoutMismatch(f"config.json describes no {architecture}: {type(error).__name__}")


def _task(architecture: str) -> Task | None:
    from transformers.models.auto import modeling_auto as auto

    if architecture in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return Task.GENERATE
    if architecture in auto.MODEL_MAPPING_NAMES.values():
        return Task.EMBED
    if architecture in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.values():
        return Task.CLASSIFY
    return None
