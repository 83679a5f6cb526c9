"""The ModelParamVersion that a publish is applied by."""

from __future__ import annotations

import json

from modelparams.api import API_VERSION, GROUP
from modelparams.api.release import Encryption, KeyReference, S3Source, Source
from modelparams.api.version import KIND, VersionSpec
from modelparams.names import object_name
from modelparams.publish import Published


def manifest_object(
    published: Published,
    source: S3Source,
    key_ref: str,
    *,
    namespace: str | None = None,
) -> dict[str, object]:
    """The ModelParamVersion to apply, as JSON decoding would give it."""
    spec = VersionSpec(
        model_name=published.model,
        version=published.version,
        source=Source(s3=source),
        manifest_digest=published.manifest_digest,
        encryption=Encryption(key_ref=KeyReference(name=key_ref)),
    ).wire()
    spec.pop("suspend", None)
    metadata = {"name": object_name(published.model, published.version), "namespace": namespace}
    return {
        "apiVersion": f"{GROUP}/{API_VERSION}",
        "kind": KIND,
        "metadata": {name: value for name, value in metadata.items() if value},
        "spec": spec,
    }


def manifest_yaml(published: Published, source: S3Source, key_ref: str, *, namespace: str | None = None) -> str:
    """The same in YAML, for `kubectl apply -f -` or a Git repository."""
    return "\n".join(_yaml(manifest_object(published, source, key_ref, namespace=namespace))) + "\n"


def _yaml(value: dict[str, object], indent: str = "") -> list[str]:
    """Maps of maps and scalars. A quoted JSON string is a YAML string, so nothing is read as a number or a date."""
    lines = []
    for name, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{name}:", *_yaml(item, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {json.dumps(item)}")
    return lines
