"""Stores a batch in one transaction: readings, reports, device state, outbox, ledger.

Rows are copied straight into their tables, since nearly every message is new. Where one is not,
the transaction fails and is made again with the rows copied into temporary tables first, from
which those that are new are inserted; so it goes on until a batch had no duplicate.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg import errors

from ingest import pgcopy, rows
from ingest.batch import Batch, LedgerKey, Name
from ingest.partitions import Partitions, day_partition, raw_partition
from ingest.quarantine import Quarantined, storable
from ingest.rows import Table
from ingest.spool import Position
from ingest.state import update_devices
from zenthos_core.messages import Message, Telemetry

_EPOCH: Final = date(1970, 1, 1)

_PREPARE: Final = "CREATE TEMP TABLE IF NOT EXISTS staged_{0} (LIKE {0}) ON COMMIT DELETE ROWS"

# A message whose clock is suspect is stored under its time of receipt, so the same one has another
# `time` when it comes again, and no unique index sees it. OFFSET 0 keeps the planner at one look
# into the small index of such rows for each.
# Nor does a snapshot see what another worker is about to commit: batches with such messages wait
# for each other, before they hold anything else.
_DOUBTFUL_LOCK: Final = 0x7A656E646F756274  # any number that all workers agree on
_DOUBTFUL_STORED: Final = """
SELECT EXISTS (SELECT FROM {0} t WHERE t.message_id = ANY(%b::uuid[])
  AND (t.clock_suspect OR t.time > t.received_at))
"""
_DROP_STORED: Final = """
DELETE FROM staged_{0} s WHERE EXISTS (
  SELECT FROM {0} t WHERE t.message_id = s.message_id AND t.device_id = s.device_id
    AND (t.clock_suspect OR t.time > t.received_at) OFFSET 0)
"""
_INSERT: Final = """
INSERT INTO {0} ({1}) SELECT {1} FROM staged_{0} ON CONFLICT DO NOTHING
RETURNING device_id, message_id
"""

_QUARANTINE: Final = """
INSERT INTO quarantine AS q
  (fingerprint, received_at, last_received_at, occurrences, topic, device_id, payload, reason,
   detail)
SELECT fingerprint, to_timestamp(first), to_timestamp(last), count, topic, device_id, payload,
  reason, detail
FROM unnest(%b::bytea[], %b::float8[], %b::float8[], %b::int8[], %b::text[], %b::text[],
  %b::bytea[], %b::text[], %b::text[])
  AS v (fingerprint, first, last, count, topic, device_id, payload, reason, detail)
ON CONFLICT (fingerprint) DO UPDATE SET
  occurrences = q.occurrences + excluded.occurrences,
  last_received_at = greatest(q.last_received_at, excluded.last_received_at)
"""

_LEDGER: Final = """
INSERT INTO ledger AS l (day, device_id, stored, duplicate, quarantined, rate_limited)
SELECT * FROM unnest(%b::date[], %b::text[], %b::int8[], %b::int8[], %b::int8[], %b::int8[])
ON CONFLICT (day, device_id) DO UPDATE SET
  stored = l.stored + excluded.stored,
  duplicate = l.duplicate + excluded.duplicate,
  quarantined = l.quarantined + excluded.quarantined,
  rate_limited = l.rate_limited + excluded.rate_limited
