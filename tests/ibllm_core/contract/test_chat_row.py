import base64
import json

import pytest

from ibllm_core.contract.chat_row import parse_row
from ibllm_core.errors import InvalidDataError

URL = "data:image/png;base64," + base64.b64encode(b"picture").decode()


def row(user: object, assistant: object = "A frog.") -> str:
    return json.dumps({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]})


def test_reads_text_and_picture() -> None:
    sample = parse_row(row([{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": URL}}]), 1)
    assert (sample.instruction, sample.answer, sample.image) == ("what?", "A frog.", b"picture")


def test_text_alone_has_no_picture() -> None:
    assert parse_row(row("what?"), 1).image is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ('{"messages": []}', "exactly one user and then one assistant"),
        ('{"messages": ["a", "b"]}', "exactly one user and then one assistant"),
        (row("what?", " "), "empty answer"),
        (row([{"type": "image_url", "image_url": {"url": URL}}]), "0 text parts"),
        (
            row([{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "http://a/b.png"}}]),
            "data URL",
        ),
        (
            row([{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": URL + "!"}}]),
            "base64 is broken",
        ),
        (row([{"type": "audio"}]), '"text" and "image_url" parts'),
        (row(None), '"text" and "image_url" parts'),
    ],
)
def test_a_bad_row_is_named_with_the_remedy(line: str, words: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        parse_row(line, 7)
    assert "row 7" in caught.value.message
    assert words in caught.value.message
