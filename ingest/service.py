"""The ingest service: receive, decode and store, acknowledge after the commit.

While the database is away the broker keeps the messages; after a set time they go to the spool and
are acknowledged from there, until the database is back and has taken them over.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
import psycopg
from opentelemetry import trace

from ingest.limits import RateLimiter
from ingest.metrics import IngestMetrics
from ingest.outage import Outage
from ingest.pipeline import BATCH_BYTES, Pipeline
from ingest.registry import DeviceRegistry
from ingest.retry import Patience
from ingest.spool import Spool
from ingest.store import DatabaseAwayError, Store, Work
from ingest.subscriber import Broker, SessionTakenOverError, Subscriber
from ingest.tracing import handled
from ingest.writer import Outcome
from zenthos_core.mqtt import Message, MqttError, Publish

logger = logging.getLogger(__name__)

IDLE_S: Final = 0.2
BUSY_S: Final = 0.002
"""How long to wait for a message where none waits to be stored, and where some do."""
PROBE_S: Final = 1.0
PAUSE_S: Final = 0.2
TAKEN_OVER_S: Final = 10.0
"""Before connecting again; else two workers of one id would do nothing but take over."""
CAUGHT_UP: Final = 1_000
"""Fewer messages than this at once are no backlog."""
IDS_PER_ACK: Final = 100


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds the service."""

    batch_max: int
    hot_days: int
    spool_after_s: float


