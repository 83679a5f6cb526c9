"""`modelparams keys`: make the keys that a release needs. What is heavy is imported where it is used."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from modelparams.cli.exits import TABLE
from modelparams.cli.options import As, refuse_idle, require_namespace
from modelparams.cli.output import Output, echo, facts, note, result, write_file
from modelparams.cli.prose import prose
from modelparams.errors import UsageError
from modelparams.secret import Secret32
from modelparams.whole_files import write_key_file

_SECRET_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")  # as `keys.LocalKeyProvider` takes them

app = typer.Typer(
    no_args_is_help=True,
    help="Make the keys of a release: one that encrypts, some that sign, and the policy that says whose word counts.",
    epilog=TABLE,
)


def kek(
    name: Annotated[str, typer.Argument(help="What --key-ref and encryption.keyRef call it; a Secret's name.")],
    keys: Annotated[
        Path, typer.Option("--keys", envvar="MODELPARAMS_KEYS", metavar="DIR", help="Where to keep it.")
    ] = Path("keys"),
    secret: Annotated[bool, typer.Option("--secret", help="Print it as a Kubernetes Secret to apply.")] = False,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Of that Secret: where the pods are.")] = "",
    *,
    context: typer.Context,
) -> None:
    """Make a key-encryption key: who has it can open every version of its models.

    It is kept as a file, and given to serving pods as a Secret of the same name. Neither the store nor the
    operator ever has it. Lose it, and sealed versions cannot be opened any more.

        modelparams keys kek smollm2 --secret -n serving | kubectl apply -f -

    An existing key is never replaced; with --secret it is printed again.
    """
    if not secret:
        refuse_idle(context, ("namespace",), "without --secret")
    if not _SECRET_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} is no name of a Secret", hint="use lower-case letters, digits, dashes and dots"
        )
    require_namespace(namespace)
    path = keys / name
    made = _write_new(path, base64.b64encode(Secret32.random().expose()) + b"\n")
    if not made and not secret:
        raise UsageError(f"{path} exists", hint="use it, print it with --secret, or choose another name")
    key_data = base64.b64encode(_read_kek(path)).decode()
    note(f"{'made' if made else 'found'} {path}: keep it safe, keep a copy")
    if secret:
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        described = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"key": key_data}}
        echo(json.dumps(described, indent=2))


def _read_kek(path: Path) -> bytes:
    from modelparams.keys import parse_kek

    try:
        return parse_kek(path.read_bytes()).expose()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", hint="choose another --keys") from None
    except ValueError as error:
        raise UsageError(f"{path} is no key: {error}", hint="choose another name") from None


def _write_new(path: Path, data: bytes) -> bool:
    """False if it exists; an existing key is never overwritten."""
    if path.parent.exists() and not path.parent.is_dir():
        raise UsageError(f"{path.parent} is no directory", hint="choose another --keys")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_key_file(path, data)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})", hint="choose another --keys") from None
    return True


def signer(
    file: Annotated[Path, typer.Argument(help="A new PEM file for the private key.")],
    output: As = Output.TABLE,
) -> None:
    """Make an Ed25519 key that signs releases, and print its public half.

    The private half is for whoever publishes: a person, or the pipeline. Clusters get the public one by
    'modelparams keys trust'.
    """
    from modelparams.trust import SigningKey

    key = SigningKey.generate()
    key.save(file)
    note(f"made {file}: whoever has it can sign releases")
    data = {"keyId": key.key_id, "public": key.public.hex(), "file": str(file)}
    result(data, facts("signing key", {"key id": key.key_id, "public": key.public.hex()}), output)


def trust(
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY", help="PEM files, private or public, or public keys in hex.")
    ],
    threshold: Annotated[int, typer.Option(min=1, help="How many of them must sign a release.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it here, not to stdout.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    *,
    context: typer.Context,
) -> None:
    """Write the trust policy: which keys may sign releases, and how many must.

    It is configuration of the cluster, for the operator and for each serving pod, never taken from the store:

        modelparams keys trust alice.pem bob.pem --threshold 2 --out trust.json
        kubectl create configmap modelparams-trust --from-file trust.json

    An existing FILE is replaced by --force only.
    """
    if out is None:
        refuse_idle(context, ("force",), "without --out")
    from modelparams.trust import TrustPolicy, key_id

    found = [_public_key(key) for key in keys]
    if threshold > len(set(found)):
        raise UsageError(
            f"{threshold} signatures take {threshold} keys, and here are {len(set(found))}",
            hint="give more keys, or a lower --threshold",
        )
    policy = TrustPolicy(threshold, {key_id(public): public for public in found})
    text = json.dumps(json.loads(policy.to_json()), indent=2) + "\n"
    if out is None:
        echo(text)
        return
    if out.is_file() and not force:
        raise UsageError(f"{out} exists", hint="use it, replace it with --force, or name another file")
    write_file(out, text)
    note(f"wrote {out}: {threshold} of {len(policy.keys)} keys must sign")


def _public_key(text: str) -> bytes:
    """32 raw bytes."""
    if not Path(text).exists():
        try:
            public = bytes.fromhex(text)
        except ValueError:
            raise UsageError(f"{text[:80]!r} is neither a file nor a public key in hex", hint=_GIVE) from None
        if len(public) != 32:
            raise UsageError(f"{text[:80]!r} is no Ed25519 public key", hint=_GIVE)
        return public
    try:
        data = Path(text).read_bytes()
    except OSError as error:
        raise UsageError(f"{text} cannot be read ({error.strerror})", hint=_GIVE) from None
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    from modelparams.trust import SigningKey

    if b"PRIVATE" in data:
        return SigningKey.load(Path(text)).public
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{text} holds no Ed25519 key in PEM", hint=_GIVE)
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


for _command in (kek, signer, trust):
    app.command(help=prose(_command.__doc__ or ""), epilog=TABLE)(_command)

_GIVE = "give what 'modelparams keys signer' wrote or printed"
