"""What the operator's check expects of a manifest: that it says what the version object says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from builders.fake_api import FakeAPI, running
from builders.publishing import MODEL, Publisher
from builders.rollouts import version_spec
from modelparams import errors
from modelparams.api.version import VerifiedFacts
from modelparams.names import ModelName, Version
from modelparams_operator import settings
from modelparams_operator.shell import check


@dataclass
class Operator:
    """Its check, on a publisher's store."""

    publisher: Publisher

    def check(self, *, version: str, model: ModelName = MODEL) -> VerifiedFacts:
        """Check an object that pins the digest of 1.0.0."""
        published = self.publisher.publish("1.0.0")
        spec = version_spec("1.0.0").model_copy(
            update={
                "manifest_digest": published.manifest_digest,
                "version": Version(version),
                "model_name": model,
            }
        )
        trust = self.publisher.home / "trust.json"
        trust.write_bytes(self.publisher.trust.to_json())
        checker = check.Checker.of(FakeAPI(), lambda: self.publisher.trust, settings.Settings(trust=trust))
        return running(lambda: checker("ns", spec, lambda: False))


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
