"""`modelparams hash` and `modelparams publish`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic.alias_generators import to_camel

from modelparams.api.release import S3Source
from modelparams.cli import publish_options as options
from modelparams.cli.options import As, KeyRef, StoreUrl, model_and_version, refuse_idle, require_namespace
from modelparams.cli.output import (
    Output,
    console,
    echo,
    facts,
    note,
    require_place,
    result,
    size,
    table,
    write_file,
)
from modelparams.cli.reporting import reporting
from modelparams.errors import InvalidSpec, UsageError
from modelparams.hashes import check_hashes, write_hashes
from modelparams.keys import LocalKeyProvider
from modelparams.publish import Published, publish
from modelparams.store import FileStore, ObjectStore, open_store, source_of
from modelparams.tensors import read_directory
from modelparams.trust import SigningKey, TrustPolicy
from modelparams.version_object import manifest_object, manifest_yaml
from modelparams.wording import counted

Directory = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="As save_pretrained wrote it: …/<model>/v<semver>.")
]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OF_THE_OBJECT = ("namespace", "cluster_endpoint", "credentials_secret")


def hash_command(
    directory: Directory,
    check: Annotated[bool, typer.Option("--check", help="Compare instead of writing.")] = False,
    output: As = Output.TABLE,
) -> None:
    """Write the SHA-256 of every *.safetensors file into the directory's config.json.

    'publish' refuses a directory whose bytes differ from these hashes, so what was reviewed in Git is what is
    sealed. Run it after save_pretrained, and commit the change.
    """
    if not check:
        read_directory(directory)  # what publish would refuse, before anybody reviews its hashes
    with reporting() as progress:
        hashes = check_hashes(directory, progress) if check else write_hashes(directory, progress)
    shown = table(f"{directory} {'matches' if check else 'now holds'}", "file", "sha256")
    for name, value in hashes.items():
        shown.add_row(name, value)
    result({"directory": str(directory), "sha256": hashes}, shown, output)


def publish_command(
    directory: Directory,
    store: StoreUrl,
    sign: options.Sign,
    keys: options.Keys = Path("keys"),
    key_ref: KeyRef = "",
    trust: options.Trust = None,
    model: options.Model = "",
    version: options.OfVersion = "",
    floor: options.Floor = None,
    not_after: options.NotAfter = "",
    namespace: options.Namespace = "",
    cluster_endpoint: options.ClusterEndpoint = "",
    credentials_secret: options.CredentialsSecret = "",
    no_reuse: options.NoReuse = False,
    workers: options.Workers = 4,
    report: options.Report = None,
    output: options.Printed = options.Form.YAML,
    *,
    context: typer.Context,
) -> None:
    r"""Seal a directory, sign it, put it into the store, and print the ModelParamVersion to apply.

    Layers that did not change since the last publish are not sent again; their bytes in the store are not read, so
    where some were damaged there, --no-reuse seals and sends all. A publish that was killed goes on where it ended
    when it is run again. A version is never overwritten; publishing the same again is a success.

        modelparams publish params/smollm2/v1.1.0 -s s3://models/smollm2 \
            --keys ~/keys --sign release.pem | kubectl apply -f -

    Only the object goes to stdout, in YAML or JSON, with its kind's names. Pods cannot read a store in a directory, so
    for one there is no object: it is the manifest digest that goes to stdout, with --output json as
    {"manifestDigest": …}. What was done is told on stderr, and to programs by --report, whose names are in the same
    camelCase.
    """
    if not store.startswith("s3://"):
        refuse_idle(context, _OF_THE_OBJECT, "for a store in a directory, of which no object is printed")
    require_namespace(namespace)
    if report:
        require_place(report)
    name, number = model_and_version(directory, model, version)
    ref = key_ref or str(name)
    end = _time(not_after) if not_after else None
    source = _source(store, cluster_endpoint, credentials_secret)
    signers = [SigningKey.load(path) for path in sign]
    with _told_how_to_go_on(), reporting() as progress:
        published = publish(
            directory,
            _to_publish_into(store),
            model=name,
            version=number,
            keys=LocalKeyProvider(keys),
            key_ref=ref,
            signers=signers,
            trust=TrustPolicy.load(trust) if trust else None,
            floor=floor,
            not_after=end,
            workers=workers,
            progress=progress,
            reuse=not no_reuse,
        )
    _tell(published)
    if report:
        write_file(report, json.dumps(_as_json(published), indent=2) + "\n")
    if source is None:
        _print_digest(published, output)
    else:
        as_text = _object_as_json if output is options.Form.JSON else manifest_yaml
        echo(as_text(published, source, ref, namespace=namespace or None))


@contextmanager
def _told_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note("stopped; the same command goes on where it ended")
        raise


def _to_publish_into(url: str) -> ObjectStore:
    store = open_store(url)
    if isinstance(store, FileStore) and store.is_new:
        note(f"there is no directory {store} yet: it will be made")
    return store


def _object_as_json(published: Published, source: S3Source, key_ref: str, *, namespace: str | None) -> str:
    return json.dumps(manifest_object(published, source, key_ref, namespace=namespace), indent=2)


def _print_digest(published: Published, output: options.Form) -> None:
    note("pods cannot read a directory, so there is no object to apply; this is the manifest digest:")
    digest = str(published.manifest_digest)
    echo(json.dumps({"manifestDigest": digest}, indent=2) if output is options.Form.JSON else digest)


def _source(store: str, endpoint: str, credentials: str) -> S3Source | None:
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


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("no zone")
        return found.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):  # a zone may carry the calendar's last hours out of it
        raise UsageError(
            f"--not-after {text[:80]!r} is no time with its zone", hint="write it as 2030-01-31T00:00:00Z"
        ) from None


def _tell(published: Published) -> None:
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
    console(stderr=True).print(facts(title, rows))
    if published.is_other_layout:
        note(
            "warning: its tensors have other names, shapes or dtypes than the publish before: pods that serve that "
            "refuse it (LayoutMismatch); only new pods can take it, if it is what its config.json describes"
        )


def _as_json(published: Published) -> dict[str, object]:
    found = {field.name: getattr(published, field.name) for field in dataclasses.fields(published)}
    texts = {name: str(found[name]) for name in ("model", "version", "manifest_digest")}
    return {to_camel(name): value for name, value in (found | texts).items()}