"""

_REPLAYED: Final = """
INSERT INTO ingest_spool (worker_id, segment, position) VALUES (%s, %s, %s)
ON CONFLICT (worker_id) DO UPDATE SET segment = excluded.segment, position = excluded.position
"""


class Outcome(NamedTuple):
    """What became of the messages of a batch."""

    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    rate_limited: int = 0


class _StoredAlreadyError(Exception):
    """A message of the batch may be in its table under another time."""


class Writer:
    """Writes batches through one connection."""

    def __init__(self, connection: psycopg.Connection, worker_id: str) -> None:
        self._connection = connection
        self._worker_id = worker_id
        self._partitions = Partitions()
        self._expects_duplicates = False
        for table in rows.TABLES:
            connection.execute(_PREPARE.format(table.name))

    def write(
        self, batch: Batch, received_at: Collection[float], replayed: Position | None = None
    ) -> Outcome:
        """Store a batch; it is committed when this returns.

        `received_at` are the times of receipt of its messages; `replayed` is where in the
        worker's spool the batch ends.

        Raises:
            psycopg.Error: nothing of the batch is stored.
        """
        if not batch.received and replayed is None:
            return Outcome()
        needed = set(map(raw_partition, received_at))
        needed |= {day_partition(table, day) for table, day in batch.days}
        self._partitions.ensure(self._connection, needed)
        try:
            return self._write(batch, replayed)
        except (errors.UndefinedTable, errors.CheckViolation):
            # Someone dropped a partition that we remember: make it anew and try once more.
            self._partitions.forget()
            self._partitions.ensure(self._connection, needed)
            return self._write(batch, replayed)

    def _write(self, batch: Batch, replayed: Position | None) -> Outcome:
        if not self._expects_duplicates:
            try:
                with self._connection.transaction(), self._connection.cursor() as cursor:
                    _lock_doubtful(cursor, batch)
                    _copy_raw(cursor, batch)
                    _copy_all(cursor, batch)
                    return self._account(cursor, batch, set(), replayed)
            except (errors.UniqueViolation, _StoredAlreadyError):
                self._expects_duplicates = True
        with self._connection.transaction(), self._connection.cursor() as cursor:
            _lock_doubtful(cursor, batch)
            _copy_raw(cursor, batch)
            duplicates = batch.pending.keys() - _insert_new(cursor, batch)
            outcome = self._account(cursor, batch, duplicates, replayed)
        self._expects_duplicates = bool(duplicates)
        return outcome

    def _account(
        self,
        cursor: psycopg.Cursor,
        batch: Batch,
        duplicates: set[Name],
        replayed: Position | None,
    ) -> Outcome:
        """Everything but the messages themselves."""
        again = [batch.pending[name] for name in duplicates]
        stored = Counter([key for key, _ in batch.pending.values()])
        stored.subtract(key for key, _ in again)
        duplicate = batch.duplicate + Counter(key for key, _ in again)
        _quarantine(cursor, batch.quarantine.values())
        # Before the devices: its rows are locked in order, so that two workers who update the
        # same devices wait for each other instead of dead-locking.
        counts = (stored, duplicate, batch.quarantined, batch.rate_limited)
        _update_ledger(cursor, counts)
        update_devices(cursor, batch.devices, Counter(_counted(message for _, message in again)))
        if replayed is not None:
            cursor.execute(_REPLAYED, [self._worker_id, *replayed])
        return Outcome(*(count.total() for count in counts))


def _counted(messages: Iterable[Message]) -> Iterator[str]:
    """The device of each reading that has a place in its device's count."""
    for message in messages:
        if isinstance(message, Telemetry) and message.seq is not None:
            yield message.device_id


def _lock_doubtful(cursor: psycopg.Cursor, batch: Batch) -> None:
    if any(table.doubtful for table in batch.tables.values()):
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_DOUBTFUL_LOCK])


def _copy_raw(cursor: psycopg.Cursor, batch: Batch) -> None:
    _copy(cursor, "raw_messages", rows.RAW_COLUMNS, batch.raw)


def _copy(
    cursor: psycopg.Cursor, table: str, columns: Sequence[str], packed: Sequence[bytes]
) -> None:
    if packed:
        with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(pgcopy.stream(packed))


def _copy_all(cursor: psycopg.Cursor, batch: Batch) -> None:
    """Into the tables; raises where a message is there already."""
    for table in rows.TABLES:
        packed, doubtful = batch.tables[table.name]
        if doubtful and _any_stored(cursor, table, doubtful):
            raise _StoredAlreadyError
        _copy(cursor, table.name, table.columns, packed)


def _any_stored(cursor: psycopg.Cursor, table: Table, message_ids: list[bytes]) -> bool:
    cursor.execute(_DOUBTFUL_STORED.format(table.name), [[UUID(bytes=i) for i in message_ids]])
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def _insert_new(cursor: psycopg.Cursor, batch: Batch) -> set[Name]:
    """Insert the messages that are new; returns their names."""
    new: set[Name] = set()
    for table in rows.TABLES:
        packed, doubtful = batch.tables[table.name]
        if not packed:
            continue
        _copy(cursor, f"staged_{table.name}", table.columns, packed)
        if doubtful:
            cursor.execute(_DROP_STORED.format(table.name))
        cursor.execute(_INSERT.format(table.name, ", ".join(table.columns)))
        new |= {(device_id, message_id.bytes) for device_id, message_id in cursor}
    return new


def _quarantine(cursor: psycopg.Cursor, items: Collection[Quarantined]) -> None:
    if items:
        ordered = sorted(items, key=lambda item: item.fingerprint)
        columns = zip(*map(_quarantine_row, ordered), strict=True)
        cursor.execute(_QUARANTINE, [list(column) for column in columns])


def _quarantine_row(item: Quarantined) -> tuple[object, ...]:
    return (
        item.fingerprint,
        item.publish.received_at,
        item.last_received_at,
        item.occurrences,
        item.topic,
        item.device_id,
        item.publish.payload,
        item.reason,
        storable(item.detail),
    )


def _update_ledger(cursor: psycopg.Cursor, counts: Sequence[Counter[LedgerKey]]) -> None:
    keys = sorted(set().union(*counts))
    cursor.execute(
        _LEDGER,
        [
            [_EPOCH + timedelta(days=day) for day, _ in keys],
            [device_id for _, device_id in keys],
            *([count[key] for key in keys] for count in counts),
        ],
    )
