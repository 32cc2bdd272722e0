import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import pytest

from workers.serve.generation import in_thread

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def counting(stop: threading.Event, ended: threading.Event) -> Iterator[int]:
    """Numbers without end, until it is stopped."""
    number = 0
    while not stop.is_set():
        yield number
        number += 1
        stop.wait(0.001)
    ended.set()


async def test_leaving_early_stops_the_work() -> None:
    ended = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        async with aclosing(in_thread(threads, lambda stop: counting(stop, ended))) as numbers:
            assert [await anext(numbers) for _ in range(3)] == [0, 1, 2]
        assert await asyncio.to_thread(ended.wait, 5)


async def test_work_that_waits_for_a_thread_never_begins_once_nobody_waits_for_it() -> None:
    hold, begun = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(hold.wait)
        waiting = in_thread(threads, lambda stop: counting(stop, begun))
        task = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.set()
    assert not begun.is_set()


async def test_what_the_work_raises_is_raised_here() -> None:
    def failing(_: threading.Event) -> Iterator[int]:
        yield 1
        raise MemoryError("no room")

    with ThreadPoolExecutor(1) as threads:
        found = []
        with pytest.raises(MemoryError, match="no room"):
            async for number in in_thread(threads, failing):
                found.append(number)
    assert found == [1]
