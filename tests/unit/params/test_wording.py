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


def test_a_single_signature_that_is_not_the_trusted_key_s_is_told_in_the_singular(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    with pytest.raises(SignerUnknown, match=r"^the only signature is not by the only trusted key"):
        publisher.publish("1.0.0", layered(), trust=TrustPolicy.of(SigningKey.generate()))
