"""Tiny sequence classifiers with random weights, saved as `save_pretrained` saves them: another seed, another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

MODEL = "tiny-classifier"
LABELS = {0: "bad", 1: "fair", 2: "good"}
_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "bad", "day", "fine", "good", "is", "it", "this", "was")
_SMALL: dict[str, Any] = {
    "vocab_size": len(_WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "initializer_range": 1.0,  # or all answers would be nearly the same
    "pad_token_id": 0,
}
_KINDS: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertForSequenceClassification),
    "llama": (LlamaConfig, LlamaForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
}


def classifier(directory: Path, seed: int = 0, *, kind: str = "bert", **changes: Any) -> Path:
    """Make one, with a tokenizer of a dozen words."""
    config_class, model_class = _KINDS[kind]
    labels = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
    torch.manual_seed(seed)
    model_class(config_class(**{**_SMALL, **labels, **changes})).save_pretrained(directory)
    _tokenizer().save_pretrained(directory)
    return directory


def _tokenizer() -> Any:
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
