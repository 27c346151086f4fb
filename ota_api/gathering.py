"""Questions that come one by one, answered many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Gathered(Generic[Asked, Answer]):
    """What is asked while an answer is under way waits for the next, together: a fleet that comes
    at once costs a few statements, and who asks alone waits for nobody. An error is everybody's who
    asked with it. For one event loop.
    """

    def __init__(
        self, answer: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]], at_once: int
    ) -> None:
        """`answer` gives an answer for each that was asked, `at_once` at most, in their order."""
        self._answer = answer
        self._at_once = at_once
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._answering: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return self._answering is None

    async def ask(self, asked: Asked) -> Answer:
        """The answer, which is looked for after this has been asked."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._at_once]
                del self._waiting[: self._at_once]
                await self._answer_batch(batch)
        finally:
            self._answering = None

    async def _answer_batch(self, batch: list[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._answer([asked for asked, _ in batch])
        except Exception as error:  # noqa: BLE001 - it is theirs who wait
            for _, future in batch:
                if not future.done():  # who asked may have gone
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
