"""The tokenizer and the chat template, as they came sealed with a version: used in memory, never written to a disk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelparams.assets import Assets
from modelparams.errors import IndexInvalid

if TYPE_CHECKING:
    from tokenizers import Encoding

_FIRST = 16  # characters a token of a text that is cut: enough of it nearly always
_LAST = 64  # tokens; of the word, or line, that the cut went through
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Tokenizer:
    """tokenizer.json and the chat template."""

    def __init__(self, assets: Assets) -> None:
        self.backend = _backend(assets.tokenizer)
        self._render = _renderer(assets)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Give the token ids, with the model's own special tokens around them if wanted."""
        ids: list[int] = self._encoding(text, special=special).ids
        return ids

    def encode_start(self, text: str, most: int) -> list[int]:
        """Give at most `most` token ids: of the text's start, with all the special tokens that a whole text has.

        No more of a long text is read than that takes.
        """
        length = max(1, most) * _FIRST
        bare = self._encoding(text[:length], special=False)
        while length < len(text) and len(bare) < most + _LAST:  # the cut may have made other tokens of the last ones
            length *= 2
            bare = self._encoding(text[:length], special=False)
        bare.truncate(max(0, most - self.backend.num_special_tokens_to_add(False)))
        ids: list[int] = self.backend.post_process(bare).ids
        return ids

    def _encoding(self, text: str, *, special: bool) -> Encoding:
        encoding: Encoding  # by the batch, which lets the GIL go; `encode` does not
        (encoding,) = self.backend.encode_batch([text], add_special_tokens=special)
        return encoding

    def decode(self, ids: list[int]) -> str:
        """Give the text without special tokens."""
        text: str = self.backend.decode(ids, skip_special_tokens=True)
        return text

    def chat(self, messages: list[dict[str, Any]]) -> list[int]:
        """Give the prompt's ids for a conversation, ready for the assistant's turn.

        Raises:
            ValueError: the model has no chat template, or its template refuses the conversation.
        """
        return self.encode(self._render(messages), special=False)


@functools.lru_cache(maxsize=4)
def _backend(tokenizer_json: bytes) -> Any:
    """One object for equal bytes: parsing holds the interpreter for a while, and versions seldom change it."""
    from tokenizers import Tokenizer as Backend

    if not tokenizer_json:
        raise IndexInvalid("the version carries no tokenizer.json; save it with a fast tokenizer")
    try:
        backend = Backend.from_str(tokenizer_json.decode())
    except Exception as error:  # the library raises the bare Exception
        raise IndexInvalid("tokenizer.json cannot be used by this release of tokenizers") from error
    backend.no_padding()
    backend.no_truncation()
    return backend


def _renderer(assets: Assets) -> Callable[[list[dict[str, Any]]], str]:
    from jinja2 import TemplateError

    _check_template(assets.chat_template)
    special = {name: assets.tokenizer_config[name] for name in _SPECIAL if name in assets.tokenizer_config}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in special.items()}
    templates = _templates(assets.tokenizer, tuple(texts.items()))

    def render(messages: list[dict[str, Any]]) -> str:
        if not assets.chat_template:
            raise ValueError("this model has no chat template; use /v1/completions")
        try:
            text: str = templates.apply_chat_template(
                messages, chat_template=assets.chat_template, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise ValueError(f"the model's chat template refuses the messages: {error}") from error
        except Exception as error:  # an expression of the template that these messages do not suit
            raise ValueError(f"the model's chat template fails on the messages: {type(error).__name__}") from error
        return text

    return render


def _check_template(template: str) -> None:
    """Compile it, as the library does and then keeps: one that cannot be would fail every chat.

    Raises:
        IndexInvalid: it is no template.
    """
    from transformers.utils import chat_template_utils

    try:
        chat_template_utils._compile_jinja_template(template)
    except Exception as error:  # Jinja's, and those of the compiler that it hands Python to
        raise IndexInvalid(f"the chat template cannot be compiled: {type(error).__name__}") from error


@functools.lru_cache(maxsize=4)
def _templates(tokenizer_json: bytes, special: tuple[tuple[str, Any], ...]) -> Any:
    """What transformers renders chat templates with, in Jinja's sandbox; one object for equal bytes, as `_backend`.

    It copies the backend, for no use of ours, and that takes as long as all of a small version's layers do.
    """
    import transformers

    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(tokenizer_object=_backend(tokenizer_json), **dict(special))
