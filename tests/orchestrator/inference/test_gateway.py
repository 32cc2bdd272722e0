"""The service's way to a model server that does not come up."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ibllm_core.contract.chat import ChatRequest
from orchestrator.cluster.settings import RaySettings
from orchestrator.inference.errors import ModelServerError
from orchestrator.inference.gateway import Gateway, ServedModel
from orchestrator.inference.settings import ServingSettings

pytestmark = pytest.mark.anyio
MODEL = ServedModel(id="m", base="tiny", encoder="efficientnet-lite0", adapter="models/m")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "?"}], **fields})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cluster_that_does_not_answer_is_said_to(nobody: str, stream: bool) -> None:
    gateway = Gateway(ServingSettings(url=nobody, secret="s"), RaySettings(dashboard_url=nobody))
    with pytest.raises(ModelServerError, match=r"the model server does not start: Ray's dashboard at .* not answer"):
        await gateway.complete(request(stream=stream), MODEL)
    await gateway.aclose()


async def test_without_a_secret_nothing_is_served(nobody: str) -> None:
    gateway = Gateway(ServingSettings(url=nobody), RaySettings(dashboard_url=nobody))
    with pytest.raises(ModelServerError, match="IBLLM_SERVE_SECRET"):
        await gateway.ensure()
    await gateway.aclose()
