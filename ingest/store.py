"""Stores batches for as long as it takes: waits for the database, sets aside what it refuses.

Rules:

1. A message is handed on as stored only after its transaction has committed.
2. While the database is away the same batch is tried again, ever more slowly, and nothing is lost.
3. A batch that the database refuses for what is in it is halved until the message is found; that
   one is quarantined as `database_refused` and the others are stored.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psycopg
from psycopg import errors

from ingest.backoff import delays_s
from ingest.batch import Batch, build_batch, refused_batch
from ingest.decode import Registry
from ingest.metrics import IngestMetrics
from ingest.writer import Outcome, Writer
from zenthos_core.errors import ZenthosError
from zenthos_core.mqtt import Publish

logger = logging.getLogger(__name__)

REFUSED: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
)
"""The database says that the data is at fault; every other error is about the database."""


class StoppedError(ZenthosError):
    """The service stops while the database is away: what is not stored will be delivered again."""


class Work(NamedTuple):
    """Messages and what storing them writes."""

    messages: Sequence[Publish]
    batch: Batch


class Store:
    """Puts work into the database; used by one thread."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection],
        stopping: threading.Event,
        hot_days: int,
        metrics: IngestMetrics,
    ) -> None:
        self._connect = connect
        self._stopping = stopping
        self._hot_days = hot_days
        self._connection: psycopg.Connection | None = None
        self._writer: Writer | None = None
        self._metrics = metrics
        self.waiting = False
        """Whether the database is away."""

    def store(
        self, work: Work, registry: Registry, on_stored: Callable[[Work, Outcome], None]
    ) -> None:
        """Store work; `on_stored` is called for each part of it that has been committed.

        Raises:
            StoppedError: the service stops before the database is back.
        """
        try:
            outcome = self._persist(work)
        except REFUSED as error:
            for part in self._smaller(work, registry, error):
                self.store(part, registry, on_stored)
        else:
            on_stored(work, outcome)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._writer = None

    def _persist(self, work: Work) -> Outcome:
        for delay_s in delays_s():
            try:
                outcome = self._write(work)
            except REFUSED:
                raise
            except psycopg.Error as error:
                self.waiting = True
                self.close()
                logger.warning(
                    "the database does not take %d messages, trying again in %.1f s: %s",
                    *(len(work.messages), delay_s, str(error).strip()),
                )
                if self._stopping.wait(delay_s):
                    raise StoppedError("stopped while the database is away") from error
            else:
                self.waiting = False
                return outcome
        raise AssertionError("delays never end")

    def _write(self, work: Work) -> Outcome:
        if self._connection is None or self._writer is None:
            self._connection = self._connect()
            self._writer = Writer(self._connection, self._hot_days)
        started = time.perf_counter()
        outcome = self._writer.write(work.batch, {m.received_at for m in work.messages})
        self._metrics.db_write_latency.record(1e3 * (time.perf_counter() - started))
        return outcome

    def _smaller(self, work: Work, registry: Registry, error: psycopg.Error) -> list[Work]:
        messages = work.messages
        if len(messages) == 1:
            detail = f"{error.sqlstate}: {error.diag.message_primary}"
            logger.warning("the database refuses a message: %s", detail)
            return [Work(messages, refused_batch(messages[0], registry, self._hot_days, detail))]
        half = len(messages) // 2
        return [
            Work(part, build_batch(part, registry, self._hot_days))
            for part in (messages[:half], messages[half:])
        ]
