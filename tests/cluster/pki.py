"""A throw-away certificate authority for one control plane."""

from __future__ import annotations

import base64
import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = timedelta(days=2)
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pki:
    """A folder of PEM files: `<name>.crt` beside `<name>.key`. Any process that sees it can issue more."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, hosts: Sequence[str]) -> Pki:
        """Make the authorities, the API server's certificate for `hosts`, and the key of service-account tokens."""
        folder.mkdir(mode=0o700)
        pki = cls(folder)
        pki._certify("ca", _name("modelparams-test-ca"), issuer="ca")
        pki._certify("front-proxy-ca", _name("front-proxy-ca"), issuer="front-proxy-ca")
        pki._certify("apiserver", _name("kube-apiserver"), issuer="ca", hosts=hosts)
        pki._certify("front-proxy-client", _name("front-proxy-client"), issuer="front-proxy-ca")
        tokens = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pki._write("sa.key", tokens.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pki._write("sa.pub", tokens.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return pki

    def path(self, name: str) -> Path:
        """One file."""
        return self.folder / name

    def kubeconfig(self, server: str, user: str, groups: Sequence[str] = ()) -> Path:
        """Issue a client certificate and write the kubeconfig that uses it."""
        name = "user-" + base64.urlsafe_b64encode("/".join([user, *groups]).encode()).decode().rstrip("=")
        file = self.path(f"{name}.kubeconfig")
        with self.path(f".{name}.lock").open("w") as lock:
            # It names files: once it is there, no other worker of the run may issue them anew.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                self.issue(name, user, groups)
                self._write(file.name, kubeconfig(server, self.path("ca.crt"), self._certificate(name)))
        return file

    def issue(self, name: str, user: str, groups: Sequence[str] = (), *, hosts: Sequence[str] = ()) -> None:
        """Write `<name>.crt` and its key: of a client, or of a server when it has hosts."""
        self._certify(name, _name(user, groups), issuer="ca", hosts=hosts)

    def _certify(self, name: str, subject: x509.Name, *, issuer: str, hosts: Sequence[str] = ()) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        is_ca = name == issuer
        parent = subject if is_ca else x509.load_pem_x509_certificate(self.path(f"{issuer}.crt").read_bytes()).subject
        signer = key if is_ca else load_pem_private_key(self.path(f"{issuer}.key").read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        certificate = _builder(subject, parent, key, signer, hosts, is_ca).sign(signer, hashes.SHA256())
        self._write(f"{name}.key", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._write(f"{name}.crt", certificate.public_bytes(Encoding.PEM))

    def _write(self, name: str, content: bytes) -> None:
        # By rename: another worker of the run may read, or issue the same, at this moment.
        draft = self.path(f".{name}.{datetime.now(UTC).timestamp()}")
        draft.touch(mode=0o600)
        draft.write_bytes(content)
        draft.rename(self.path(name))

    def _certificate(self, name: str) -> dict[str, str]:
        return {"client-certificate": str(self.path(f"{name}.crt")), "client-key": str(self.path(f"{name}.key"))}


def kubeconfig(server: str, ca: Path | None, credential: dict[str, str]) -> bytes:
    """A kubeconfig with one user; JSON is YAML.

    It names files: of keys and certificates that stand in it, Python's clients write copies into the temporary folder,
    which a process that is killed leaves there.

    Args:
        server: `https://host:port`.
        ca: the authority of the server's certificate, PEM; None when the system's are meant.
        credential: the fields of `users[].user`, such as `{"token": …}`.
    """
    authority = {"certificate-authority": str(ca)} if ca else {}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": {"server": server, **authority}}],
        "users": [{"name": "test", "user": credential}],
    }
    return json.dumps(document).encode()


def _name(common: str, organizations: Sequence[str] = ()) -> x509.Name:
    """How Kubernetes reads a client certificate: CN is the user, each O a group."""
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    parent: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    is_ca: bool,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False)
    builder = (
        x509.CertificateBuilder(
            parent, subject, key.public_key(), x509.random_serial_number(), now - _CLOCK_SKEW, now + _VALID
        )
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    if not is_ca:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder


def _host(text: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(text)) if text[0].isdigit() else x509.DNSName(text)
