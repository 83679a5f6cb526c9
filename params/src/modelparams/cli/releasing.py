"""What `modelparams publish` does around the publish: what it reads from its options, tells and prints."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from pydantic.alias_generators import to_camel

from modelparams.api.release import S3Source
from modelparams.cli.output import console, echo, facts, note, print_whole, size, write_file
from modelparams.cli.publish_options import Form
from modelparams.errors import InvalidSpec, UsageError
from modelparams.publish import Published
from modelparams.store import FileStore, ObjectStore, open_store, source_of
from modelparams.version_object import manifest_object, manifest_yaml
from modelparams.wording import counted

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@contextmanager
def told_how_to_go_on() -> Iterator[None]:
    """Say at Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        note("stopped; the same command goes on where it ended")
        raise


def to_publish_into(url: str) -> ObjectStore:
    """Open the store, and say so where a mistyped one is made anew."""
    store = open_store(url)
    if isinstance(store, FileStore) and store.is_new:
        note(f"there is no directory {store} yet: it will be made")
    return store


def print_release(
    published: Published, source: S3Source | None, key_ref: str, *, namespace: str | None, form: Form
) -> None:
    """Print the object to apply, as YAML or JSON; for a store in a directory, the digest alone."""
    if source is None:
        return _print_digest(published, form)
    if form is Form.JSON:
        return echo(json.dumps(manifest_object(published, source, key_ref, namespace=namespace), indent=2))
    return echo(manifest_yaml(published, source, key_ref, namespace=namespace))


def _print_digest(published: Published, form: Form) -> None:
    note("pods cannot read a directory, so there is no object to apply; this is the manifest digest:")
    digest = str(published.manifest_digest)
    echo(json.dumps({"manifestDigest": digest}, indent=2) if form is Form.JSON else digest)


def source_of_pods(store: str, endpoint: str, credentials: str) -> S3Source | None:
    """What pods read from; None for a directory."""
    if not store.startswith("s3://"):
        return None
    named = source_of(store)
    endpoint = endpoint or named.endpoint or _own_endpoint()
    reference = {"credentialsSecretRef": {"name": credentials}} if credentials else {}
    try:
        source = S3Source.parse(named.wire() | {"endpoint": endpoint} | reference)
    except InvalidSpec as error:
        raise UsageError(
            f"no pod could be sent to the store: {error.message}",
            hint="correct --cluster-endpoint or --credentials-secret",
        ) from None
    if endpoint and urlsplit(endpoint).hostname in _LOOPBACK:
        note(f"pods are sent to {endpoint}, where each finds itself; --cluster-endpoint names the store as they see it")
    return source


def _own_endpoint() -> str:
    """Where boto3 goes when the address names no endpoint; pods lack these variables, and would go to AWS."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return ""
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if found := os.environ.get(variable):
            note(f"pods are sent to {variable}'s endpoint as well; --cluster-endpoint names another")
            return found
    return ""


def end_of(text: str) -> datetime:
    """Read --not-after.

    Raises:
        UsageError: it is no time with its zone.
    """
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("no zone")
        return found.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):  # a zone may carry the calendar's last hours out of it
        raise UsageError(
            f"--not-after {text[:80]!r} is no time with its zone", hint="write it as 2030-01-31T00:00:00Z"
        ) from None


def tell(published: Published, report: Path | None) -> None:
    """Say what was done: to people, and to programs in the file that --report names."""
    title = f"{published.model} {published.version} {'was there already' if published.was_there else 'is published'}"
    rows: dict[str, object] = {
        "manifest digest": published.manifest_digest,
        "sequence": published.sequence,
        "sealed": size(published.bytes_total),
        "sent": f"{size(published.bytes_sent)} in {counted(published.blobs_new, 'blob')}",
        "reused": f"{counted(published.blobs_reused, 'blob')} of the last publish",
    }
    if published.blobs_resumed:
        rows["resumed"] = f"{counted(published.blobs_resumed, 'blob')} of a run that was cut off"
    print_whole(console(stderr=True), facts(title, rows))
    if published.is_other_layout:
        note(
            "warning: its tensors have other names, shapes or dtypes than the publish before: pods that serve that "
            "refuse it (LayoutMismatch); only new pods can take it, if it is what its config.json describes"
        )
    if report:
        write_file(report, json.dumps(_as_json(published), indent=2) + "\n")


def _as_json(published: Published) -> dict[str, object]:
    found = {field.name: getattr(published, field.name) for field in dataclasses.fields(published)}
    texts = {name: str(found[name]) for name in ("model", "version", "manifest_digest")}
    return {to_camel(name): value for name, value in (found | texts).items()}
