"""Fields that are not supported and would change an answer are refused: a silently different one is worse than none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Harmless = Mapping[str, tuple[object, ...]]
"""Fields that are not supported → the values of each that ask for nothing."""

_GENERATE: Harmless = {
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "prompt_logprobs": (None,),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "web_search_options": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None, "medium"),
    # vLLM's and other servers'
    "top_k": (None, -1, 0),
    "min_p": (None, 0),
    "typical_p": (None, 1),
    "repetition_penalty": (None, 1),
    "length_penalty": (None, 1),
    "use_beam_search": (None, False),
    "min_tokens": (None, 0),
    "ignore_eos": (None, False),
    "stop_token_ids": (None, []),
    "include_stop_str_in_output": (None, False),
    "skip_special_tokens": (None, True),
    "truncate_prompt_tokens": (None,),
    "bad_words": (None, []),
    "allowed_token_ids": (None,),
    "logits_processors": (None, []),
    "structured_outputs": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "guided_choice": (None,),
    "guided_grammar": (None,),
}
COMPLETION: Harmless = {**_GENERATE, "add_special_tokens": (None, True), "prompt_embeds": (None,)}
CHAT: Harmless = {
    **_GENERATE,
    "add_special_tokens": (None, False),
    "add_generation_prompt": (None, True),
    "continue_final_message": (None, False),
    "chat_template": (None,),
    "chat_template_kwargs": (None, {}),
    "documents": (None, []),
}
_TEXTS: Harmless = {"messages": (None,), "add_special_tokens": (None, True)}
EMBEDDING: Harmless = {
    **_TEXTS, "dimensions": (None,), "normalize": (None,), "use_activation": (None,), "embed_dtype": (None, "float32")
}  # fmt: skip
CLASSIFY: Harmless = {**_TEXTS, "activation": (None, True), "use_activation": (None, True), "softmax": (None, True)}


class Unsupported(ValueError):
    """A field that asks for what this server cannot do."""

    def __init__(self, param: str) -> None:
        super().__init__(f"{param} is not supported by this server")
        self.param = param


def refuse_unsupported(body: Mapping[str, Any], fields: Harmless) -> None:
    """Look at what a request asks by such fields.

    Raises:
        Unsupported: one of them asks for something.
    """
    for name, harmless in fields.items():
        if _asks(body.get(name), harmless):
            raise Unsupported(name)


def _asks(value: object, harmless: tuple[object, ...]) -> bool:
    """Whether a field's value asks for something. True is not 1 here: one wants log-probs, the other counts them."""
    return not any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in harmless)
