"""Which pods a rollout names, and who else names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelparams.api import MODEL_LABEL
from modelparams.api.rollout import LabelExpression, RolloutSpec


def selects(spec: RolloutSpec, labels: Mapping[str, str]) -> bool:
    """Tell whether a pod with `labels` opted in to the rollout's model and matches its selector."""
    wanted = {MODEL_LABEL: str(spec.model_name), **spec.selector.match_labels}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in spec.selector.match_expressions
    )


def _holds(expression: LabelExpression, labels: Mapping[str, str]) -> bool:
    """As metav1.LabelSelectorRequirement: NotIn holds for an absent label too."""
    match expression.operator:
        case "In":
            return labels.get(expression.key) in expression.values
        case "NotIn":
            return labels.get(expression.key) not in expression.values
        case "Exists":
            return expression.key in labels
        case "DoesNotExist":
            return expression.key not in labels


def other_claims(
    name: str, rollouts: Mapping[str, RolloutSpec], pods: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Map each pod of rollout `name` to the other rollouts that select it too, if there are any.

    Args:
        name: the rollout that asks.
        rollouts: all of one namespace, by name.
        pods: labels of the namespace's pods, by pod name.
    """
    mine, others = rollouts[name], {other: spec for other, spec in rollouts.items() if other != name}
    found = {pod: claimants(others.items(), labels) for pod, labels in pods.items() if others and selects(mine, labels)}
    return {pod: names for pod, names in found.items() if names}


def claimants(rollouts: Iterable[tuple[str, RolloutSpec]], labels: Mapping[str, str]) -> tuple[str, ...]:
    """Name the rollouts that select a pod with `labels`, sorted."""
    return tuple(sorted(name for name, spec in rollouts if selects(spec, labels)))
