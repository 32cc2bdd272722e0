"""Messages become turns; what cannot be learnt from is said with its field."""

from __future__ import annotations

from typing import Any

import pytest

from ibllm_core.contract.media import Modality
from ibllm_core.errors import InvalidDataError
from ibllm_core.formats.sample import Media, Turn
from ibllm_core.formats.shapes.chat import read_chat, read_conversations
from tests.ibllm_core.formats.files import base64_of, chat_row, data_url, picture, sound

ASKED = {"role": "user", "content": "What is it?"}
ANSWERED = {"role": "assistant", "content": "A cat."}


def shows(part: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}, ANSWERED]}


def talks(question: str, **beside: object) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "A cat."}], **beside}


def test_a_sound_lies_in_its_part() -> None:
    part = {"type": "input_audio", "input_audio": {"data": base64_of(sound()), "format": "wav"}}
    assert read_chat(shows(part))[1] == (Media(modality=Modality.AUDIO, content=sound()),)


@pytest.mark.parametrize("url", ["https://x.org/a.png", "s3://bucket/a.png", "folder/a.png", "../a.png"])
def test_a_reference_is_kept_as_it_is(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert read_chat(shows(part))[1] == (Media(modality=Modality.IMAGE, where=url),)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_comes_first(role: str) -> None:
    assert read_chat({"messages": [{"role": role, "content": "Be brief."}, ASKED, ANSWERED]})[2] == "Be brief."


def test_many_turns() -> None:
    turns, _, _ = read_chat({"messages": [ASKED, ANSWERED, ASKED, ANSWERED]})
    assert turns == (Turn(instruction="What is it?", answer="A cat."),) * 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, 'no "messages"'),
        ({"messages": "hello"}, '"messages" is text, not a list'),
        ({"messages": []}, "no assistant message"),
        ({"messages": [ASKED]}, "no assistant message"),
        ({"messages": [ASKED, ASKED, ANSWERED]}, r"messages\[1\] is the second user message in a row"),
        ({"messages": [ASKED, ANSWERED, ANSWERED]}, r"messages\[2\] is the second assistant message"),
        ({"messages": [ANSWERED, ASKED]}, r"messages\[0\] is the assistant's, nothing was asked"),
        ({"messages": [ASKED, ANSWERED, ASKED]}, r"messages\[2\] is a question without an answer"),
        (
            {"messages": [ASKED, {"role": "system", "content": "x"}, ANSWERED]},
            r"messages\[1\] is a system message after",
        ),
        ({"messages": [{"role": "system", "content": "x"}, ASKED, ANSWERED], "system": "y"}, "keep one"),
        ({"messages": [ASKED, "A cat."]}, r"messages\[1\] is text, not an object"),
        ({"messages": [ASKED, {"role": "tool", "content": "x"}]}, "role is 'tool': write one of user"),
        ({"messages": [ASKED, {"role": 3, "content": "x"}]}, r"messages\[1\].role is a number, not text"),
        ({"messages": [ASKED, {"role": "assistant"}]}, r"messages\[1\].content is missing or null, not text"),
        ({"messages": [ASKED, ANSWERED | {"weight": 0}]}, "weight is not 1"),
        (chat_row(answer=" \n"), r"messages\[1\] is empty: give the assistant's message some text"),
        (chat_row(question=""), r"messages\[0\] is empty: ask something"),
        (chat_row(answer=7), r"messages\[1\].content is a number, not text"),  # type: ignore[arg-type]
        (chat_row(answer="a\0b"), "holds a NUL character"),
        (chat_row(answer="\ud800"), "half of a surrogate pair"),
        (chat_row(question="<image>What is it?"), "hold <image> 1 times, the row has 0"),
        (shows({"type": "image", "image": "a.png"}), r"content\[1\] is no part that can be read"),
        (shows("text"), r"content\[1\] is no part that can be read"),
        (shows({"type": "image_url", "image_url": "a.png"}), "image_url is text, not an object"),
        (shows({"type": "image_url", "image_url": {}}), "image_url.url is missing or null"),
        (shows({"type": "image_url", "image_url": {"url": data_url(b"hello, I am text")}}), "not hold image data"),
        (shows({"type": "input_audio", "input_audio": {"data": base64_of(picture())}}), "not hold audio data"),
        ({"messages": [ASKED, {"role": "assistant", "content": [{"type": "image_url"}]}]}, "only the user may send"),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        read_chat(row)


@pytest.mark.parametrize(
    "question", ["<image>\nWhat is it?", "What is it?\n<image>", "What is it?", "What <image> is it?"]
)
def test_a_marker_is_taken_out_wherever_it_stands(question: str) -> None:
    turns, media, _ = read_conversations(talks(question, image="a.png"))
    assert turns == (Turn(instruction="What is it?", answer="A cat."),)
    assert media == (Media(modality=Modality.IMAGE, where="a.png"),)


def test_llavas_films_are_marked_as_pictures() -> None:
    turns, media, _ = read_conversations(talks("<image>\nWhat happens?", video="a.mp4"))
    assert turns[0].instruction == "What happens?"
    assert media == (Media(modality=Modality.VIDEO, where="a.mp4"),)


@pytest.mark.parametrize("beside", [{}, {"image": None}, {"image": ""}, {"images": []}])
def test_a_row_without_a_picture_is_text(beside: dict[str, Any]) -> None:
    assert read_conversations(talks("What is it?", **beside))[1] == ()


def test_an_answer_may_talk_of_markers() -> None:
    row = {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "Write <image>."}]}
    assert read_conversations(row)[0][0].answer == "Write <image>."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image": "a.png"}, 'no "conversations"'),
        (talks("<image>\nWhat?"), r"<image> 1 times, the row has 0 .* each under \"image\" or \"images\""),
        (talks("<image><image>\nWhat?", image="a.png"), "<image> 2 times, the row has 1"),
        (talks("<image>\nWhat?", images=["a.png", "b.png"]), "<image> 1 times, the row has 2"),
        (talks("<video>What?", videos=[]), "<video> 1 times, the row has 0"),
        (talks("<audio>What?", audios=["a.wav", "b.wav"]), "<audio> 1 times, the row has 2"),
        (talks("<image>", image="a.png"), "a marker or a picture alone is no question"),
        (talks("What?", image=3), '"image" is a number'),
        (talks("What?", images=["a.png", None]), r'"images"\[1\] is missing or null'),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "x"}]}, r"\[0\].value is missing or null"),
        ({"conversations": [{"value": "x"}, {"from": "gpt", "value": "x"}]}, r"\[0\].role is missing or null"),
    ],
)
def test_a_bad_conversation_says_what_is_wrong(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidDataError, match=reason):
        read_conversations(row)
