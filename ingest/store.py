"""Stores batches for as long as it takes: waits for the database, sets aside what it refuses.

Rules:

1. A message is handed on as stored only after its transaction has committed.
2. While the database is away the same batch is tried again, ever more slowly; nothing is lost.
3. A batch that the database refuses for what is in it is halved until the message is found; that
   one is quarantined as `database_refused` and the others are stored.
4. When the database is away for longer than we have patience, what is not stored is handed back.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psycopg
from opentelemetry.trace import SpanContext
from psycopg import errors

from ingest.batch import Batch, build_batch, refused_batch
from ingest.decode import Registry
from ingest.metrics import IngestMetrics
from ingest.retry import Patience
from ingest.spool import BEGINNING, Position
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


class DatabaseAwayError(ZenthosError):
    """The database has been away for too long, or we stop; `messages` are not stored."""

    def __init__(self, cause: psycopg.Error, messages: Sequence[Publish] = ()) -> None:
        super().__init__(" ".join(str(cause).split()) or type(cause).__name__)
        self.cause = cause
        self.messages = list(messages)


class Work(NamedTuple):
    """Messages and what storing them writes."""

    messages: Sequence[Publish]
    batch: Batch
    replayed: Position | None = None
    """Where in the spool they end."""

    traced: Sequence[tuple[Publish, SpanContext]] = ()
    """Those that bring a sampled trace."""


class Store:
    """Puts work into the database; used by one thread at a time."""

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection],
        patience: Patience,
        *,
        worker_id: str,
        hot_days: int,
        metrics: IngestMetrics,
    ) -> None:
        self._connect = connect
        self._patience = patience
        self._worker_id = worker_id
        self._hot_days = hot_days
        self._metrics = metrics
        self._connection: psycopg.Connection | None = None
        self._writer: Writer | None = None
        self.waiting = threading.Event()
        """Set while the database is away."""

    def store(
        self, work: Work, registry: Registry, on_stored: Callable[[Work, Outcome], None]
    ) -> None:
        """Store work; `on_stored` is called for each part of it that has been committed.

        Raises:
            DatabaseAwayError: with the messages that are not stored.
        """
        parts = [work]
        while parts:
            part = parts.pop()
            try:
                outcome = self._persist(part)
            except REFUSED as error:
                parts += reversed(self._smaller(part, registry, error))
            except psycopg.Error as error:
                left = [message for p in (part, *reversed(parts)) for message in p.messages]
                raise DatabaseAwayError(error, left) from error
            else:
                on_stored(part, outcome)

    def answers(self) -> bool:
        """Whether the database can be used now."""
        try:
            self._open().execute("SELECT")
        except psycopg.Error:
            self.close()
            return False
        return True

    def replayed(self) -> Position:
        """How far this worker's spool has been replayed; raises psycopg.Error."""
        row = (
            self._open()
            .execute(
                "SELECT segment, position FROM ingest_spool WHERE worker_id = %s",
                [self._worker_id],
            )
            .fetchone()
        )
        return Position(*row) if row else BEGINNING

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._writer = None

    def _persist(self, work: Work) -> Outcome:
        def failed(error: BaseException, wait_s: float) -> None:
            self.waiting.set()
            self.close()
            logger.warning(
                "the database does not take %d messages, trying again in %.1f s: %s",
                *(len(work.messages), wait_s, str(error).strip()),
            )

        try:
            outcome = self._patience.call(
                lambda: self._write(work), again=is_outage, on_failure=failed
            )
        except psycopg.Error:
            self.close()
            raise
        self.waiting.clear()
        return outcome

    def _open(self) -> psycopg.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _write(self, work: Work) -> Outcome:
        connection = self._open()
        if self._writer is None:
            self._writer = Writer(connection, self._worker_id)
        started = time.perf_counter()
        times = {message.received_at for message in work.messages}
        outcome = self._writer.write(work.batch, times, work.replayed)
        self._metrics.db_write_latency.record(1e3 * (time.perf_counter() - started))
        return outcome

    def _smaller(self, work: Work, registry: Registry, error: psycopg.Error) -> list[Work]:
        """The halves of a batch, or its one message set aside; the last part ends where it did."""
        messages = work.messages
        if len(messages) == 1:
            detail = f"{error.sqlstate}: {error.diag.message_primary}"
            logger.warning("the database refuses a message: %s", detail)
            batch = refused_batch(messages[0], registry, self._hot_days, detail)
            return [Work(messages, batch, work.replayed)]
        half = len(messages) // 2
        first, last = messages[:half], messages[half:]
        return [
            Work(first, build_batch(first, registry, self._hot_days)),
            Work(last, build_batch(last, registry, self._hot_days), work.replayed),
        ]


def is_outage(error: BaseException) -> bool:
    """Whether an error is about the database and not about the data."""
    return isinstance(error, psycopg.Error) and not isinstance(error, REFUSED)
