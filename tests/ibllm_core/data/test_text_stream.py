from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibllm_core.data.text_stream import TextStream

END = 256


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8: the hardest case for streaming."""

    def decode(self, tokens: Sequence[int], *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(tokens).decode(errors="replace")


def pieces(text: str, stop: Sequence[str] = (), limit: int = 1000) -> tuple[list[str], TextStream]:
    stream, found = TextStream(Bytes(), frozenset({END}), stop, limit), []
    for token in [*text.encode(), END]:
        if stream.finish is None:
            found.append(stream.add(token))
    return found, stream


@given(st.text(max_size=40).filter(lambda text: "\ufffd" not in text))
def test_pieces_add_up_to_the_whole_text(text: str) -> None:
    found, stream = pieces(text)
    assert "".join(found) == text.lstrip()
    assert "\ufffd" not in "".join(found)
    assert stream.finish == "stop"


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_nothing_of_a_stop_string_is_ever_given(text: str, stop: list[str]) -> None:
    found, _ = pieces(text, stop)
    first = min((text.index(s) for s in stop if s in text), default=len(text))
    # A stop string is seen as soon as it is whole; another one that begins earlier may still be on its way.
    assert text[:first] == "".join(found)[:first]
    assert not any(s in "".join(found) for s in stop)


@given(st.text("abc", max_size=30), st.text("abc", min_size=1, max_size=4))
def test_text_ends_exactly_before_a_stop_string(text: str, stop: str) -> None:
    """So its beginning is held back until it is clear that it was none."""
    assert "".join(pieces(text, [stop])[0]) == text.partition(stop)[0]


def test_a_character_is_given_once_it_is_whole() -> None:
    found, _ = pieces("é!")
    assert found == ["", "é", "!", ""]


def test_the_limit_ends_an_answer() -> None:
    found, stream = pieces("abcdef", limit=3)
    assert ("".join(found), stream.finish) == ("abc", "length")


@pytest.mark.parametrize("stop", [[""], []])
def test_an_empty_stop_string_stops_nothing(stop: list[str]) -> None:
    assert "".join(pieces("abc", stop)[0]) == "abc"
