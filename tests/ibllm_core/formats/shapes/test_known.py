"""The shape of a set is that of most of its rows."""

from __future__ import annotations

import pytest

from ibllm_core.formats.shapes.known import (
    ALPACA,
    CAPTION,
    CHAT,
    CHOICE,
    LLAVA,
    QUESTION,
    SHAREGPT,
    Shape,
    present_keys,
    shape_of,
)


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([{"messages"}], CHAT),
        ([{"messages", "images"}], CHAT),
        ([{"conversations"}], SHAREGPT),
        ([{"items"}], SHAREGPT),
        ([{"conversations"}, {"conversations", "image"}, {"conversations"}], LLAVA),
        ([{"instruction", "input", "output", "text"}], ALPACA),
        ([{"instruction", "output", "image", "text"}], ALPACA),
        ([{"image", "text"}], CAPTION),
        ([{"audio", "caption"}], CAPTION),
        ([{"note"}, {"instruction"}, {"url", "caption"}], CAPTION),
        ([{"messages"}, {"url", "caption"}, {"url", "caption"}], CAPTION),
        ([{"image", "question", "answers"}], QUESTION),
        ([{"url", "question", "answer"}], QUESTION),
        ([{"image", "question", "answers", "caption"}], CAPTION),
        ([{"question", "choices", "answer"}, {"image", "question", "choices", "answer", "hint"}], CHOICE),
        ([{"question", "answer"}], None),
        ([{"text"}], None),
        ([{"image"}], None),
        ([], None),
    ],
)
def test_shape_of_rows(rows: list[set[str]], shape: Shape | None) -> None:
    assert shape_of([frozenset(keys) for keys in rows]) is shape


def test_a_column_that_is_null_is_no_key() -> None:
    assert present_keys({"image": None, "text": "a dot"}) == {"text"}
