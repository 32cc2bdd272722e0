"""An answer piece by piece: drawn in a thread, read on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from ibllm_core.contract.sampling import Sampling
from ibllm_core.data.text_stream import FinishReason, TextStream
from ibllm_core.model.generation import Decoder, Request
from workers.serve.models import ServedModel

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Text that is certain; ``num_tokens`` were drawn so far, ``finish`` is set on the last piece."""

    text: str
    num_tokens: int
    finish: FinishReason | None


def answer(model: ServedModel, request: Request, sampling: Sampling, stop: threading.Event) -> Iterator[Piece]:
    """Draw an answer token by token until it ends, or ``stop`` is set."""
    decoder = Decoder(model.llm, [request], sampling)
    stream = TextStream(model.base.tokenizer, model.end_tokens, sampling.stop, sampling.max_new_tokens)
    num_tokens = 0
    while stream.finish is None and not stop.is_set():
        text = stream.add(decoder.step()[0])
        num_tokens += 1
        if text or stream.finish:
            yield Piece(text=text, num_tokens=num_tokens, finish=stream.finish)


async def in_thread(threads: Executor, make: Callable[[threading.Event], Iterator[Item]]) -> AsyncGenerator[Item, None]:
    """What an iterator gives in a thread; leaving early sets the event that it was made with."""
    loop, stop = asyncio.get_running_loop(), threading.Event()
    queue: asyncio.Queue[Item | BaseException | None] = asyncio.Queue()

    def run() -> None:
        def give(item: Item | BaseException | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        try:
            for item in make(stop):
                give(item)
        except BaseException as error:
            give(error)
        else:
            give(None)

    work = threads.submit(run)
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        work.cancel()  # where it waits for a thread still
