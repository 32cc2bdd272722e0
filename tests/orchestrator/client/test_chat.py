"""Answers of models, whole and piece by piece. The model server is scripted: a real one needs Ray and weights."""

from __future__ import annotations

import json

import pytest

from ibllm_core.contract.chat_answer import (
    DONE,
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    Choice,
    ChunkChoice,
    Delta,
    Usage,
    as_event,
    error_body,
    error_event,
)
from orchestrator.client import Client, NotFoundError, NotReachableError, ServerError
from tests.orchestrator.client.scripted import Answer, ScriptedServer, as_json

REQUEST = {"model": "ft:m", "messages": [{"role": "user", "content": "What is it?"}]}
USAGE = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
CHOICE = Choice(message=AnswerMessage(content="A cat."), finish_reason="stop")
COMPLETION = ChatCompletion(id="c", created=1, model="ft:m", choices=(CHOICE,), usage=USAGE)


def piece(**delta: str) -> bytes:
    choice = ChunkChoice(delta=Delta.model_validate(delta))
    return as_event(ChatChunk(id="c", created=1, model="ft:m", choices=(choice,)))


def streamed(*events: bytes) -> Answer:
    return Answer(body=b": loading\n\n" + b"".join(events), headers={"content-type": "text/event-stream"})


def test_a_whole_answer(scripted: ScriptedServer) -> None:
    scripted.will_answer(as_json(COMPLETION.model_dump(mode="json")))
    with Client(scripted.url, "k") as client:
        assert client.chat.complete(REQUEST) == COMPLETION
    assert json.loads(scripted.requests[0].body) == {**REQUEST, "stream": False}


def test_an_answer_piece_by_piece(scripted: ScriptedServer) -> None:
    scripted.will_answer(streamed(piece(role="assistant", content="A "), piece(content="cat."), DONE))
    with Client(scripted.url, "k") as client:
        chunks = list(client.chat.stream(REQUEST))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "A cat."


def test_an_error_in_the_middle_is_raised_where_it_comes(scripted: ScriptedServer) -> None:
    body = error_body("the model server went away", type="server_error", code="model_server_unavailable")
    scripted.will_answer(streamed(piece(content="A "), error_event(body)))
    with Client(scripted.url, "k") as client:
        answer = client.chat.stream(REQUEST)
        assert next(answer).choices[0].delta.content == "A "
        with pytest.raises(ServerError, match="went away") as raised:
            next(answer)
    assert raised.value.code == "model_server_unavailable"


def test_an_answer_that_breaks_off_is_not_taken_for_whole(scripted: ScriptedServer) -> None:
    scripted.will_answer(streamed(piece(content="A ")))
    with Client(scripted.url, "k") as client, pytest.raises(NotReachableError, match="broke off"):
        list(client.chat.stream(REQUEST))


def test_a_model_that_is_not_there_is_not_found(client: Client) -> None:
    for ask in (client.chat.complete, lambda request: list(client.chat.stream(request))):
        with pytest.raises(NotFoundError):
            ask(REQUEST)
