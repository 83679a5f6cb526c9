"""The rollout that a model gets when nobody wrote one, so that applying one version is a working deployment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from modelparams.api.rollout import RolloutSpec, RolloutStatus, VersionPolicy
from modelparams.names import ModelName, Version, VersionRange
from modelparams_operator.core.claims import Claims
from modelparams_operator.core.model import Assign, PodView


@dataclass(frozen=True, slots=True)
class RolloutOrigin:
    """Where a rollout came from."""

    name: str
    is_default: bool
    """We made it, and nobody has written to its spec since."""
    status: RolloutStatus


def default_name(model: ModelName) -> str:
    """Not the model's own name, which people give to theirs: their rollout comes beside it, and this one gives way."""
    return f"{model}-default"


def default_spec(model: ModelName, versions: Iterable[Version], ordered_by: Iterable[str] = ()) -> RolloutSpec | None:
    """Follow the major of the lowest version there is; None without any, or where a user's rollout was deleted.

    That one's pods keep what they serve: it may have held them by a pin, or be about to come back under another name.
    The lowest, so that objects that arrive in any order at once make the same rollout, and a model's next major is
    somebody's decision. A first pre-release is named by the range, or it would be outside of it.

    Args:
        model: what it is of.
        versions: those that are there.
        ordered_by: the rollouts that the orders of the model's pods name.
    """
    lowest = min(versions, default=None)
    if lowest is None or set(ordered_by) - {default_name(model)}:
        return None
    bounds = VersionRange.same_major(lowest)
    if lowest not in bounds:
        bounds = VersionRange(f">={lowest} <{lowest.parsed.major + 1}.0.0")
    return RolloutSpec(model_name=model, version_policy=VersionPolicy(type="HighestSemver", range=str(bounds)))


def superseded_defaults(rollouts: Sequence[RolloutOrigin]) -> tuple[str, ...]:
    """Names of our rollouts that give way, since a user's names the same model: two would claim the same pods."""
    if all(rollout.is_default for rollout in rollouts):
        return ()
    return tuple(rollout.name for rollout in rollouts if rollout.is_default)


def forlorn_defaults(rollouts: Sequence[RolloutOrigin], *, has_versions: bool, has_pods: bool) -> tuple[str, ...]:
    """Names of our rollouts that nobody needs any more: of a model whose name was mistyped, say.

    Only while there is neither a version nor a pod of the model, and the rollout has nothing to tell the next ones:
    nothing was ever live by it, and nothing failed. So a model that is scaled to nothing while Git has pruned its
    versions comes up again on what was live.
    """
    if has_versions or has_pods:
        return ()
    return tuple(r.name for r in rollouts if r.is_default and r.status.live is None and not r.status.failed_versions)


def handed_over(pods: Iterable[PodView], claimed: Claims, leaving: Collection[str]) -> tuple[Assign, ...]:
    """Have the orders of rollouts that give way name the one that has the pod from now on.

    One that is suspended, or chooses nothing, writes no order of its own; when it is deleted later, its pods would pass
    for ours. A pod that two select, or none, is nobody's yet.

    Args:
        pods: all of the model.
        claimed: the users' rollouts that select each.
        leaving: names of those that give way.
    """
    orders = ((pod, pod.order, claimed.get(pod.name, ())) for pod in pods)
    return tuple(
        Assign(pod.name, pod.uid, order.model_copy(update={"rollout_name": names[0]}))
        for pod, order, names in orders
        if order is not None and order.pod_uid == pod.uid and order.rollout_name in leaving and len(names) == 1
    )
