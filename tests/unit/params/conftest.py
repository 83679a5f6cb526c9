"""Stores that are a socket: over TCP and over TLS, which hides bytes from who asks the socket."""

from __future__ import annotations

import ssl

import pytest

from cluster.pki import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.create(tmp_path_factory.mktemp("tls") / "pki", ["127.0.0.1"])


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pki.path("ca.crt")))
    return str(request.param)


@pytest.fixture
def tls(scheme: str, pki: Pki) -> ssl.SSLContext | None:
    if scheme == "http":
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.path("apiserver.crt"), pki.path("apiserver.key"))
    return context
