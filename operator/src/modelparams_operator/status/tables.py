"""An overview as tables for a terminal. Untrusted words (messages, names) are shown as text, never as markup."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelparams.api.assignment import PodState
from modelparams.cli.harmless import harmless
from modelparams.reasons import Reason
from modelparams_operator.status.overview import Outcome, Overview, PodRow, RolloutRow, VersionRow

_COLOURS = {Outcome.READY: "green", Outcome.MOVING: "yellow", Outcome.FAILED: "red"}
_STATES = {PodState.LIVE: "green", PodState.FAILED: "red"}
_BAR = 10


def render(found: Overview, *, namespaces: bool, pods: int) -> RenderableType:
    """Rollouts, versions, and at most so many pods, those first that need a look."""
    if found.is_empty:
        return Text("no rollout and no version here")
    shown = _worth_a_look(found.pods)[:pods]
    parts: list[RenderableType | None] = [
        _table("Rollouts", _ROLLOUT, found.rollouts, namespaces),
        *_messages(found.rollouts),
        _table("Versions", _VERSION, found.versions, namespaces),
        *_messages(found.versions),
        _table("Pods", _POD, shown, namespaces),
        *_failures(shown),
    ]
    hidden = len(found.pods) - pods
    if hidden > 0:
        parts.append(Text(f"… and {hidden} more pods: kubectl get mpa", style="dim"))
    return Group(*(part for part in parts if part is not None))


def _worth_a_look(rows: Iterable[PodRow]) -> list[PodRow]:
    """Failed ones, then those that move, then those at rest."""
    ranks = {PodState.FAILED: 0, PodState.STAGED: 2, PodState.LIVE: 2}
    return sorted(rows, key=lambda row: ranks.get(row.state, 1))


def _outcome(row: RolloutRow | VersionRow) -> Text:
    return Text(row.reason or "-", style=_COLOURS[row.outcome])


def _bar(row: RolloutRow) -> Text:
    """Pods that serve the target, of all."""
    total, updated = row.pods.total, row.pods.updated
    if not total:
        return Text("no pods", style="dim")
    done = round(_BAR * updated / total)
    return Text.assemble(("━" * done, _COLOURS[row.outcome]), ("·" * (_BAR - done), "dim"), f" {updated}/{total}")


def _state(row: PodRow) -> Text:
    return Text(_line(f"{row.state} {row.progress}"), style=_STATES.get(row.state, "yellow"))


def _messages(rows: Iterable[RolloutRow | VersionRow]) -> Iterator[RenderableType]:
    """What those say that are not ready, or ready of no pod: below their table, where a sentence has room."""
    for row in rows:
        if row.message and (row.outcome is not Outcome.READY or row.reason == Reason.NO_PODS):
            yield _said(row.name, row.message)


def _failures(rows: Iterable[PodRow]) -> Iterator[RenderableType]:
    for row in rows:
        if row.message:
            yield _said(row.name, row.message)


def _said(name: str, message: str) -> RenderableType:
    return Padding(Text(_line(f"{name}: {message}")), (0, 0, 0, 2), expand=False)


def _line(words: str) -> str:
    """One line of a pod's own words, that steer no terminal."""
    return harmless(" ".join(words.split()))


def _plain(value: object) -> Text:
    return Text("" if value is None else _line(str(value)))


_Column = tuple[str, Callable[..., Text]]
_NAMES = frozenset({"namespace", "rollout", "version", "pod"})
_NAMESPACE: _Column = ("namespace", lambda r: _plain(r.namespace))
_ROLLOUT: Sequence[_Column] = (
    ("rollout", lambda r: _plain(r.name)),
    ("live", lambda r: _plain(r.live)),
    ("target", lambda r: _plain(r.target)),
    ("step", lambda r: _plain(r.step)),
    ("pods", _bar),
    ("status", _outcome),
)
_VERSION: Sequence[_Column] = (
    ("version", lambda r: _plain(r.name)),
    ("verified", lambda r: _plain("yes" if r.is_verified else "no")),
    ("status", _outcome),
)
_POD: Sequence[_Column] = (
    ("pod", lambda r: _plain(r.name)),
    ("live", lambda r: _plain(r.live)),
    ("beside", lambda r: _plain(", ".join(r.beside))),
    ("state", _state),
    ("pause µs", lambda r: _plain(r.pause_microseconds)),
    ("failure", lambda r: _plain(r.failure)),
)


def _table(
    title: str, columns: Sequence[_Column], rows: Sequence[RolloutRow | VersionRow | PodRow], namespaces: bool
) -> Table | None:
    if not rows:
        return None
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    shown = (_NAMESPACE, *columns) if namespaces else tuple(columns)
    for heading, _ in shown:
        # A narrow terminal breaks names over lines; of what is cut nevertheless one sees that it is.
        is_name = heading in _NAMES
        table.add_column(heading, overflow="fold" if is_name else "ellipsis", no_wrap=not is_name)
    for row in rows:
        table.add_row(*(cell(row) for _, cell in shown))
    return table
