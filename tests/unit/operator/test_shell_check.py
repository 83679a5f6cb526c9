"""What the operator's check expects of a manifest: that it says what the version object says."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from builders.fake_api import FakeAPI, running
from builders.publishing import MODEL, Publisher
from builders.rollouts import version_spec
from modelparams import errors
from modelparams.api.release import S3Source, Source
from modelparams.api.version import VerifiedFacts
from modelparams.names import ModelName, Version
from modelparams.trust import TrustPolicy
from modelparams_operator import settings
from modelparams_operator.shell import check


@dataclass
class Operator:
    """Its check, on a publisher's store."""

    publisher: Publisher
    trusted: int = 0
    """How often it asked for the policy."""

    def _trust(self) -> TrustPolicy:
        self.trusted += 1
        return self.publisher.trust

    def check(
        self,
        *,
        version: str = "1.0.0",
        model: ModelName = MODEL,
        endpoint: str = "",
        times: int = 1,
        is_stopped: bool = False,
    ) -> VerifiedFacts:
        """Check an object that pins the digest of 1.0.0, by one checker."""
        published = self.publisher.publish("1.0.0")
        spec = version_spec("1.0.0").model_copy(
            update={
                "manifest_digest": published.manifest_digest,
                "version": Version(version),
                "model_name": model,
                "source": Source(s3=S3Source(bucket="params", endpoint=endpoint)),
            }
        )
        trust = self.publisher.home / "trust.json"
        trust.write_bytes(self.publisher.trust.to_json())
        checker = check.Checker.of(FakeAPI(), self._trust, settings.Settings(trust=trust))
        return [running(lambda: checker("ns", spec, lambda: is_stopped)) for _ in range(times)][-1]


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    publisher = Publisher(tmp_path)
    monkeypatch.setattr(check, "open_store", lambda *_: publisher.store)
    return Operator(publisher)


def test_a_manifest_that_says_what_the_object_says_is_verified(operator: Operator) -> None:
    assert operator.check(version="1.0.0").sequence == 1


def test_an_object_that_pins_the_manifest_of_another_version_is_refused(operator: Operator) -> None:
    with pytest.raises(errors.WrongVersion):
        operator.check(version="2.0.0")


def test_an_object_that_pins_the_manifest_of_another_model_is_refused(operator: Operator) -> None:
    with pytest.raises(errors.WrongModel):
        operator.check(version="1.0.0", model=ModelName("another"))


def test_a_store_whose_name_leads_to_a_metadata_service_is_not_opened(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
    with pytest.raises(errors.SourceNotAllowed, match="resolves to a link-local or metadata address"):
        operator.check(endpoint="http://metadata.internal")


def test_each_check_asks_for_the_policy_of_its_moment(operator: Operator) -> None:
    operator.check(times=2)
    assert operator.trusted == 2


def test_a_check_that_was_stopped_reads_no_further(operator: Operator) -> None:
    with pytest.raises(asyncio.CancelledError):
        operator.check(is_stopped=True)
