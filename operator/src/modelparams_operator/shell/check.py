"""One version's check: where its bytes are, with which credentials, and what was found. No key takes part."""

from __future__ import annotations

import asyncio
import base64
import binascii
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from modelparams import errors
from modelparams.api.release import S3Source
from modelparams.api.version import VerifiedFacts, VersionSpec
from modelparams.manifest import Expectation, VerifiedManifest
from modelparams.store import Credentials, open_store
from modelparams.trust import TrustPolicy
from modelparams.verify import CheckedRelease, verify_release
from modelparams_operator.settings import Settings
from modelparams_operator.shell import metrics
from modelparams_operator.shell.ports import JSON, SECRETS, KubernetesAPI, ObjectKey

AWS = "aws"
"""The allow-list's word for a source without endpoint."""


class _Counted:
    """Progress as a metric."""

    def start(self, task: str, total: int) -> None:
        """Nothing to do: the total is in the manifest."""

    def advance(self, task: str, n: int) -> None:
        """Count; what is read again after a fault is read twice."""
        del task
        metrics.VERIFIED_BYTES.inc(max(n, 0))


@dataclass(frozen=True)
class Checker:
    """Checks one version by the operator's trust policy, in threads of its own: boto3 blocks, hashing takes long."""

    api: KubernetesAPI
    trust: TrustPolicy
    allowed_endpoints: tuple[str, ...]
    workers: int
    threads: ThreadPoolExecutor

    @classmethod
    def of(cls, api: KubernetesAPI, trust: TrustPolicy, settings: Settings) -> Checker:
        """As the settings say."""
        # Each of the threads only waits for the `workers` that read.
        threads = ThreadPoolExecutor(settings.verify_versions, thread_name_prefix="verify")
        return cls(api, trust, settings.allowed_endpoints, settings.verify_workers, threads)

    async def __call__(self, namespace: str, spec: VersionSpec, stopped: Callable[[], bool]) -> VerifiedFacts:
        """See `verifier.Check`."""
        require_allowed(spec.source.s3, self.allowed_endpoints)
        found = await credentials(self.api, namespace, spec.source.s3)
        loop = asyncio.get_running_loop()
        release = await loop.run_in_executor(self.threads, self._verify, spec, found, stopped)
        return facts(release.manifest)

    def _verify(self, spec: VersionSpec, found: Credentials | None, stopped: Callable[[], bool]) -> CheckedRelease:
        return verify_release(
            open_store(spec.source.s3, found),
            spec.manifest_digest,
            trust=self.trust,
            expect=Expectation(spec.model_name, version=spec.version, now=datetime.now(UTC)),
            workers=self.workers,
            progress=_Counted(),
            cancelled=stopped,
        )


def facts(verified: VerifiedManifest) -> VerifiedFacts:
    """What the version's status remembers."""
    manifest = verified.manifest
    return VerifiedFacts(
        manifest_digest=verified.digest,
        sequence=manifest.sequence,
        floor=manifest.floor,
        blobs=len(manifest.blobs),
        size_bytes=manifest.size_bytes,
        signers=verified.signers,
        verified_at=datetime.now(UTC).replace(microsecond=0),  # as the wire has it
    )


def require_allowed(source: S3Source, allowed: tuple[str, ...]) -> None:
    """Refuse an endpoint that the operator must not call for whoever may write a version.

    Without an allow-list, link-local addresses are refused all the same: clouds serve credentials there.

    Raises:
        SourceNotAllowed: so it is.
    """
    endpoint = source.endpoint.rstrip("/")
    if allowed and (endpoint or AWS) not in {entry.rstrip("/") for entry in allowed}:
        raise errors.SourceNotAllowed(f"the endpoint {_shown(endpoint)} is not on the operator's allow-list")
    if endpoint and _is_link_local(urlsplit(endpoint).hostname or ""):
        raise errors.SourceNotAllowed(f"the endpoint {_shown(endpoint)} is a link-local address")


def _shown(endpoint: str) -> str:
    """Without a user name, a password or a query."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.hostname or ''}" if endpoint else "of AWS"


def _is_link_local(host: str) -> bool:
    address = _address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address is not None and (mapped or address).is_link_local


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is written as, 2852039166 and 0xa9fea9fe among the ways; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


async def credentials(api: KubernetesAPI, namespace: str, source: S3Source) -> Credentials | None:
    """Read the Secret that the source names; None: the operator's own environment.

    Raises:
        StoreDenied: there is no such Secret, it lacks a key, or we may not read it.
        APIUnavailable: no answer.
    """
    if source.credentials_secret_ref is None:
        return None
    name = source.credentials_secret_ref.name
    try:
        secret = await api.get(SECRETS, ObjectKey(namespace, name))
    except (errors.APIMissing, errors.APIDenied) as error:
        told = "is not there" if isinstance(error, errors.APIMissing) else "may not be read by the operator"
        raise errors.StoreDenied(
            f"the Secret {name} of credentialsSecretRef {told}",
            hint="create it with the keys accessKeyID and secretAccessKey, or correct the reference; it is tried again",
        ) from None
    return _credentials(name, secret.get("data") or {})


def _credentials(name: str, data: JSON) -> Credentials:
    try:
        found = {key: base64.b64decode(value, validate=True).decode().strip() for key, value in data.items()}
    except (binascii.Error, UnicodeDecodeError):
        found = {}
    if not (found.get("accessKeyID") and found.get("secretAccessKey")):
        raise errors.StoreDenied(
            f"the Secret {name} of credentialsSecretRef has no usable keys accessKeyID and secretAccessKey"
        )
    return Credentials(found["accessKeyID"], found["secretAccessKey"], found.get("sessionToken") or None)
