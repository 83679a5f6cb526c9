"""Text of a stream of tokens, and stop strings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from modelparams_serving.engine.text import TextStream

BYTES = Tokenizer(models.BPE({token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
BYTES.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES.decoder = decoders.ByteLevel()


def streamed(text: str, *stop: str) -> tuple[str, TextStream]:
    stream = TextStream(BYTES, stop)
    out = "".join(stream.push([token]) for token in BYTES.encode(text).ids)
    return out + stream.flush(), stream


@given(st.text(max_size=40))
def test_the_pieces_of_a_stream_are_the_text(text: str) -> None:
    assert streamed(text)[0] == text


def test_a_character_of_several_tokens_comes_whole() -> None:
    stream = TextStream(BYTES, ())
    ids = BYTES.encode("é").ids
    assert len(ids) == 2
    assert [stream.push([token]) for token in ids] == ["", "é"]


def test_nothing_of_a_stop_string_or_after_it_is_given_out() -> None:
    out, stream = streamed("one two three", "two", "three")
    assert (out, stream.stopped) == ("one ", True)


def test_what_might_become_a_stop_string_is_held_back_until_it_does_not() -> None:
    stream = TextStream(BYTES, ("END",))
    assert [stream.push([token]) for token in BYTES.encode("aENd").ids] == ["a", "", "", "ENd"]


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_a_stream_is_cut_where_the_first_stop_string_begins(text: str, stop: list[str]) -> None:
    out, stream = streamed(text, *stop)
    # A stop string counts when its last character has come, so the one that ends first wins.
    ends = [(end, min(text[:end].find(w) for w in stop if w in text[:end])) for end in range(1, len(text) + 1)
            if any(w in text[:end] for w in stop)]  # fmt: skip
    assert (out, stream.stopped) == ((text[: ends[0][1]], True) if ends else (text, False))
