"""The command `modelparams audit`. What is heavy is imported inside, so that `--help` does not wait for it."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

import typer

from modelparams.cli.output import Output

if TYPE_CHECKING:
    from datetime import datetime

    from modelparams_operator.audit.story import Story


class Outcome(IntEnum):
    """How it exits; below 10 are errors (`modelparams.cli.exits`), 10 and 11 `status`'s."""

    WHOLE = 0
    GAP = 12
    """The log does not hold all that it should."""


Logs = Annotated[list[str], typer.Argument(metavar="LOG", help="Files, also rotated and zipped ones; - is a pipe.")]
Moment = "RFC 3339, a date, or how long ago: 90m, 24h, 7d."


def audit(
    logs: Logs,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only this one.")] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Only this model.")] = "",
    rollout: Annotated[str, typer.Option("--rollout", help="Only this ModelParamRollout.")] = "",
    pod: Annotated[str, typer.Option("--pod", help="Only this pod, and what its rollout was told.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help=f"Not what ended before: {Moment}")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Not what began after.")] = "",
    denied: Annotated[bool, typer.Option("--denied", help="Only what was tried and denied.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")] = Output.TABLE,
) -> None:
    """Tell from the API server's audit log what was served, and by whose will.

    Which parameters each pod served from when to when, who published, released and approved them, what was tried and
    denied. Give the logs of all API servers, in any order. Exits with 0, or with 12 when the log has a gap: then what
    is told may not be all.

        modelparams audit /var/log/kubernetes/audit* --model smollm2 --since 7d
    """
    from datetime import UTC, datetime

    from modelparams.cli.output import console, echo
    from modelparams_operator.audit import moments, tables
    from modelparams_operator.audit.scope import Scope

    now = datetime.now(UTC)
    first, last = moments.moment(since, now, "--since"), moments.moment(until, now, "--until")
    scope = Scope(namespace, model, rollout, pod, first, last)
    told = scope.of(_told(logs, first, last, now))
    if output is Output.JSON:
        import json

        told_now = tables.wire(told)
        keys = ("log", "denied", "gaps", "notes") if denied else tuple(told_now)
        echo(json.dumps({key: told_now[key] for key in keys}, indent=2, ensure_ascii=False))
    else:
        console().print(tables.render(told, only_denied=denied))
    raise typer.Exit(Outcome.GAP if told.gaps else Outcome.WHOLE)


def _told(logs: list[str], since: datetime | None, until: datetime | None, now: datetime) -> Story:
    from dataclasses import replace

    from modelparams.errors import UsageError
    from modelparams_operator.audit import gaps
    from modelparams_operator.audit.gathering import gather
    from modelparams_operator.audit.shelf import Shelf
    from modelparams_operator.audit.story import tell

    with Shelf() as shelf:
        unreadable = gather(logs, shelf)
        if not shelf.count:
            raise UsageError(
                f"there is no audit event in {', '.join(logs)}",
                hint="give files that the API server wrote by --audit-log-path, one JSON event a line",
            )
        story = tell(shelf)
        return replace(story, gaps=(*unreadable, *story.gaps, *gaps.outside(shelf, since, until, now)))
