"""Chat with fine-tuned models by OpenAI's own client, over a real Ray Serve; the first test waits for all of it."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from ibllm_core.contract.serving import MODEL_HEADER
from orchestrator.inference.application import ServeApplication
from orchestrator.inference.gateway import ROUTE
from tests.orchestrator.inference.world import CONTEXT, World, until, world

QUESTION = "what is this ?"
ENDLESS = "red"  # the picture at which the model "second" never stops talking
BUSY, CALM = 50, 20  # per cent of a core
OTHER = {"name": "other", "import_path": "tests.orchestrator.inference.other:application", "route_prefix": "/other"}


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def client(served: World) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="anything", max_retries=0)


def ask(*urls: str, text: str = QUESTION) -> list[Any]:
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *pictures]}]


def picture(colour: str, *, missing: int = 0) -> str:
    content = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(content, "PNG")
    whole = content.getvalue()
    return "data:image/png;base64," + base64.b64encode(whole[: len(whole) - missing]).decode()


def test_a_stream_begins_while_the_model_is_loading(served: World) -> None:
    body = {"model": "second", "messages": ask(), "max_tokens": 3, "stream": True}
    with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, timeout=120) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.status_code == 200
    assert lines[0] == ": loading"
    assert [line[:6] for line in lines if line[0] != ":"] == ["data: "] * 6  # role, three words, why it ended, [DONE]


def test_the_answer_depends_on_the_picture_and_the_model_alone(client: openai.OpenAI) -> None:
    def answer(model: str, *urls: str) -> str:
        completion = client.chat.completions.create(model=model, messages=ask(*urls), max_tokens=8)
        return str(completion.choices[0].message.content)

    answers = [answer("second", picture("red")), answer("second", picture("blue")), answer("second"), answer("first")]
    assert len(set(answers)) == 4
    assert answer("second", picture("red")) == answers[0]


def test_a_stream_gives_the_same_answer_in_pieces(client: openai.OpenAI) -> None:
    request: dict[str, Any] = {"model": "second", "messages": ask(picture("blue")), "max_tokens": 8}
    whole = client.chat.completions.create(**request)
    chunks = list(client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    assert chunks[-1].usage == whole.usage
    assert whole.usage and (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (8, 8)


def test_a_seed_makes_a_drawn_answer_the_same_again(client: openai.OpenAI) -> None:
    def drawn(**seed: int) -> str:
        completion = client.chat.completions.create(
            model="second", messages=ask(picture("red")), max_tokens=20, temperature=2, **seed
        )
        return str(completion.choices[0].message.content)

    assert drawn(seed=1) == drawn(seed=1)
    assert len({drawn(seed=1), drawn(seed=2), drawn(), drawn()}) == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("messages", "limit", "param", "code", "words"),
    [
        (
            ask("data:image/png;base64,aGVsbG8="),
            8,
            "messages[0].content[1]",
            "invalid_data",
            "does not hold image data",
        ),
        (ask(picture("red", missing=60)), 8, "messages[0].content[1]", "invalid_data", "cannot be decoded"),
        (ask("http://127.0.0.1/cat.png"), 8, "messages[0].content[1]", "invalid_data", "not a public address"),
        (ask(), CONTEXT, "messages", "context_length_exceeded", "lower max_tokens"),
        (ask(text=" "), 8, "messages", "invalid_prompt", "ask something"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_the_answer_begins(
    client: openai.OpenAI, messages: list[Any], limit: int, param: str, code: str, words: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as refusal:
        client.chat.completions.create(model="second", messages=messages, max_tokens=limit, stream=stream)
    assert (refusal.value.param, refusal.value.code) == (param, code)
    assert refusal.value.type == "invalid_request_error"


def test_a_model_without_an_adapter_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="models/gone") as refusal:
        client.chat.completions.create(model="gone", messages=ask())
    assert refusal.value.code == "model_not_found"


def test_the_model_server_knows_its_service(served: World) -> None:
    headers = {MODEL_HEADER: "[]", "authorization": "Bearer guessed"}
    answer = httpx.post(f"{served.settings.url}{ROUTE}", headers=headers, json={"model": "second", "messages": ask()})
    assert answer.status_code == 401


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_its_answer(served: World, client: openai.OpenAI, stream: bool) -> None:
    request: dict[str, Any] = {"model": "second", "messages": ask(picture(ENDLESS)), "max_tokens": CONTEXT - 100}
    client.chat.completions.create(**{**request, "max_tokens": 1})  # so that no loading is taken for work
    (replica,) = served.replicas()
    if stream:
        events = client.chat.completions.create(**request, stream=True)
        next(iter(events))
        until(lambda: replica.cpu_percent(interval=0.3) > BUSY, 10)
        events.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1).chat.completions.create(**request)
    until(lambda: replica.cpu_percent(interval=0.3) < CALM, 10)


def test_an_idle_replica_goes_and_other_applications_stay(served: World) -> None:
    found = httpx.get(f"{served.cluster.dashboard_url}/api/serve/applications/", headers=served.cluster.headers).json()
    ours = found["applications"]["ibllm"]["deployed_app_config"]
    httpx.put(
        f"{served.cluster.dashboard_url}/api/serve/applications/",
        headers=served.cluster.headers,
        json={"http_options": found["http_options"], "applications": [ours, OTHER]},
        timeout=60,
    ).raise_for_status()
    changed = served.settings.model_copy(update={"max_replicas": 2})
    asyncio.run(ServeApplication(changed, served.cluster).ensure())
    until(lambda: served.applications() == {"ibllm": "RUNNING", "other": "RUNNING"}, 30)
    until(lambda: not served.replicas(), 30)
