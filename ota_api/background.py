"""Work that goes on beside the requests, and ends with the server."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Final

AGAIN_S: Final = 1.0


@asynccontextmanager
async def running(*works: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Works without end, while the block runs.

    A cancellation that arrives at the very moment that something is there is lost in `wait_for` of
    Python below 3.12, which the connection pool waits by: whoever is still at work is cancelled
    again.
    """
    tasks = {asyncio.create_task(work) for work in works}
    try:
        yield
    finally:
        while tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=AGAIN_S)
