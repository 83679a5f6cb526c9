"""An opened index is held to the signed manifest: the key alone, without a signature, does not change what is where."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.sealed import ASSETS, TENSORS, built, plaintexts, verified
from modelparams.arena import ArenaLayout
from modelparams.errors import IndexInvalid
from modelparams.index import TensorIndex
from modelparams.sealed import SealedRelease, checked_index
from modelparams.store import FileStore

MADE = built()


@pytest.fixture
def release(tmp_path: Path) -> SealedRelease:
    return SealedRelease(FileStore(tmp_path), verified(MADE), MADE.keys, ArenaLayout.of(MADE.manifest))


def held(release: SealedRelease, index: TensorIndex) -> TensorIndex:
    return checked_index(release, memoryview(index.to_json()))


def test_the_index_that_was_signed_passes(release: SealedRelease) -> None:
    assert held(release, MADE.index) == MADE.index


def test_an_index_of_the_same_tensors_for_blobs_of_other_sizes_is_refused(release: SealedRelease) -> None:
    longer = plaintexts(TENSORS, ASSETS | {"more.json": b"{}"}).index
    assert longer.specs == MADE.index.specs
    with pytest.raises(IndexInvalid, match="blobs of other sizes than the signed manifest"):
        held(release, longer)


@pytest.mark.parametrize("change", ["name", "dtype", "shape"])
def test_an_index_of_other_tensors_in_the_same_places_is_refused(release: SealedRelease, change: str) -> None:
    first, *others = MADE.index.tensors
    to = {
        "name": {"name": first.name[:-1]},
        "dtype": {"dtype": "F16"},
        "shape": {"shape": (*first.shape, 1)},
    }[change]
    other = MADE.index.model_copy(update={"tensors": (first.model_copy(update=to), *others)})
    with pytest.raises(IndexInvalid, match="other names, dtypes or shapes than the signed manifest"):
        held(release, other)
