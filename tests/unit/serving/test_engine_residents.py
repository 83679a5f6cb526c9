"""What becomes resident: everything is checked first, and the parameters are the arena's own memory."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import re
import struct
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from builders.arenas import SAMPLES, tiny
from builders.engines import put_live, settings, stage, swapper
from modelparams.errors import IllegalTransition, IndexInvalid, LayoutMismatch, ModelParamsError, NotFinite
from modelparams.protocol import SlotPhase
from modelparams.tensors import TensorSpec
from modelparams_serving.engine import device, weights
from modelparams_serving.engine.generate import Prompt, TextGenerator
from modelparams_serving.engine.residents import ResidentVersion
from modelparams_serving.engine.skeleton import Blueprint
from modelparams_serving.engine.swap import Swapper

pytestmark = pytest.mark.model
LLAMA = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"'
DEEP = b'{"x": ' + b"[" * 101 + b"]" * 101 + b"}"


def with_config(**changes: Any) -> bytes:
    """config.json of the sample with other values."""
    config = json.loads((SAMPLES / "v1.0.0" / "config.json").read_bytes())
    return json.dumps(config | changes).encode()


def with_positions(context: int) -> bytes:
    """The same for a context of so many tokens."""
    return with_config(max_position_embeddings=context)


HEAD, NORM = "model.embed_tokens.weight", "model.norm.weight"


def within(directory: Path, scene: Callable[[Swapper], Awaitable[Any]], **changes: Any) -> Any:
    async def whole() -> Any:
        async with swapper(directory, **changes) as made:
            return await scene(made)

    return asyncio.run(whole())


async def greedy(made: Swapper, ids: list[int], count: int) -> list[int]:
    """Generate on the current version."""
    with made.lease() as version:
        assert isinstance(version.service, TextGenerator)
        tokens = version.service.tokens(Prompt(ids, count), every=False)
        return [token async for new in tokens for token in new.ids]


def refused(directory: Path, **changes: Any) -> ModelParamsError:
    """Stage a bad version beside a live one: the live one must go on."""

    async def scene(made: Swapper) -> ModelParamsError:
        await put_live(made, tiny("1.0.0"))
        before = await greedy(made, [5, 6, 7], 4)
        with pytest.raises(ModelParamsError) as error:
            await stage(made, tiny("1.1.0", **changes))
        state = made.state()
        assert state.current == tiny("1.0.0").resident
        assert [slot.phase for slot in state.slots.values()] == [SlotPhase.CURRENT, SlotPhase.EMPTY]
        assert await greedy(made, [5, 6, 7], 4) == before
        return error.value

    found: ModelParamsError = within(directory, scene)
    return found


def test_answers_are_those_of_the_library_alone(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        for number in ("1.0.0", "1.1.0"):
            await put_live(made, tiny(number))
            model = AutoModelForCausalLM.from_pretrained(SAMPLES / f"v{number}")
            wanted = model.generate(torch.tensor([[9, 8, 7]]), max_new_tokens=8, do_sample=False)[0, 3:].tolist()
            assert await greedy(made, [9, 8, 7], 8) == wanted

    within(tmp_path, scene)


def test_only_a_version_beside_its_like_is_spared_the_whole_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    one_pass = ResidentVersion._pass

    async def noted(self: ResidentVersion, length: int) -> None:
        passes.append(length)
        await one_pass(self, length)

    async def scene(made: Swapper) -> None:
        await put_live(made, tiny("1.0.0"))
        await put_live(made, tiny("1.1.0"))

    monkeypatch.setattr(ResidentVersion, "_pass", noted)
    within(tmp_path, scene)
    assert passes == [1, 64, 1]


def test_parameters_are_views_of_the_arena_and_tied_ones_are_one(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, tiny())
        assert made.current is not None
        model = made.current.service._manager.model  # type: ignore[union-attr]
        addresses = sorted(p.data_ptr() for p in model.parameters())
        assert addresses[-1] - addresses[0] < tiny().size
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert not any(p.requires_grad for p in model.parameters())
        assert all(p.dtype is torch.bfloat16 for p in model.parameters())
        # The agent writes into the file; a view sees it, a copy would not.
        path, offset = tmp_path / "arena-a", tiny().parts[0].find(_bytes(model.model.norm.weight))
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(struct.pack("<H", 0x4120))
        assert float(model.model.norm.weight[0]) == 10.0

    within(tmp_path, scene)


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(device.host_bytes(tensor.detach()))


def change(name: str, value: tuple[TensorSpec, bytes] | None) -> Callable[[dict[str, Any]], None]:
    def apply(tensors: dict[str, Any]) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return apply


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, change=change(NORM, None))
    assert isinstance(error, LayoutMismatch)
    assert "1 tensor is missing" in error.message
    assert NORM not in error.message, "it leaves the pod, and names are confidential"


def test_more_layers_than_tensors_are_refused_before_any_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Blueprint.build

    def built(plan: Blueprint) -> object:
        return build(plan) if plan.config.num_hidden_layers < 1000 else pytest.fail("modules without end")

    monkeypatch.setattr(Blueprint, "build", built)
    config = json.loads((SAMPLES / "v1.0.0" / "config.json").read_text()) | {"num_hidden_layers": 100_000}
    error = refused(tmp_path, assets={"config.json": json.dumps(config).encode()})
    assert isinstance(error, LayoutMismatch)
    assert "says 100000 layers" in error.message


def test_an_unexpected_tensor_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, change=change("model.extra", (TensorSpec("BF16", (1,)), b"\0\0")))
    assert isinstance(error, LayoutMismatch)
    assert re.search(r"tensor \d+ of the index \(by name, from 0\) is unexpected", error.message)
    assert "extra" not in error.message


def test_another_shape_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, change=change(NORM, (TensorSpec("BF16", (32,)), bytes(64))))
    assert isinstance(error, LayoutMismatch)
    assert re.search(r"tensor \d+ of the index \(by name, from 0\) has another shape or dtype", error.message)
    assert NORM not in error.message


def test_many_differences_of_a_kind_are_said_once_and_the_tool_that_names_them_is_told() -> None:
    wanted = {f"blocks.{n:02}": TensorSpec("BF16", (64,)) for n in range(29)} | {"gone": TensorSpec("BF16", (1,))}
    given = {f"blocks.{n:02}": TensorSpec("BF16", (32,)) for n in range(29)} | {
        name: TensorSpec("BF16", (1,)) for name in ("new.0", "new.1")
    }
    with pytest.raises(LayoutMismatch) as refusal:
        weights.refuse_differences(weights.differences(wanted, given), against="the version that runs")
    assert refusal.value.message == (
        "the tensors are not those of the version that runs: 1 tensor is missing; "
        "tensors 29 and 30 of the index (by name, from 0) are unexpected; "
        "tensors 0, 1, 2, 3, 4 and 24 more of the index (by name, from 0) have another shape or dtype "
        "('modelparams diff' of it and one that ran, with the keys, names them)"
    )


def test_another_dtype_than_the_version_that_runs_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, change=change(NORM, (TensorSpec("F32", (64,)), struct.pack("<64f", *[1.0] * 64))))
    assert isinstance(error, LayoutMismatch)
    assert "has another shape or dtype" in error.message


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    config = (SAMPLES / "v1.1.0" / "config.json").read_bytes()
    config = config.replace(b"LlamaForCausalLM", b"MistralForCausalLM").replace(b'"llama"', b'"mistral"')
    error = refused(tmp_path, assets={"config.json": config})
    assert isinstance(error, LayoutMismatch)
    assert "MistralForCausalLM" in error.message


def test_why_a_model_does_not_run_is_told_without_its_shapes(tmp_path: Path) -> None:
    config = json.loads((SAMPLES / "v1.0.0" / "config.json").read_text())
    heads, size = config["num_attention_heads"], config["hidden_size"]
    head = config.get("head_dim") or size // heads

    def with_odd_heads(tensors: dict[str, Any]) -> None:
        """They fit the config, and attention cannot share them out."""
        for name in [name for name in tensors if name.endswith(("k_proj.weight", "v_proj.weight"))]:
            tensors[name] = (TensorSpec("BF16", ((heads - 1) * head, size)), bytes((heads - 1) * head * size * 2))

    told = {"config.json": json.dumps(config | {"num_key_value_heads": heads - 1}).encode()}

    async def scene(made: Swapper) -> None:
        with pytest.raises(LayoutMismatch) as error:
            await stage(made, tiny("1.0.0", change=with_odd_heads, assets=told))
        what = "the model of tiny-llama-1.0.0 did not run: a pass of it failed; the engine's log says more"
        assert error.value.message == what

    within(tmp_path, scene)


@pytest.mark.parametrize("pattern", [0x7FC0, 0x7F80, 0xFF80], ids=["NaN", "+Inf", "-Inf"])
def test_one_value_that_is_not_finite_is_refused(tmp_path: Path, pattern: int) -> None:
    values = struct.pack("<64H", *[0x3F80] * 63, pattern)
    error = refused(tmp_path, change=change(NORM, (TensorSpec("BF16", (64,)), values)))
    assert isinstance(error, NotFinite)
    assert re.search(r"tensor \d+ of the index .* holds NaN or infinity", error.message)
    assert NORM not in error.message


def test_tensors_that_are_not_those_published_are_refused(tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path, spoil_digest=True), IndexInvalid)


@pytest.mark.parametrize(
    ("assets", "kind"),
    [
        ({"config.json": None}, IndexInvalid),
        ({"config.json": b"{"}, IndexInvalid),
        ({"config.json": b'{"architectures": ["os.system"], "model_type": "llama"}'}, LayoutMismatch),
        ({"config.json": LLAMA + b', "head_dim": "x"}'}, LayoutMismatch),
        ({"tokenizer.json": None}, IndexInvalid),
        ({"tokenizer.json": b"{}"}, IndexInvalid),
        ({"generation_config.json": b'{"eos_token_id": "end"}'}, IndexInvalid),
        ({"generation_config.json": DEEP}, IndexInvalid),
        ({"tokenizer_config.json": DEEP}, IndexInvalid),
        ({"chat_template.jinja": b"\xff"}, IndexInvalid),
        ({"tokenizer_config.json": b'{"eos_token": 5}'}, IndexInvalid),
        ({"config.json": b'{"architectures": 5, "model_type": "llama"}'}, LayoutMismatch),
        ({"config.json": b'{"architectures": {"a": 1}, "model_type": "llama"}'}, LayoutMismatch),
        ({"generation_config.json": b'{"eos_token_id": ["x"]}'}, IndexInvalid),
        ({"generation_config.json": b'{"eos_token_id": [[1]]}'}, IndexInvalid),
        ({"generation_config.json": b'{"eos_token_id": 1.5}'}, IndexInvalid),
        ({"generation_config.json": b'{"eos_token_id": %d}' % (2**70)}, IndexInvalid),
        ({"generation_config.json": b'{"temperature": %d}' % (10**400)}, IndexInvalid),
        ({"generation_config.json": b'{"temperature": 1e999}'}, IndexInvalid),
        ({"generation_config.json": b'{"temperature": 2.5}'}, IndexInvalid),
        ({"generation_config.json": b'{"temperature": "hot"}'}, IndexInvalid),
        ({"generation_config.json": b'{"top_p": 1.5}'}, IndexInvalid),
        ({"chat_template.jinja": b"{% if %}"}, IndexInvalid),
        ({"config.json": with_positions(1)}, IndexInvalid),
        ({"config.json": with_positions(-5)}, IndexInvalid),
        ({"config.json": with_config(rms_norm_eps=math.nan)}, IndexInvalid),
        ({"config.json": with_config(rms_norm_eps={"__float__": "Infinity"})}, IndexInvalid),
    ],
)
def test_assets_that_make_no_model_are_refused(tmp_path: Path, assets: dict[str, bytes], kind: type) -> None:
    assert isinstance(refused(tmp_path, assets=assets), kind)


def test_a_region_outside_the_arena_is_refused(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        reserved = await made.reserve(tiny().reserve())
        assert reserved.slot is not None
        with pytest.raises(IndexInvalid):
            await made.prepare(tiny().prepare(reserved.slot))  # nothing was written: zeros are no index

    within(tmp_path, scene)


def test_a_prepare_without_an_arena_is_refused(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        with pytest.raises(IndexInvalid, match="no arena"):
            await made.prepare(tiny().prepare(next(iter(made.state().slots))))

    within(tmp_path, scene)


def test_a_dropped_version_is_freed(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        await put_live(made, tiny("1.0.0"))
        assert made.current is not None
        model = weakref.ref(made.current.service._manager.model)  # type: ignore[union-attr]
        await put_live(made, tiny("1.1.0"))
        await stage(made, tiny("1.2.0"))
        gc.collect()
        assert model() is None

    within(tmp_path, scene)


def test_a_reserved_slot_takes_only_the_version_it_was_reserved_for(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> None:
        reserved = await made.reserve(tiny("1.0.0").reserve())
        assert reserved.slot is not None
        with pytest.raises(IllegalTransition):
            await made.prepare(tiny("1.1.0").prepare(reserved.slot))
        assert made.state().slots[reserved.slot].filling == tiny("1.0.0").digest

    within(tmp_path, scene)


def test_untied_heads_that_differ_are_not_tied() -> None:
    model = AutoModelForCausalLM.from_pretrained(SAMPLES / "v1.0.0")
    given = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given["lm_head.weight"] += 1
    from modelparams_serving.engine.skeleton import blueprint

    made = blueprint(model.config.to_dict()).build()
    weights.bind(made, given)
    assert torch.equal(made.lm_head.weight, given["lm_head.weight"])
    assert torch.equal(made.model.embed_tokens.weight, given[HEAD])


def test_settings_bound_what_a_request_may_take(tmp_path: Path) -> None:
    async def scene(made: Swapper) -> int:
        await put_live(made, tiny())
        assert made.current is not None
        return made.current.service.context

    assert within(tmp_path, scene, num_blocks=4, page_tokens=16) == 64
    assert settings(tmp_path).forward_threads == 1
