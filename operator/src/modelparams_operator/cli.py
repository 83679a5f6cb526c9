"""What the operator adds to `modelparams` for looking: `status`, `history` and `explain`."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from modelparams.api.rollout import RolloutStatus
    from modelparams_operator.status.overview import Overview
    from modelparams_operator.status.reading import Place
    from modelparams_operator.status.screens import Screen


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


def status(
    use: typer.Context,
    model: Annotated[str, typer.Argument(help="Only this model's rollouts, versions and pods.")] = "",
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's.")] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look into all namespaces.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it is ready or has failed.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds after which --watch gives up; 0: never.")] = 0,
    pods: Annotated[int, typer.Option(min=0, help="Show so many pods at most, failed ones first.")] = 20,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="json with --watch: a line a change.")
    ] = Output.TABLE,
    context: Annotated[str | None, typer.Option(help="Another context of the kubeconfig.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else ~/.kube/config.")] = None,
) -> None:
    """Show how rollouts, versions and pods stand.

    Exits with 0 when all is ready, 10 while something moves, 11 when something has failed and waits for a person, so
    that a pipeline can wait for a release:

        kubectl apply -f smollm2-1.1.0.yaml
        modelparams status smollm2 --watch --timeout 600
    """
    # Here, so that `modelparams --help` does not wait for the Kubernetes client.
    from modelparams.cli.options import refuse_idle
    from modelparams.errors import UsageError
    from modelparams_operator.status.follow import follow
    from modelparams_operator.status.reading import Place, namespace_of

    if not watch:
        refuse_idle(use, ("timeout",), "without --watch")
    if everywhere and namespace:
        raise UsageError("--namespace does nothing beside --all-namespaces", hint="leave one of them out")
    place = Place(kubeconfig, context, None if everywhere else namespace or namespace_of(kubeconfig, context))
    screen = screen_of(output, watch=watch, pods=pods, namespaces=everywhere)
    found = asyncio.run(follow(partial(_read, place, model), screen, watch=watch, timeout=timeout))
    raise typer.Exit(found.outcome)


Rollout = Annotated[str, typer.Argument(help="The ModelParamRollout's name.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's.")]
Context = Annotated[str | None, typer.Option(help="Another context of the kubeconfig.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else ~/.kube/config.")]


def history(
    rollout: Rollout,
    namespace: Namespace = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="json: as status.history has it.")] = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show which versions a rollout brought to its pods, and what became of them.

    The last twenty, newest first, with who approved them. For longer, and for what was tried and denied, ask the API
    server's audit log: modelparams audit.
    """
    import json

    from modelparams.cli.output import console, echo
    from modelparams_operator.shell import views
    from modelparams_operator.shell.ports import ROLLOUTS, ObjectKey
    from modelparams_operator.status import history as past
    from modelparams_operator.status.reading import connected, found

    place = _place(kubeconfig, context, namespace)

    async def read() -> RolloutStatus:
        async with connected(place) as api:
            return views.rollout(await found(api, ROLLOUTS, ObjectKey(place.namespace or "", rollout))).status

    status = asyncio.run(read())
    if output is Output.JSON:
        echo(json.dumps(past.wire(status), indent=2))
    else:
        console().print(past.table(status))


def explain(
    rollout: Rollout, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Say why a rollout is where it is, and what the operator would do next.

    Plans from the objects as they are, by the operator's own rules, and changes nothing. What only the operator knows
    is left out: a check of bytes that is under way, and a time in which it could not follow the pods.
    """
    from modelparams.cli.harmless import harmless
    from modelparams.cli.output import echo
    from modelparams_operator.core.explain import explain as told
    from modelparams_operator.status.reading import read_snapshot

    snapshot = asyncio.run(read_snapshot(_place(kubeconfig, context, namespace), rollout))
    echo(harmless(told(snapshot)))


def _place(kubeconfig: Path | None, context: str | None, namespace: str | None) -> Place:
    from modelparams_operator.status.reading import Place, namespace_of

    return Place(kubeconfig, context, namespace or namespace_of(kubeconfig, context))


def screen_of(output: Output, *, watch: bool, pods: int, namespaces: bool) -> Screen:
    """Where it is shown: a terminal that can is drawn over while it is watched."""
    from modelparams.cli.output import console
    from modelparams_operator.status import screens

    if output is Output.JSON:
        return screens.JsonLines(None if watch else 2)
    where = console()
    can_draw_over = where.is_terminal and not where.is_dumb_terminal
    kind = screens.LiveTables if watch and can_draw_over else screens.Tables
    return kind(pods=pods, namespaces=namespaces)


async def _read(place: Place, model: str) -> Overview:
    from modelparams.errors import UsageError
    from modelparams_operator.status.reading import read

    found = await read(place, model)
    if found.is_empty:  # nothing that a pipeline could take for ready
        whose = f" of {model}" if model else ""
        where = f"namespace {place.namespace}" if place.namespace else "any namespace"
        hint = "check the name" + (", or look everywhere with --all-namespaces" if place.namespace else "")
        raise UsageError(f"there is no rollout and no version{whose} in {where}", hint=hint)
    return found
