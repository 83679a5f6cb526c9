"""How a Git engine brings objects to the API server, and takes away what Git does not name any more.

As read in argoproj/argo-cd (gitops-engine/pkg/sync/sync_context.go: prune first) and in fluxcd/kustomize-controller and
fluxcd/pkg (ssa/patch.go: what `kubectl` wrote becomes Flux's own, and goes with the next apply).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from builders.operator_stage import Stage

Object = dict[str, Any]


def _nothing() -> None:
    """Nothing happens between the two."""


class GitEngine:
    """Applies with a manager of its own, forces conflicts, and prunes what it applied before."""

    manager: str

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._applied: set[str] = set()

    def sync(self, *versions: str, between: Callable[[], object] = _nothing, is_prune_down: bool = False) -> None:
        """Bring what Git names: these versions.

        Args:
            between: happens between the two halves, deletions and applications.
            is_prune_down: no deletion comes through; the next sync tries again.
        """
        subjects = {
            f"{self._stage.releases.model}-{number}": self._stage.releases.version(number) for number in versions
        }
        gone = set() if is_prune_down else self._applied - set(subjects)
        for at, half in enumerate(self._halves(gone, list(subjects.values()))):
            if at:
                between()
            half()
        self._applied = (self._applied - gone) | set(subjects)

    def _halves(self, gone: set[str], subjects: Sequence[Object]) -> tuple[Callable[[], None], Callable[[], None]]:
        raise NotImplementedError

    def _prune(self, names: set[str]) -> None:
        for name in sorted(names):
            self._stage.api.delete(self._path(name))

    def _apply(self, subjects: Sequence[Object]) -> None:
        for subject in subjects:
            self._stage.api.apply(self._path(subject["metadata"]["name"]), subject, manager=self.manager)

    def _path(self, name: str) -> str:
        return self._stage.path("modelparamversions", name)


class ArgoCD(GitEngine):
    """Deletes, then applies; with ServerSideApply=true."""

    manager = "argocd-controller"

    def _halves(self, gone: set[str], subjects: Sequence[Object]) -> tuple[Callable[[], None], Callable[[], None]]:
        return lambda: self._prune(gone), lambda: self._apply(subjects)


class Flux(GitEngine):
    """Applies, then deletes; takes over what kubectl wrote."""

    manager = "kustomize-controller"

    def _halves(self, gone: set[str], subjects: Sequence[Object]) -> tuple[Callable[[], None], Callable[[], None]]:
        return lambda: self._apply(subjects), lambda: self._prune(gone)

    def _apply(self, subjects: Sequence[Object]) -> None:
        for subject in subjects:
            self._take_over(self._path(subject["metadata"]["name"]))
        super()._apply(subjects)

    def _take_over(self, path: str) -> None:
        """Make kubectl's fields ours: what the next apply does not name of them is then removed."""
        found = self._stage.api.find(path)
        entries: list[Object] = found["metadata"]["managedFields"] if found else []
        kubectl_s = [one for one in entries if one["manager"].startswith("kubectl") and "subresource" not in one]
        if not kubectl_s:
            return
        ours = next(one for one in entries if (one["manager"], one["operation"]) == (self.manager, "Apply"))
        merged = copy.deepcopy(ours)
        for one in kubectl_s:
            _merge(merged["fieldsV1"], one["fieldsV1"])
        kept = [one for one in entries if one not in (ours, *kubectl_s)]
        self._stage.api.patch(path, {"metadata": {"managedFields": [*kept, merged]}})


def _merge(into: Object, more: Object) -> None:
    for key, value in more.items():
        _merge(into.setdefault(key, {}), value)
