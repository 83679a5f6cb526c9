"""What the API server admits as a prefix is what the store can use: a version's source cannot be mended later."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from modelparams.api.release import S3Source
from modelparams.errors import UsageError
from modelparams.store.contract import parts_of

GOOD = ["", "models", "models/", "team=a/models", "_shared/v1.2", "a+b/c-d"]
BAD = ["/models", "a//b", "../up", "a/../b", ".hidden", "a b", "ümlaut", "a?b", "=a", "-a"]


@pytest.mark.parametrize("prefix", GOOD)
def test_an_admitted_prefix_can_be_used(prefix: str) -> None:
    assert parts_of(S3Source(bucket="params", prefix=prefix).prefix) == prefix.strip("/")


@pytest.mark.parametrize("prefix", BAD)
def test_a_prefix_that_cannot_be_used_is_not_admitted(prefix: str) -> None:
    with pytest.raises(ValidationError):
        S3Source(bucket="params", prefix=prefix)


@pytest.mark.parametrize("prefix", [prefix for prefix in BAD if not prefix.startswith("/")])
def test_the_store_holds_to_the_same_rule(prefix: str) -> None:
    with pytest.raises(UsageError):
        parts_of(prefix)
