"""Questions to fine-tuned models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ibllm_core.contract.chat_answer import ChatChunk, ChatCompletion
from orchestrator.client.errors import NotReachableError, error_in_stream
from orchestrator.client.parsing import parse
from orchestrator.client.sse import require_events, server_events
from orchestrator.client.transport import Transport

PATH = "/chat/completions"
LOADING_SECONDS = 600.0  # a model that nobody has asked for lately is loaded first


class Chat:
    """``/v1/chat/completions``. A request is ``ibllm_core.contract.chat.ChatRequest`` as JSON, as OpenAI has it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def complete(self, request: Mapping[str, Any]) -> ChatCompletion:
        """A whole answer."""
        body = {**request, "stream": False}
        return self._transport.call(
            ChatCompletion, "POST", PATH, body=body, is_repeatable=True, read_timeout=LOADING_SECONDS
        )

    def stream(self, request: Mapping[str, Any]) -> Iterator[ChatChunk]:
        """An answer piece by piece; an error in the middle is raised where it comes."""
        with self._transport.stream(
            "POST", PATH, body={**request, "stream": True}, read_timeout=LOADING_SECONDS
        ) as response:
            require_events(response)
            for event in server_events(response.iter_bytes()):
                if event.data == "[DONE]":
                    return
                data = json.loads(event.data)
                if "error" in data:
                    raise error_in_stream(data["error"], response)
                yield parse(ChatChunk, data)
            raise NotReachableError("the answer broke off: ask again")
