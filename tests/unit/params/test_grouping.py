from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelparams.errors import UsageError
from modelparams.grouping import group_of, places, plan_blobs
from modelparams.index import TensorEntry, TensorIndex, check

LIMIT = 8192
NAMES = st.from_regex(r"\A(embed|norm|model\.layers\.[0-9]{1,2}\.(a|b)\.w|x\.[0-9]\.y)\Z")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("model.layers.3.mlp.up_proj.weight", "model.layers.3"),
        ("model.layers.3.mlp.experts.17.w1.weight", "model.layers.3"),
        ("bert.encoder.layer.11.attention.self.query.bias", "bert.encoder.layer.11"),
        ("0.auto_model.encoder.layer.2.output.dense.weight", "0.auto_model.encoder.layer.2"),
        ("transformer.h.0.attn.c_attn.weight", "transformer.h.0"),
        ("towers.1.h.2.mlp.weight", "towers.1.h.2"),
        ("towers.1.block.7.experts.3.weight", "towers.1.block.7"),
        ("towers.1.stages.2.norm.weight", "towers.1.stages.2"),
        ("vision.blocks.7.norm.weight", "vision.blocks.7"),
        ("layers.1.w", "layers.1"),
        ("features.3.conv.weight", "features.3"),
        ("2.weight", "2"),
        ("model.embed_tokens.weight", "model"),
        ("lm_head.weight", "lm_head"),
        ("weight", "weight"),
        ("layers_3.weight", "layers_3"),
        ("model.layers.x.weight", "model"),
    ],
)
def test_a_tensor_belongs_to_its_layer(name, group):
    assert group_of(name) == group


def test_layers_are_planned_in_their_natural_order():
    plans = plan_blobs({f"model.layers.{n}.w": 8 for n in (10, 2, 1)} | {"model.norm.weight": 8, "lm_head.weight": 8})
    assert [plan.group for plan in plans] == ["lm_head", "model", "model.layers.1", "model.layers.2", "model.layers.10"]


def test_layers_whose_numbers_are_equal_have_an_order_too():
    sizes = {"model.layers.0.w": 8, "model.layers.00.w": 16}
    assert plan_blobs(sizes) == plan_blobs(dict(reversed(sizes.items())))


@given(st.dictionaries(NAMES, st.integers(0, 3 * LIMIT)), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_of_its_input(sizes, random):
    shuffled = list(sizes.items())
    random.shuffle(shuffled)
    assert plan_blobs(dict(shuffled), limit=LIMIT) == plan_blobs(sizes, limit=LIMIT)


@given(st.dictionaries(NAMES, st.integers(0, 3 * LIMIT)))
def test_every_byte_is_planned_once_and_the_plan_is_a_whole_index(sizes):
    plans = plan_blobs(sizes, limit=LIMIT)
    assert all(plan.size <= LIMIT for plan in plans)
    planned: dict[str, int] = {}
    for part in (part for plan in plans for part in plan.parts):
        assert part.tensor_offset == planned.get(part.name, 0)
        planned[part.name] = part.tensor_offset + part.size
    assert planned == sizes
    at = places(plans)
    tensors = tuple(
        TensorEntry(name=name, dtype="U8", shape=(size,), blob=at[name][0], offset=at[name][1], size=size)
        for name, size in sorted(sizes.items())
    )
    zero = "0" * 64
    check(
        TensorIndex(
            salt=zero, tensors_digest=zero, blob_sizes=tuple(plan.size for plan in plans), tensors=tensors, assets=()
        )
    )


def test_a_group_larger_than_a_blob_is_split_between_tensors():
    plans = plan_blobs({f"layers.0.{n}": 3000 for n in "abcde"}, limit=LIMIT)
    assert [[part.name[-1] for part in plan.parts] for plan in plans] == [["a", "b"], ["c", "d"], ["e"]]


def test_a_group_that_fills_a_blob_to_its_last_byte_is_one_blob():
    plans = plan_blobs({f"layers.0.{n}": LIMIT // 2 for n in "ab"}, limit=LIMIT)
    assert [plan.size for plan in plans] == [LIMIT]


def test_a_tensor_larger_than_a_blob_is_cut_into_full_blobs():
    plans = plan_blobs({"embed": 2 * LIMIT + 5, "head": 7}, limit=LIMIT)
    assert [(plan.group, plan.size) for plan in plans] == [
        ("embed", LIMIT),
        ("embed", LIMIT),
        ("embed", 5),
        ("head", 7),
    ]
    assert [plan.parts[0].tensor_offset for plan in plans] == [0, LIMIT, 2 * LIMIT, 0]
    assert places(plans) == {"embed": (0, 0), "head": (3, 0)}


def test_one_changed_layer_leaves_the_other_plans_as_they_were():
    sizes = {f"model.layers.{n}.w": 100 for n in range(4)}
    grown = sizes | {"model.layers.2.w": 300}
    differ = [a.group for a, b in zip(plan_blobs(sizes), plan_blobs(grown), strict=True) if a != b]
    assert differ == ["model.layers.2"]


def test_more_groups_than_a_manifest_may_list_are_refused():
    with pytest.raises(UsageError, match="6999 groups"):
        plan_blobs({f"m{n}.w": 1 for n in range(6999)})
    assert len(plan_blobs({f"m{n}.w": 1 for n in range(6998)})) == 6998


def test_nothing_needs_no_blob():
    assert plan_blobs({}) == ()
