from typing import Any

import pytest
from pydantic import ValidationError

from ibllm_core.contract.chat import MAX_MEDIA, MAX_TEXT_CHARACTERS, ChatRequest
from ibllm_core.contract.media import Modality

USER = {"role": "user", "content": "what is this ?"}
ASSISTANT = {"role": "assistant", "content": "a cat ."}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png", "detail": "high"}}


def read(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": list(messages or [USER]), **fields})


def refusal(*messages: dict[str, Any], **fields: Any) -> str:
    """Path and words of the one problem."""
    with pytest.raises(ValidationError) as raised:
        read(*messages, **fields)
    (problem,) = raised.value.errors()
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def of_user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_a_text_is_a_list_of_one_part() -> None:
    assert read().messages[0] == read(of_user({"type": "text", "text": USER["content"]})).messages[0]
    assert read().messages[0].text == USER["content"]


@pytest.mark.parametrize("kind", [kind for kind in Modality if kind is not Modality.TEXT])
def test_every_kind_of_media_has_its_part(kind: Modality) -> None:
    part = {"type": f"{kind}_url", f"{kind}_url": {"url": "data:application/octet-stream;base64,AA=="}}
    assert [media.modality for media in read(of_user(part)).messages[0].media] == [kind]


def test_sound_may_come_as_openai_sends_it() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert read(of_user(part)).messages[0].media[0].modality is Modality.AUDIO


def test_what_the_sdk_gives_back_of_an_answer_may_be_sent_again() -> None:
    nothing = dict.fromkeys(["refusal", "annotations", "audio", "function_call", "tool_calls"])
    assert read(USER, {**ASSISTANT, **nothing}, USER).messages[1].text == "a cat ."


def test_what_changes_nothing_is_taken() -> None:
    harmless = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "n": 1,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "logprobs": False,
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "auto",
        "modalities": ["text"],
        "service_tier": "auto",
        "temperature": None,
        "stop": None,
        "stream": None,
    }
    assert read(**harmless) == read()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function"}]),
        ("logprobs", True),
        ("frequency_penalty", 0.5),
        ("response_format", {"type": "json_object"}),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("reasoning_effort", "high"),
    ],
)
def test_what_openai_can_and_we_cannot_is_refused_by_its_name(field: str, value: Any) -> None:
    said = refusal(**{field: value})
    assert said.startswith(f"{field}: ")
    assert said.endswith(": leave the field out")


def test_an_unknown_field_is_refused_by_its_name() -> None:
    assert refusal(top_q=1).startswith("top_q: ")
    assert refusal({**USER, "colour": 1}).startswith("messages.0.colour: ")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([USER, ASSISTANT], "do not end with the user's"),
        ([{"role": "system", "content": "be brief ."}], "do not end with the user's"),
        ([ASSISTANT, USER], "begin with the assistant's"),
        ([USER, {"role": "system", "content": "be brief ."}, USER], r"[1] is a system message after the first"),
        ([{"role": "system", "content": [IMAGE]}, USER], "[0] holds a medium, which only the user may send"),
        ([USER, {"role": "assistant", "content": None}, USER], "[1] is an answer without text"),
        ([of_user(*[IMAGE] * (MAX_MEDIA + 1))], "hold 17 media"),
        ([{"role": "user", "content": "a" * MAX_TEXT_CHARACTERS}, USER], "characters, at most"),
    ],
)
def test_messages_must_be_a_conversation_that_can_go_on(messages: list[dict[str, Any]], words: str) -> None:
    assert words in refusal(*messages)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url", "image_url": {"url": "s3://bucket/cat.png"}}, "neither a web address nor a data URL"),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, "neither a web address nor a data URL"),
        ({"type": "image_url", "image_url": {"url": "https://" + "a" * 5000}}, "more than 4096 characters"),
        ({**IMAGE, "text": "what ?"}, "holds text and image_url"),
        ({"type": "text"}, "holds nothing"),
        ({"type": "file", "file": {"file_id": "f"}}, "Input should be 'text', 'input_audio'"),
    ],
)
def test_a_part_that_cannot_be_read_is_refused(part: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        read(of_user(part))


def test_limits_have_two_names_and_one_value() -> None:
    assert read(max_tokens=5).token_limit == read(max_completion_tokens=5).token_limit == 5
    assert read().token_limit is None
    assert "give one of them" in refusal(max_tokens=5, max_completion_tokens=6)


def test_stream_options_need_a_stream() -> None:
    assert read(stream=True, stream_options={"include_usage": True}).wants_usage
    assert "needs stream" in refusal(stream_options={"include_usage": True})


def test_a_request_survives_its_way_to_the_model_server() -> None:
    asked = read(of_user({"type": "text", "text": "é ?"}, IMAGE), stop="\n", temperature=0.5, stream=True)
    assert ChatRequest.model_validate_json(asked.model_dump_json(exclude_none=True)) == asked


def test_without_messages_nothing_is_asked() -> None:
    with pytest.raises(ValidationError, match="add what is to be answered"):
        ChatRequest.model_validate({"model": "m", "messages": []})
