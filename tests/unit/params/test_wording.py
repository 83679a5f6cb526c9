"""One of a thing is not several."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.publishing import Publisher, layered
from modelparams.errors import SignerUnknown
from modelparams.trust import SigningKey, TrustPolicy
from modelparams.wording import counted


@pytest.mark.parametrize(("number", "want"), [(0, "0 blobs"), (1, "1 blob"), (2, "2 blobs")])
def test_a_noun_follows_its_number(number: int, want: str) -> None:
    assert counted(number, "blob") == want


def test_a_signer_that_is_not_trusted_is_named_beside_those_that_are(tmp_path: Path) -> None:
    publisher, trusted = Publisher(tmp_path), [SigningKey.generate() for _ in range(4)]
    signed, ids = publisher.signer.key_id, sorted(key.key_id for key in trusted)
    policy = f"keys {ids[0][:12]}…, {ids[1][:12]}…, {ids[2][:12]}… and 1 more"
    said = f"the manifest is signed by key {signed[:12]}…, trusted: {policy}"
    with pytest.raises(SignerUnknown, match=f"^{said}"):
        publisher.publish("1.0.0", layered(), trust=TrustPolicy.of(*trusted))
