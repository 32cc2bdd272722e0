"""A conversation with a scripted model server: a real one needs Ray and weights."""

from __future__ import annotations

import base64
import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

from ibllm_core.contract.chat import ChatRequest
from ibllm_core.contract.chat_answer import DONE
from tests.orchestrator.cli.conftest import Ibllm, command, in_process
from tests.orchestrator.client.scripted import ScriptedServer, as_json, refusal
from tests.orchestrator.client.test_chat import COMPLETION, piece, streamed


def asked(server: ScriptedServer) -> list[dict[str, Any]]:
    """The requests, each of which is one that the service takes."""
    bodies = [json.loads(request.body) for request in server.requests]
    for body in bodies:
        ChatRequest.model_validate(body)
    return bodies


def test_an_answer_is_printed_as_it_comes(ibllm: Ibllm, scripted: ScriptedServer) -> None:
    scripted.will_answer(streamed(piece(content="A c"), piece(content="at.\x1b[2J"), DONE))
    ended = ibllm("chat", "ft:m", "What is it?", "--system", "Be short.", "--max-tokens", "9")
    assert (ended.code, ended.out) == (0, "A cat.�[2J\n")
    assert asked(scripted) == [
        {
            "model": "ft:m",
            "max_tokens": 9,
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "What is it?"},
            ],
            "stream": True,
        }
    ]


def test_media_go_along_as_data(ibllm: Ibllm, scripted: ScriptedServer) -> None:
    for name in ("a.png", "b.wav", "c.mp4", "d.odd"):
        Path(name).write_bytes(name.encode())
    scripted.will_answer(streamed(DONE))
    media = ("--image", "a.png", "--image", "d.odd", "--audio", "b.wav", "--video", "c.mp4")
    assert ibllm("chat", "m", "?", *media).code == 0
    *parts, text = asked(scripted)[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "?"}
    assert [part["type"] for part in parts] == ["image_url", "image_url", "audio_url", "video_url"]
    urls = [part[part["type"]]["url"] for part in parts]
    assert urls[0] == "data:image/png;base64," + base64.b64encode(b"a.png").decode()
    assert [url.split(";")[0] for url in urls[2:]] == ["data:audio/x-wav", "data:video/mp4"]


def test_a_program_gives_the_prompt_and_takes_json(scripted: ScriptedServer) -> None:
    scripted.will_answer(as_json(COMPLETION.model_dump(mode="json")))
    ended = in_process("chat", "m", "--json", given="What is it?")
    assert json.loads(ended.out) == COMPLETION.model_dump(mode="json")
    assert asked(scripted)[0]["messages"] == [{"role": "user", "content": "What is it?"}]


def test_a_refusal_is_one_sentence(ibllm: Ibllm, scripted: ScriptedServer) -> None:
    scripted.will_answer(refusal(404, "there is no model 'm'"))
    ended = ibllm("chat", "m", "?")
    assert ended.code == 5 and ended.out == "" and "there is no model 'm'" in ended.err


def test_a_conversation_remembers_and_ends_with_ctrl_d(scripted: ScriptedServer) -> None:
    Path("a.png").write_bytes(b"picture")
    scripted.will_answer(streamed(piece(content="A cat."), DONE), streamed(piece(content="Black."), DONE))
    ours, theirs = pty.openpty()
    words = command("chat", "m", "--image", "a.png")
    with subprocess.Popen(words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.write(ours, b"What is it?\n\nWhat colour?\n\x04")
        out, err = process.communicate()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, err
    assert b"A cat." in out and b"Black." in out and b"Ctrl-D ends" in err
    question, answer, more = asked(scripted)[1]["messages"]
    assert [part["type"] for part in question["content"]] == ["image_url", "text"]
    assert answer == {"role": "assistant", "content": "A cat."}
    assert more == {"role": "user", "content": "What colour?"}
