"""One forwarder: reads what is committed, sends it, waits for confirmation, moves its cursor.

It runs in a thread of its own with a loop and a database connection of its own, and never raises
into ingest: whatever fails is tried again, from the cursor, until it succeeds or ingest stops.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import psycopg
from opentelemetry import trace
from opentelemetry.trace import Link
from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

from ingest.forward.cursor import Outbox
from ingest.forward.envelope import Envelope, Row, envelope_of
from ingest.forward.metrics import ForwardMetrics, Health
from ingest.forward.sink import Sink
from zenthos_core.errors import CursorError, InvalidMessageError

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

BATCH: Final = 500
"""Most messages between two moves of the cursor, and sent again after a failure."""
FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 30.0
POLL_S: Final = 0.25
"""Other workers' commits wake nobody here, nor does the end of an older transaction."""
STANDBY_S: Final = 3.0
"""How often a worker asks whether the one that forwards is gone."""
TIDY_S: Final = 10.0
GRACE_S: Final = 5.0
"""How long a stop waits for the batch in hand; what is cut off is sent again by the next start."""


class Forwarder:
    """Forwards the outbox to one sink while it runs."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[psycopg.AsyncConnection]],
        sink: Sink,
        metrics: ForwardMetrics,
    ) -> None:
        self.name = name
        self._connect = connect
        self._sink = sink
        self._outbox: Outbox | None = None
        self._sink_open = False
        self._up = True
        self._oldest_s: float | None = None
        self._tidied_at = -TIDY_S
        self._metrics = metrics
        metrics.watch(name, self._health)
        self._loop = asyncio.new_event_loop()
        self._woken = asyncio.Event()
        self._woken_by = trace.INVALID_SPAN_CONTEXT
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"forward-{name}", daemon=True)

    def start(self) -> None:
        """Begin; whether database and sink are there does not matter."""
        self._thread.start()

    def wake(self) -> None:
        """Something has been committed, in the current span; from any thread, and cheap."""
        self._woken_by = trace.get_current_span().get_span_context()
        self._signal(self._woken)

    def stop(self, *, wait: bool = True) -> None:
        """End after the batch in hand, or GRACE_S; returns once it has ended, if asked to."""
        self._signal(self._stopping)
        if wait:
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    def _signal(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody is there to be told
            self._loop.call_soon_threadsafe(event.set)

    async def _main(self) -> None:
        work = asyncio.create_task(self._forward())
        await self._stopping.wait()
        self._woken.set()
        _, unfinished = await asyncio.wait({work}, timeout=GRACE_S)
        if unfinished:
            logger.warning("forwarder %s stops in the middle of a batch", self.name)
            work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    async def _forward(self) -> None:
        retrying = AsyncRetrying(
            wait=wait_random_exponential(multiplier=FIRST_RETRY_S, max=LONGEST_RETRY_S),
            sleep=self._pause,
            before_sleep=self._report_outage,
            stop=lambda _: self._stopping.is_set(),
            retry_error_callback=lambda _: 0.0,  # what the last try would have returned
        )
        try:
            while not self._stopping.is_set():
                await self._idle(await retrying(self._step))
        finally:
            await self._close_sink()
            await self._close_outbox()

    async def _step(self) -> float:
        """Forward one batch; returns how long there is nothing to do unless woken."""
        try:
            outbox = self._outbox or await self._take_place()
            if outbox is None:
                self._up, self._oldest_s = True, None  # what is to be told, the other worker tells
                await self._pause(STANDBY_S)
                return 0.0
            self._woken.clear()
            rows = await outbox.read(BATCH)
            self._oldest_s = rows[0].received_at.timestamp() if rows else None
            await self._open_sink()
            if rows:
                await self._send(outbox, rows)
            await self._tidy(outbox)
        except (psycopg.Error, CursorError):
            await self._close_outbox()
            raise
        except Exception:
            await self._close_sink()
            raise
        self._report_recovery()
        return 0.0 if len(rows) == BATCH else POLL_S

    async def _send(self, outbox: Outbox, rows: Sequence[Row]) -> None:
        envelopes = self._envelopes(rows)
        with tracer.start_as_current_span(
            "forward",
            links=[Link(self._woken_by)] if self._woken_by.is_valid else [],
            attributes={
                "zenthos.forwarder": self.name,
                "messaging.batch.message_count": len(envelopes),
            },
        ):
            await self._sink.send(envelopes)
            await outbox.move(rows[-1].position, len(envelopes))
        self._metrics.moved(self.name, len(envelopes), len(rows) - len(envelopes))
        if len(rows) < BATCH:
            self._oldest_s = None

    def _envelopes(self, rows: Sequence[Row]) -> list[Envelope]:
        envelopes = []
        for row in rows:
            try:
                envelopes.append(envelope_of(row))
            except InvalidMessageError as error:
                logger.error(  # noqa: TRY400 - the reason says it all
                    "forwarder %s skips row %d of the outbox, on %s: %s",
                    *(self.name, row.position.id, row.topic, error),
                )
        return envelopes

    async def _take_place(self) -> Outbox | None:
        connection = await self._connect()
        try:
            self._outbox = await Outbox.open(connection, self.name)
        finally:
            if self._outbox is None:
                await connection.close()
        if self._outbox is not None:
            logger.info("forwarder %s has the cursor", self.name)
        return self._outbox

    async def _open_sink(self) -> None:
        if not self._sink_open:
            await self._sink.open()
            self._sink_open = True

    async def _tidy(self, outbox: Outbox) -> None:
        if time.monotonic() - self._tidied_at > TIDY_S:
            await outbox.tidy()
            self._tidied_at = time.monotonic()

    async def _close_sink(self) -> None:
        self._sink_open = False
        with suppress(Exception):  # it failed already, which is why it is closed
            await self._sink.close()

    async def _close_outbox(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            await outbox.close()

    async def _idle(self, seconds: float) -> None:
        """Wait for a commit or a stop, but not longer than this."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait for as long as this; a stop ends it, a commit does not."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _report_outage(self, state: RetryCallState) -> None:
        """One warning an outage, not one a try."""
        error = state.outcome.exception() if state.outcome else None
        logger.debug("forwarder %s fails", self.name, exc_info=error)
        if self._up:
            self._up = False
            kind = type(error).__name__
            logger.warning("forwarder %s waits, nothing is lost: %s: %s", self.name, kind, error)

    def _report_recovery(self) -> None:
        if not self._up:
            self._up = True
            logger.info("forwarder %s goes on", self.name)

    def _health(self) -> Health | None:
        if self._outbox is None and self._up:
            return None
        return Health(self._up, time.time() - self._oldest_s if self._oldest_s else 0.0)
