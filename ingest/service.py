"""The ingest service: receive, decode and store, acknowledge after the commit.

Two threads share the work. This one receives and decodes the next batch while the other waits
for the transaction of the last; no more than those two batches are ever in memory.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing
from functools import partial
from typing import Final

import psycopg
from opentelemetry import trace
from opentelemetry.context import Context, get_current

from ingest.backoff import delays_s
from ingest.batch import build_batch
from ingest.decode import Registry, device_ids
from ingest.metrics import IngestMetrics
from ingest.registry import DeviceRegistry
from ingest.store import StoppedError, Store, Work
from ingest.subscriber import Broker, Subscriber
from ingest.writer import Outcome
from zenthos_core.mqtt import MqttError

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

BATCH_BYTES: Final = 16 * 2**20
"""Most payload bytes in one transaction, give or take one read."""
WATCH_S: Final = 5.0


class Service:
    """Runs until it is told to stop."""

    def __init__(
        self,
        broker: Broker,
        connect: Callable[[], psycopg.Connection],
        *,
        batch_max: int,
        batch_wait_s: float,
        hot_days: int,
        metrics: IngestMetrics,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._broker = broker
        self._on_commit = on_commit
        self._batch_max = batch_max
        self._batch_wait_s = batch_wait_s
        self._hot_days = hot_days
        self._metrics = metrics
        self._stopping = threading.Event()
        self._registry = DeviceRegistry(connect)
        self._store = Store(connect, self._stopping, hot_days, metrics)
        self._pending: Future[None] | None = None
        self._connected = False
        self._registry_answers = False

    @property
    def ready(self) -> bool:
        """Whether broker and database were there when they were last used."""
        return self._connected and self._registry_answers and not self._store.waiting

    def stop(self) -> None:
        """Finish the batch in hand and end `run`; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Ingest, and connect again whenever the broker is lost, until stopped."""
        delays = delays_s()
        with ThreadPoolExecutor(1, "store") as executor, closing(self._registry):
            while not self._stopping.is_set():
                try:
                    with closing(Subscriber(self._broker)) as subscriber:
                        logger.info("connected to the broker as %s", self._broker.client_id)
                        self._connected, delays = True, delays_s()
                        self._serve(subscriber, executor)
                except (OSError, MqttError) as error:
                    delay_s = next(delays)
                    logger.warning("no broker, trying again in %.1f s: %s", delay_s, error)
                    self._stopping.wait(delay_s)
                except StoppedError as error:
                    logger.warning("%s: the broker keeps the messages", error)
                finally:
                    self._connected = False
            executor.submit(self._store.close)

    def _serve(self, subscriber: Subscriber, executor: ThreadPoolExecutor) -> None:
        while not self._stopping.is_set():
            messages = subscriber.receive(self._batch_max, BATCH_BYTES, self._batch_wait_s)
            registry = self._refresh_registry(subscriber, device_ids(messages))
            if messages:
                self._metrics.received.add(len(messages))
                with tracer.start_as_current_span(
                    "mqtt.batch", attributes={"messaging.batch.message_count": len(messages)}
                ):
                    with tracer.start_as_current_span("decode"):
                        work = Work(messages, build_batch(messages, registry, self._hot_days))
                    write = partial(self._write, subscriber, work, registry, get_current())
                self._await_pending(subscriber)
                self._pending = executor.submit(write)
        self._await_pending(subscriber)

    def _refresh_registry(self, subscriber: Subscriber, ids: set[str]) -> Registry:
        for delay_s in delays_s():
            try:
                registry = self._registry.refresh(ids)
            except psycopg.Error as error:
                self._registry_answers = False
                logger.warning("no device registry, trying again in %.1f s: %s", delay_s, error)
                subscriber.keep_alive()
                if self._stopping.wait(delay_s):
                    raise StoppedError("stopped while the database is away") from error
            else:
                self._registry_answers = True
                return registry
        raise AssertionError("delays never end")

    def _await_pending(self, subscriber: Subscriber) -> None:
        """Wait for the batch before, so that at most one is being written."""
        while self._pending is not None:
            try:
                self._pending.result(timeout=WATCH_S)
            except FutureTimeoutError:
                subscriber.keep_alive()
            else:
                self._pending = None

    def _write(
        self, subscriber: Subscriber, work: Work, registry: Registry, parent: Context
    ) -> None:
        with tracer.start_as_current_span("db.write", context=parent):
            self._store.store(work, registry, partial(self._committed, subscriber))

    def _committed(self, subscriber: Subscriber, work: Work, outcome: Outcome) -> None:
        """Acknowledge what is stored; only now may the broker forget it."""
        try:
            subscriber.acknowledge([m.packet_id for m in work.messages if m.packet_id])
        except OSError as error:
            logger.warning("stored, not acknowledged, will come again: %s", error)
        self._on_commit()
        self._metrics.committed(work.batch.reasons, **outcome._asdict())
        self._metrics.ingest_latency.record(1e3 * (time.time() - work.messages[0].received_at))
