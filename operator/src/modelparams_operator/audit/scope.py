"""The part of a story that was asked for. What cannot be told apart from it is in it. Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime

from modelparams.api import assignment, rollout, version
from modelparams_operator.audit.acts import Act
from modelparams_operator.audit.denials import Denial
from modelparams_operator.audit.gaps import Gap
from modelparams_operator.audit.served import Served
from modelparams_operator.audit.story import Story


@dataclass(frozen=True, slots=True)
class Scope:
    """What was asked for; empty: all."""

    namespace: str = ""
    model: str = ""
    rollout: str = ""
    pod: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def of(self, story: Story) -> Story:
        """The part of it: a pod's rollouts and their models come with the pod."""
        served = tuple(one for one in story.served if self._has(one.served))
        named = _Named(self, [one.served for one in served], story.acts)
        return replace(
            story,
            served=served,
            acts=tuple(act for act in story.acts if self._overlaps(act.at, act.at) and named.has(act)),
            denied=tuple(one for one in story.denied if self._overlaps(one.at, one.last) and named.has(one)),
            gaps=tuple(one for one in story.gaps if self._overlaps(one.since, one.until) and named.has(one)),
        )

    def _has(self, one: Served) -> bool:
        pairs = (
            (self.namespace, one.namespace),
            (self.model, one.model),
            (self.rollout, one.rollout),
            (self.pod, one.pod),
        )
        return all(wanted in ("", found) for wanted, found in pairs) and self._overlaps(one.since, one.until)

    def _overlaps(self, since: datetime | None, until: datetime | None) -> bool:
        """No time is any time."""
        is_before = self.since is not None and until is not None and until < self.since
        is_after = self.until is not None and since is not None and since > self.until
        return not is_before and not is_after


class _Named:
    """Which objects are meant: None is all of them."""

    def __init__(self, scope: Scope, served: list[Served], acts: tuple[Act, ...]) -> None:
        self._scope = scope
        self._rollouts = _rollouts(scope, served)
        self._models = _models(scope, served, acts)

    def has(self, one: Act | Denial | Gap) -> bool:
        """Whether it is about one of them, or cannot be told not to be."""
        if self._scope.namespace and one.namespace not in ("", self._scope.namespace):
            return False
        if one.resource == assignment.PLURAL and self._scope.pod:
            return one.name in ("", self._scope.pod)
        if one.resource == rollout.PLURAL and self._rollouts is not None:
            return one.name == "" or one.name in self._rollouts
        if self._models is None or not (one.name or one.model):
            return True
        is_of_a_name = one.resource == version.PLURAL and any(one.name.startswith(f"{m}-") for m in self._models)
        return one.model in self._models or (not one.model and (is_of_a_name or one.resource != version.PLURAL))


def _rollouts(scope: Scope, served: list[Served]) -> Set[str] | None:
    if scope.rollout:
        return {scope.rollout}
    return {one.rollout for one in served} if scope.pod else None


def _models(scope: Scope, served: list[Served], acts: tuple[Act, ...]) -> Set[str] | None:
    if scope.model:
        return {scope.model}
    if not scope.rollout and not scope.pod:
        return None
    own = {act.model for act in acts if act.resource == rollout.PLURAL and act.name == scope.rollout}
    return {one.model for one in served} | own
