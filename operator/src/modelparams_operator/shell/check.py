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
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
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

_Address = IPv4Address | IPv6Address

AWS = "aws"
"""The allow-list's word for a source without endpoint."""
# Where clouds serve credentials or configuration to whoever asks, beside the link-local 169.254.169.254.
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16")))
# Whose last four bytes are an IPv4 address (RFC 4291 §2.5.5.1, RFC 6052 §2.1, RFC 8215, RFC 2765 §2.1), as ipaddress
# does not tell.
_EMBEDDING = tuple(map(ip_network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))

_NEVER_CALLED = "name the store itself: clouds serve credentials at such addresses, so no allow-list opens one"
_MAKE_IT = "create it with the keys accessKeyID and secretAccessKey, or correct the reference; it is tried again"
_LIST_IT = (
    "list its name in the namespace's Role of serving-rbac.yaml (the chart's serving.namespaces[].storeSecrets), or "
    "refer to a Secret that is listed there; it is tried again"
)


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
    trust: Callable[[], TrustPolicy]
    """The policy of this moment."""
    allowed_endpoints: tuple[str, ...]
    workers: int
    threads: ThreadPoolExecutor

    @classmethod
    def of(cls, api: KubernetesAPI, trust: Callable[[], TrustPolicy], settings: Settings) -> Checker:
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
        require_no_metadata_service(spec.source.s3)
        return verify_release(
            open_store(spec.source.s3, found),
            spec.manifest_digest,
            trust=self.trust(),
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
        not_after=manifest.not_after.replace(microsecond=0) if manifest.not_after is not None else None,
        verified_at=datetime.now(UTC).replace(microsecond=0),  # as the wire has it
    )


def require_allowed(source: S3Source, allowed: tuple[str, ...]) -> None:
    """Refuse an endpoint that the operator must not call for whoever may write a version.

    Without an allow-list, a cloud's metadata service is refused all the same: it serves credentials.

    Raises:
        SourceNotAllowed: so it is.
    """
    endpoint = source.endpoint.rstrip("/")
    if allowed and (endpoint or AWS) not in {entry.rstrip("/") for entry in allowed}:
        raise errors.SourceNotAllowed(f"the endpoint {_shown(endpoint)} is not on the operator's allow-list")
    if _is_metadata(_address(urlsplit(endpoint).hostname or "")):
        raise errors.SourceNotAllowed(
            f"the endpoint {_shown(endpoint)} is a link-local or metadata address", hint=_NEVER_CALLED
        )


def require_no_metadata_service(source: S3Source) -> None:
    """Refuse a host whose name leads to one; blocks for the look-up.

    A name that says something else at the next look-up gets past this: only an allow-list is sure.

    Raises:
        SourceNotAllowed: so it does.
    """
    host = urlsplit(source.endpoint).hostname
    if host and any(_is_metadata(address) for address in _resolved(host)):
        raise errors.SourceNotAllowed(
            f"the endpoint {_shown(source.endpoint)} resolves to a link-local or metadata address", hint=_NEVER_CALLED
        )


def _resolved(host: str) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []  # it cannot be called either, and the store's error says so
    return [ip_address(str(where[0]).partition("%")[0]) for *_, where in found]


def _shown(endpoint: str) -> str:
    """Without a user name, a password or a query."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if endpoint else "of AWS"


def _is_metadata(address: _Address | None) -> bool:
    real = (_embedded(address) if isinstance(address, IPv6Address) else None) or address
    return real is not None and (real.is_link_local or real in _METADATA)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: mapped, 6to4, compatible or by NAT64."""
    last = IPv4Address(int(address) & 0xFFFF_FFFF) if any(address in network for network in _EMBEDDING) else None
    return address.ipv4_mapped or address.sixtofour or last


def _address(host: str) -> _Address | None:
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
    except errors.APIMissing:
        raise errors.StoreDenied(f"the Secret {name} of credentialsSecretRef is not there", hint=_MAKE_IT) from None
    except errors.APIDenied:
        told = f"the Secret {name} of credentialsSecretRef may not be read by the operator"
        raise errors.StoreDenied(told, hint=_LIST_IT) from None
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
