"""Which pods a rollout names, and who else names them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

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


Claims = Mapping[str, tuple[str, ...]]
"""Pod name to the first two rollouts, by name, that select it: enough to tell each of any number who else does."""


def claims(rollouts: Mapping[str, RolloutSpec], pods: Mapping[str, Mapping[str, str]]) -> Claims:
    """Ask all rollouts of one namespace, by name, for each pod, given by name with its labels; once for all of them."""
    ordered = sorted(rollouts.items())
    keys = {key for spec in rollouts.values() for key in _keys(spec)}

    @functools.cache  # pods differ in few of the labels that anybody asks for
    def claimants(labels: frozenset[tuple[str, str]]) -> tuple[str, ...]:
        return tuple(islice(_claimants(ordered, dict(labels)), 2))

    return {pod: claimants(frozenset((k, labels[k]) for k in keys & labels.keys())) for pod, labels in pods.items()}


def _keys(spec: RolloutSpec) -> Iterator[str]:
    yield MODEL_LABEL
    yield from spec.selector.match_labels
    yield from (expression.key for expression in spec.selector.match_expressions)


def unclaimed(of: Claims) -> tuple[str, ...]:
    """Name the pods that no rollout selects."""
    return tuple(sorted(pod for pod, names in of.items() if not names))


def other_claims(name: str, of: Claims, pods: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Map each of `pods`, which rollout `name` selects, to other rollouts that select it too, if there are any."""
    found = {pod: tuple(other for other in of.get(pod, ()) if other != name) for pod in pods}
    return {pod: names for pod, names in found.items() if names}


def _claimants(rollouts: Iterable[tuple[str, RolloutSpec]], labels: Mapping[str, str]) -> Iterator[str]:
    return (name for name, spec in rollouts if selects(spec, labels))
