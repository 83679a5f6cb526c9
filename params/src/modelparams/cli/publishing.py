"""`modelparams hash` and `modelparams publish`. What they do is imported in them, so that --help need not wait."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelparams.cli import publish_options as options
from modelparams.cli.options import As, KeyRef, StoreUrl, model_and_version, refuse_idle, require_namespace
from modelparams.cli.output import Output, require_place, result, table

Directory = Annotated[
    Path, typer.Argument(exists=True, file_okay=False, help="As save_pretrained wrote it: …/<model>/v<semver>.")
]

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
    from modelparams.cli.reporting import reporting
    from modelparams.hashes import check_hashes, write_hashes
    from modelparams.tensors import read_directory

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

    from modelparams.cli import releasing
    from modelparams.cli.reporting import reporting
    from modelparams.keys import LocalKeyProvider
    from modelparams.publish import publish
    from modelparams.trust import SigningKey, TrustPolicy

    ref = key_ref or str(name)
    end = releasing.end_of(not_after) if not_after else None
    source = releasing.source_of_pods(store, cluster_endpoint, credentials_secret)
    signers = [SigningKey.load(path) for path in sign]
    with releasing.told_how_to_go_on(), reporting() as progress:
        published = publish(
            directory,
            releasing.to_publish_into(store),
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
    releasing.tell(published, report)
    releasing.print_release(published, source, ref, namespace=namespace or None, form=output)
