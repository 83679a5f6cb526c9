"""Carry a verb out: read the object, decide, write it only if it is still what was read."""

from __future__ import annotations

from collections.abc import Callable

from modelparams.errors import APIConflict, UsageError
from modelparams_operator.shell import views
from modelparams_operator.shell.kube import Kube
from modelparams_operator.shell.ports import JSON, ROLLOUTS, VERSIONS, ObjectKey, Resource
from modelparams_operator.shell.views import RolloutObject, VersionObject
from modelparams_operator.status.reading import found
from modelparams_operator.verbs.changes import Change, expedited, full_name

_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def user_name(api: Kube) -> str:
    """Ask the API server who it takes us for."""
    answer = await api.review(_REVIEWS)
    return str(answer["status"]["userInfo"]["username"])


async def change_rollout(api: Kube, key: ObjectKey, decide: Callable[[RolloutObject], Change]) -> Change:
    """Change a rollout as `decide` says. Errors as `_written`, and those of `decide`."""
    subject = await found(api, ROLLOUTS, key)
    return await _written(api, ROLLOUTS, subject, decide(views.rollout(subject)))


async def expedite(api: Kube, key: ObjectKey, version: str | None) -> Change:
    """Expedite a version by its name or number, or what is rolled out. Errors as `_written`, those of `expedited`."""
    subject = await found(api, ROLLOUTS, key)
    rollout = views.rollout(subject)
    named = None
    if version is not None:
        which = ObjectKey(key.namespace, full_name(rollout.spec, version))
        named = views.version(await found(api, VERSIONS, which))
    return await _written(api, ROLLOUTS, subject, expedited(rollout, named))


async def change_version(api: Kube, key: ObjectKey, decide: Callable[[VersionObject], Change]) -> Change:
    """Change a version as `decide` says. Errors as `_written`, and those of `decide`."""
    subject = await found(api, VERSIONS, key)
    return await _written(api, VERSIONS, subject, decide(views.version(subject)))


async def _written(api: Kube, resource: Resource, subject: JSON, change: Change) -> Change:
    """Write it as a person's own.

    Raises:
        UsageError: the object is another one by now than the person could see.
        APIError: the API server did not take it.
    """
    if not change.is_needed:
        return change
    key, seen = views.key_of(subject), subject["metadata"]["resourceVersion"]
    try:
        await api.merge(resource, key, {"metadata": {"resourceVersion": seen}, "spec": change.spec})
    except APIConflict:
        raise UsageError(f"{key.name} was changed meanwhile", hint="look at it again, and repeat") from None
    return change
