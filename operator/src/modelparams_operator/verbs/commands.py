"""The verbs as commands of `modelparams`. What is heavy is imported inside, so that `--help` does not wait for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from modelparams_operator.shell.kube import Kube
    from modelparams_operator.shell.ports import ObjectKey
    from modelparams_operator.verbs.changes import Change

Rollout = Annotated[str, typer.Argument(help="The ModelParamRollout's name.")]
Version = Annotated[str, typer.Argument(help="The ModelParamVersion's name, such as smollm2-1.4.2.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's.")]
Context = Annotated[str | None, typer.Option(help="Another context of the kubeconfig.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Default: $KUBECONFIG, else ~/.kube/config.")]


def approve(
    rollout: Rollout,
    through: Annotated[int | None, typer.Option(min=1, max=50, help="Default: the step that it is in.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let a version pass a step's pause for a person.

    Adds to spec.approvals: your name, the version that is being rolled out now with its digest, and the step. The API
    server checks that it is your name, and that you have the verb promote. Saying it twice changes nothing, and it
    never lets another version pass.
    """
    from modelparams_operator.verbs import changes, writing

    async def carried_out(api: Kube, key: ObjectKey) -> Change:
        who = await writing.user_name(api)
        return await writing.change_rollout(api, key, lambda one: changes.approved(one, who, through))

    _run(carried_out, rollout, namespace, context, kubeconfig)


def expedite(
    rollout: Rollout,
    version: Annotated[str | None, typer.Option(help="Default: the one that is being rolled out.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take a hotfix to all pods without steps and pauses.

    Sets spec.expedite, which needs the verb expedite. It is bound to that version's digest; every byte is verified all
    the same, and pods still take turns as maxUnavailable says.
    """
    from modelparams_operator.verbs import writing

    _run(partial(writing.expedite, version=version), rollout, namespace, context, kubeconfig)


def pause(
    rollout: Rollout, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Hold a rollout at its step; rolling back still happens."""
    from modelparams_operator.verbs import changes

    _change_rollout(changes.held, rollout, namespace, context, kubeconfig)


def resume(
    rollout: Rollout, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Let a rollout that was held go on; needs the verb promote."""
    from modelparams_operator.verbs import changes

    _change_rollout(changes.resumed, rollout, namespace, context, kubeconfig)


def retry(
    rollout: Rollout, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Give the versions that failed in a rollout another chance; needs the verb promote."""
    from modelparams_operator.verbs import changes

    token = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
    _change_rollout(lambda one: changes.retried(one, token), rollout, namespace, context, kubeconfig)


def withdraw(
    version: Version,
    undo: Annotated[bool, typer.Option("--undo", help="Bring it back; needs the verb promote.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Take a version out: pods that serve it go back; needs the verb withdraw.

    It is chosen no more until you bring it back. Git engines leave this alone as long as Git says nothing of
    spec.lifecycle.
    """
    from modelparams_operator.verbs import changes, writing

    decide = changes.brought_back if undo else changes.withdrawn
    _run(partial(writing.change_version, decide=decide), version, namespace, context, kubeconfig)


def _change_rollout(
    decide: Callable[..., Change], name: str, namespace: str | None, context: str | None, kubeconfig: Path | None
) -> None:
    from modelparams_operator.verbs import writing

    _run(partial(writing.change_rollout, decide=decide), name, namespace, context, kubeconfig)


def _run(
    work: Callable[[Kube, ObjectKey], Awaitable[Change]],
    name: str,
    namespace: str | None,
    context: str | None,
    kubeconfig: Path | None,
) -> None:
    from modelparams.cli.output import echo
    from modelparams_operator.shell.ports import ObjectKey
    from modelparams_operator.status.reading import Place, connected, namespace_of

    place = Place(kubeconfig, context, namespace or namespace_of(kubeconfig, context))

    async def carried_out() -> Change:
        async with connected(place) as api:
            return await work(api, ObjectKey(place.namespace or "", name))

    change = asyncio.run(carried_out())
    echo(change.said + ("" if change.is_needed else ", as before"))
