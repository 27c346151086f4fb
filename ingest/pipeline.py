"""Decode on one thread, store on another: at most one batch being written and one in the making.

A batch is handed over as soon as the store is idle, so its size follows from the load: a few
messages where they trickle, thousands where they pour.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Final, NoReturn

import psycopg
from opentelemetry.context import Context, get_current
from opentelemetry.trace import Link

from ingest.batch import BatchBuilder
from ingest.decode import Registry, device_ids
from ingest.limits import RateLimiter
from ingest.registry import DeviceRegistry
from ingest.retry import Patience
from ingest.store import DatabaseAwayError, Store, Work, is_outage
from ingest.tracing import ns, sampled, tracer
from ingest.writer import Outcome
from zenthos_core.mqtt import Publish

logger = logging.getLogger(__name__)

BATCH_BYTES: Final = 16 * 2**20
"""Most payload bytes in one transaction, give or take one read."""
WATCH_S: Final = 2.0

OnStored = Callable[[Work, Outcome], None]


class Gathering:
    """A batch in the making."""

    def __init__(self, builder: BatchBuilder) -> None:
        self.builder = builder
        self.messages: list[Publish] = []
        self.size_bytes = 0
        self.decoding_since = 0.0
        self.decoded_at = 0.0

    def take(self, messages: Sequence[Publish]) -> None:
        """Take messages over; they are decoded next."""
        self.messages += messages
        self.size_bytes += sum([len(message.payload) for message in messages])

    def decode(self, messages: Sequence[Publish], registry: Registry) -> None:
        """Put messages where they belong."""
        self.decoding_since = self.decoding_since or time.time()
        self.builder.registry = registry
        add = self.builder.add
        for message in messages:
            add(message)
        self.decoded_at = time.time()


class Pipeline:
    """What has been received on its way into the database.

    Methods raise DatabaseAwayError with every message that is not stored, in order of arrival;
    the pipeline is then empty.
    """

    def __init__(
        self,
        store: Store,
        registry: DeviceRegistry,
        limiter: RateLimiter,
        patience: Patience,
        executor: ThreadPoolExecutor,
        *,
        batch_max: int,
        hot_days: int,
        on_stored: OnStored,
        on_wait: Callable[[], None],
    ) -> None:
        self._store = store
        self._registry = registry
        self._limiter = limiter
        self._patience = patience
        self._executor = executor
        self._batch_max = batch_max
        self._hot_days = hot_days
        self._on_stored = on_stored
        self._on_wait = on_wait
        self._gathering: Gathering | None = None
        self._writing: Future[None] | None = None

    def add(self, messages: Sequence[Publish]) -> None:
        """Take messages, and hand over what has gathered where the store is idle."""
        try:
            if messages:
                self._gather(messages)
            if self._gathering and (self._is_idle() or self._is_full(self._gathering)):
                self._submit(self._gathering)
        except psycopg.Error as error:
            self._give_back(error)
        except DatabaseAwayError as error:
            self._give_back(error.cause, error.messages)

    @property
    def room(self) -> int:
        """How many messages the batch in the making still takes."""
        return self._batch_max - (len(self._gathering.messages) if self._gathering else 0)

    @property
    def empty(self) -> bool:
        """Whether nothing is on its way."""
        return self._gathering is None and self._is_idle()

    def finish(self) -> None:
        """Store what has been taken."""
        while not self.empty:
            self._await_writing()
            self.add(())

    def drop(self) -> None:
        """Forget what is not stored: nobody can acknowledge it any more, so it will come again."""
        self._gathering = None
        try:
            self._await_writing()
        except DatabaseAwayError as error:
            logger.warning("%d messages will come again: %s", len(error.messages), error)

    def _gather(self, messages: Sequence[Publish]) -> None:
        gathering = self._gathering
        if gathering is None:
            builder = BatchBuilder({}, self._hot_days, self._limiter)
            gathering = self._gathering = Gathering(builder)
        gathering.take(messages)
        gathering.decode(messages, self._look_up(device_ids(messages)))

    def _look_up(self, ids: set[str]) -> Registry:
        def failed(error: BaseException, wait_s: float) -> None:
            logger.warning("no device registry, trying again in %.1f s: %s", wait_s, error)
            self._on_wait()

        return self._patience.call(
            lambda: self._registry.refresh(ids), again=is_outage, on_failure=failed
        )

    def _is_idle(self) -> bool:
        return self._writing is None or self._writing.done()

    def _is_full(self, gathering: Gathering) -> bool:
        return len(gathering.messages) >= self._batch_max or gathering.size_bytes >= BATCH_BYTES

    def _submit(self, gathering: Gathering) -> None:
        self._await_writing()
        self._gathering = None
        traced = sampled(gathering.messages)
        with tracer.start_as_current_span(
            "mqtt.receive",
            start_time=ns(gathering.messages[0].received_at),
            links=[Link(context) for _, context in traced],
            attributes={"messaging.batch.message_count": len(gathering.messages)},
        ):
            tracer.start_span("decode", start_time=ns(gathering.decoding_since)).end(
                ns(gathering.decoded_at)
            )
            work = Work(gathering.messages, gathering.builder.batch, traced=traced)
            write = partial(self._write, work, gathering.builder.registry, get_current())
        self._writing = self._executor.submit(write)

    def _write(self, work: Work, registry: Registry, parent: Context) -> None:
        with tracer.start_as_current_span("db.write", context=parent):
            self._store.store(work, registry, self._on_stored)

    def _await_writing(self) -> None:
        """Wait for the batch before; raises DatabaseAwayError where it could not be stored."""
        while self._writing is not None:
            try:
                self._writing.result(timeout=WATCH_S)
            except FutureTimeoutError:
                self._on_wait()
                continue
            except DatabaseAwayError:
                self._writing = None
                raise
            self._writing = None

    def _give_back(self, cause: psycopg.Error, unwritten: Sequence[Publish] = ()) -> NoReturn:
        """Raise with everything that is not stored, in order of arrival."""
        try:
            self._await_writing()
        except DatabaseAwayError as error:
            unwritten = error.messages
        gathered = self._gathering.messages if self._gathering else []
        self._gathering = None
        raise DatabaseAwayError(cause, [*unwritten, *gathered])
