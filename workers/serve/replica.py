"""A replica of the model server: a few models at a time, a bounded number of answers at once.

torch is imported where a replica starts: building the application needs none of it.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ibllm_core.contract.chat import ChatRequest
from ibllm_core.contract.chat_answer import error_event
from ibllm_core.contract.serving import ServedAdapter, ServerArgs, secret_hash
from workers.serve import refusals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ibllm_core.contract.sampling import Sampling
    from ibllm_core.model.generation import Request as ModelRequest
    from workers.serve.models import ServedModel

MAX_MODELS = 3
ANSWERS_AT_ONCE = 4


class ChatReplica:
    """Answers ``ChatRequest`` for the adapter that the header of multiplexing names, whole or in events."""

    def __init__(self, args: dict[str, Any]) -> None:
        import torch

        from ibllm_core.open_store import open_store
        from ibllm_core.settings import StorageSettings
        from workers.serve.models import Loader
        from workers.settings import WorkerSettings

        self._args = ServerArgs.model_validate(args)
        self._settings = WorkerSettings()
        self._threads = ThreadPoolExecutor(ANSWERS_AT_ONCE, thread_name_prefix="answer")
        self._loader = Loader(open_store(StorageSettings()), self._settings.ibllm_cache, gpus=self._args.gpus)
        # Ray would have it compute on one core; what reserves none may use all.
        torch.set_num_threads(max(1, int(self._args.cpus)) if self._args.cpus else os.cpu_count() or 1)

    async def __call__(self, http: Request) -> Response:
        """One request of the service."""
        if not self._knows(http.headers.get("authorization", "")):
            return _refused(refusals.UNKNOWN_CALLER)
        try:
            asked = ChatRequest.model_validate_json(await http.body())
        except ValidationError as error:
            return _refused(refusals.of_request(error))
        try:
            model = await self.model(serve.get_multiplexed_model_id())
        except Exception as error:
            return _refused(refusals.of_load(error))
        try:
            prompt, sampling = await asyncio.to_thread(self._prepare, model, asked)
            return await self._answered(model, asked, prompt, sampling)
        except Exception as error:
            return _refused(refusals.of_request(error))

    @serve.multiplexed(max_num_models_per_replica=MAX_MODELS)  # type: ignore[untyped-decorator]
    async def model(self, key: str) -> ServedModel:
        """The model of a key, loaded where it is not yet; Serve lets go of the one that was used least lately."""
        return await asyncio.to_thread(self._loader.load, ServedAdapter.of_key(key))

    def _knows(self, authorization: str) -> bool:
        given = secret_hash(authorization.removeprefix("Bearer "))
        return hmac.compare_digest(given, self._args.secret_sha256)

    def _prepare(self, model: ServedModel, asked: ChatRequest) -> tuple[ModelRequest, Sampling]:
        """Everything that may be wrong with a request is found here, before the answer begins."""
        from ibllm_core.contract.sampling import Sampling
        from ibllm_core.model.generation import Request as ModelRequest
        from workers.serve.conversation import answer_limit, conversation_of, prompt_tokens
        from workers.serve.media import read_all

        tokens = prompt_tokens(conversation_of(asked), model.base.tokenizer, model.template)
        media = read_all(asked, allow_private=self._settings.ibllm_private_urls)
        has_vector = bool(media) or model.sees_grey
        limit = answer_limit(asked, len(tokens) + model.llm.fusion.media_tokens * has_vector, model.context)
        vector = model.eyes.look(media) if media else model.eyes.grey() if model.sees_grey else None
        seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
        sampling = Sampling(
            max_new_tokens=limit,
            temperature=asked.temperature or 0.0,
            top_p=asked.top_p or 1.0,
            stop=asked.stop,
        )
        return ModelRequest(prompt=tokens, feature=vector, seed=seed), sampling

    async def _answered(
        self, model: ServedModel, asked: ChatRequest, prompt: ModelRequest, sampling: Sampling
    ) -> Response:
        from workers.serve.answers import Answer
        from workers.serve.generation import answer, in_thread

        num_positions = len(prompt.prompt) + model.llm.fusion.media_tokens * (prompt.feature is not None)
        told = Answer(model=asked.model, prompt_tokens=num_positions)
        pieces = in_thread(self._threads, partial(answer, model, prompt, sampling))
        if asked.stream:
            events = told.events(pieces, with_usage=asked.wants_usage)
            return StreamingResponse(_to_the_end(events), media_type="text/event-stream")
        return Response((await told.whole(pieces)).model_dump_json(), media_type="application/json")


async def _to_the_end(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes]:
    """Events, of which the last says what went wrong where something did: the status was sent long ago."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except Exception as error:
        yield error_event(refusals.of_request(error).body)


def _refused(refusal: refusals.Refusal) -> Response:
    return JSONResponse(refusal.body, status_code=refusal.status, headers=refusal.headers)