class Service:
    """Runs until it is told to stop."""

    def __init__(
        self,
        broker: Broker,
        connect: Callable[[], psycopg.Connection],
        spool: Spool,
        *,
        limits: Limits,
        limiter: RateLimiter,
        metrics: IngestMetrics,
        worker_id: str,
        on_commit: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._limits = limits
        self._limiter = limiter
        self._metrics = metrics
        self._on_commit = on_commit
        self._stopping = threading.Event()
        self._patience = Patience(self._stopping, limits.spool_after_s)
        self._registry = DeviceRegistry(connect)
        self._store = Store(
            connect,
            self._patience,
            worker_id=worker_id,
            hot_days=limits.hot_days,
            metrics=metrics,
        )
        bounds = {"batch_max": limits.batch_max, "hot_days": limits.hot_days}
        self._outage = Outage(spool, self._store, self._registry, limiter, metrics, **bounds)
        self._connected = False
        self._away = False
        self._caught_up_at: float | None = None

    @property
    def ready(self) -> bool:
        """Whether broker and database were there when they were last used."""
        return self._connected and not self._away and not self._store.waiting.is_set()

    @property
    def caught_up_at(self) -> float | None:
        """Since when (epoch seconds) every message has been taken in as it came, if it is so."""
        return self._caught_up_at if self.ready else None

    def stop(self) -> None:
        """Finish the batch in hand and end `run`; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Ingest, and connect again whenever the broker is lost, until stopped."""
        patience = Patience(self._stopping)
        with ThreadPoolExecutor(1, "store") as executor, closing(self._registry):
            while not self._stopping.is_set():
                subscriber = self._connect(patience)
                if subscriber is None:
                    break
                with closing(subscriber):
                    self._serve_until_lost(subscriber, executor)
            executor.submit(self._store.close)

    def _connect(self, patience: Patience) -> Subscriber | None:
        """A connection to the broker; None where we are stopped first."""

        def failed(error: BaseException, wait_s: float) -> None:
            logger.warning("no broker, trying again in %.1f s: %s", wait_s, error)

        try:
            subscriber = patience.call(
                lambda: Subscriber(self._broker), again=_is_broker_loss, on_failure=failed
            )
        except (OSError, MqttError) as error:
            logger.warning("stopped without a broker: %s", error)
            return None
        logger.info("connected to the broker as %s", self._broker.client_id)
        return subscriber

    def _serve_until_lost(self, subscriber: Subscriber, executor: ThreadPoolExecutor) -> None:
        pipeline = Pipeline(
            self._store,
            self._registry,
            self._limiter,
            self._patience,
            executor,
            batch_max=self._limits.batch_max,
            hot_days=self._limits.hot_days,
            on_stored=partial(self._stored, subscriber),
            on_wait=subscriber.keep_alive,
        )
        pause_s = PAUSE_S
        self._connected = True
        try:
            self._serve(subscriber, pipeline)
        except SessionTakenOverError as error:
            logger.error("%s", error)  # noqa: TRY400
            pause_s = TAKEN_OVER_S
        except (OSError, MqttError) as error:
            logger.warning("lost the broker: %s", error)
        finally:
            self._connected, self._caught_up_at = False, None
            pipeline.drop()
        self._stopping.wait(pause_s)

    def _serve(self, subscriber: Subscriber, pipeline: Pipeline) -> None:
        messages = self._endure(subscriber, []) if self._outage.pending else []
        while not self._stopping.is_set():
            try:
                pipeline.add(messages)
                wait_s = IDLE_S if pipeline.empty else BUSY_S
                messages = self._receive(subscriber, pipeline.room, wait_s)
            except DatabaseAwayError as error:
                logger.warning("the database is away: %s", error)
                messages = self._endure(subscriber, error.messages)
        try:
            pipeline.add(messages)
            pipeline.finish()
        except DatabaseAwayError as error:
            logger.warning(
                "stopped while the database is away; the broker keeps %d messages: %s",
                *(len(error.messages), error),
            )

    def _receive(self, subscriber: Subscriber, at_most: int, wait_s: float) -> list[Publish]:
        messages = subscriber.receive(at_most, BATCH_BYTES, wait_s)
        if messages:
            self._metrics.received.add(len(messages))
        if len(messages) > CAUGHT_UP:
            self._caught_up_at = None
        elif self._caught_up_at is None:
            self._caught_up_at = time.time()
        return messages

    def _endure(self, subscriber: Subscriber, messages: list[Publish]) -> list[Publish]:
        """Spool until the database is back and has what the spool held.

        Returns messages that the spool could not take; they are to be stored next.
        """
        self._away, self._caught_up_at = True, None
        probe_at = 0.0
        while not self._stopping.is_set():
            if messages and self._outage.keep(messages):
                subscriber.acknowledge([m.packet_id for m in messages if m.packet_id])
                messages = []
            if time.monotonic() >= probe_at:
                if self._replay(subscriber):
                    self._away = False
                    break
                probe_at = time.monotonic() + PROBE_S
            if messages:  # the spool is full: the broker keeps what comes
                subscriber.keep_alive()
                self._stopping.wait(IDLE_S)
            else:
                messages = self._receive(subscriber, self._limits.batch_max, IDLE_S)
        return messages

    def _replay(self, subscriber: Subscriber) -> bool:
        """Whether the database is there and has all of the spool."""
        if not self._store.answers():
            return False
        try:
            self._outage.replay(partial(self._stored, subscriber), subscriber.keep_alive)
        except DatabaseAwayError as error:
            logger.warning("the database is away again: %s", error)
            return False
        return True

    def _stored(self, subscriber: Subscriber, work: Work, outcome: Outcome) -> None:
        """Acknowledge what is committed; only now may the broker, or the device, forget it."""
        try:
            subscriber.acknowledge([m.packet_id for m in work.messages if m.packet_id])
            if work.batch.acks:
                subscriber.publish(_acks(work.batch.acks))
                self._metrics.acks.add(sum(map(len, work.batch.acks.values())))
        except OSError as error:
            logger.warning("stored, not acknowledged, will come again: %s", error)
        now = time.time()
        self._metrics.committed(work.batch.reasons, outcome)
        self._metrics.ingest_latency.record(1e3 * (now - work.messages[0].received_at))
        handled(work.traced, trace.get_current_span().get_span_context(), now)
        self._on_commit()


def _is_broker_loss(error: BaseException) -> bool:
    return isinstance(error, OSError | MqttError)


def _acks(acks: Mapping[str, Sequence[str]]) -> Iterator[Message]:
    """What tells devices of the ids they asked for, by topic."""
    for topic, ids in acks.items():
        for first in range(0, len(ids), IDS_PER_ACK):
            body = {"message_ids": ids[first : first + IDS_PER_ACK]}
            yield Message(topic, msgspec.json.encode(body))
