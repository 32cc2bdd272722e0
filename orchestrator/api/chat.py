"""``/v1/chat/completions``: try what was trained, with text, pictures, sounds, videos."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from ibllm_core.contract.chat import ChatRequest
from ibllm_core.contract.chat_answer import ChatCompletion
from orchestrator.api.dependencies import ModelsUser, SessionOf
from orchestrator.api.errors import Responses
from orchestrator.api.openapi import server_sent
from orchestrator.inference.disconnect import while_connected
from orchestrator.inference.gateway import Gateway, ServedModel
from orchestrator.jobs.parents import find_parent

router = APIRouter(prefix="/chat", tags=["chat"])
STREAM: Responses = {
    200: {
        "content": {"text/event-stream": {"schema": server_sent()}},
        "description": "A completion; with `stream` server-sent events, each a chunk of one, and `[DONE]` at the end",
    }
}


@router.post("/completions", response_model=ChatCompletion, responses=STREAM)
async def complete(body: ChatRequest, request: Request, caller: ModelsUser, session: SessionOf) -> Response:
    """Answer with a fine-tuned model or a checkpoint, which is loaded when it is first asked for."""
    found = await run_in_threadpool(find_parent, session, caller.project, body.model, param="model")
    await run_in_threadpool(session.close)  # an answer may take minutes, and needs no connection of the database
    served = ServedModel(id=body.model, base=found.base, encoder=found.encoder, adapter=found.prefix)
    gateway: Gateway = request.app.state.gateway
    answer = await while_connected(request, gateway.complete(body, served))
    if isinstance(answer, dict):
        return JSONResponse(answer)
    return StreamingResponse(answer, media_type="text/event-stream", headers={"cache-control": "no-store"})
