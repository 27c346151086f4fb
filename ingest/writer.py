"""Stores a batch in one transaction: readings, predictions, device state, outbox, ledger.

Rows arrive by binary COPY. Where the database decides whether a row is new (readings and
predictions), they are copied into a temporary table and inserted from there.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple

import psycopg
from psycopg import errors

from ingest import pgcopy, rows
from ingest.batch import Batch, LedgerKey, utc_day
from ingest.partitions import Partitions, day_partition, drop_expired, raw_partition
from zenthos_core.messages import Status

_EPOCH: Final = date(1970, 1, 1)

_PREPARE: Final = """
CREATE TEMP TABLE IF NOT EXISTS staged_telemetry (LIKE telemetry_hot) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS staged_inference (LIKE inference_results) ON COMMIT DELETE ROWS;
"""

# `time` is the time of receipt where the device's clock is suspect, so the same message has
# another one when it comes again, and ON CONFLICT does not see it. OFFSET 0
# keeps the planner at one index look-up a row.
_DROP_SEEN: Final = """
DELETE FROM staged_telemetry s
WHERE (s.clock_suspect OR s.time > s.received_at) AND EXISTS (
  SELECT FROM telemetry_hot t
  WHERE t.message_id = s.message_id AND t.device_id = s.device_id OFFSET 0)
"""

_INSERT: Final = """
WITH inserted AS (
  INSERT INTO {table} ({columns}) SELECT {columns} FROM {staged}
  ON CONFLICT DO NOTHING
  RETURNING received_at, device_id
)
SELECT received_at::date - DATE '1970-01-01', device_id, count(*) FROM inserted GROUP BY 1, 2
"""

_LEDGER: Final = """
INSERT INTO ledger AS l (day, device_id, stored, duplicate, quarantined)
SELECT * FROM unnest(%b::date[], %b::text[], %b::int8[], %b::int8[], %b::int8[])
ON CONFLICT (day, device_id) DO UPDATE SET
  stored = l.stored + excluded.stored,
  duplicate = l.duplicate + excluded.duplicate,
  quarantined = l.quarantined + excluded.quarantined
"""

# A late reading moves nothing but last_seen.
_NEWEST: Final = (
    "coalesce(CASE WHEN to_timestamp(v.reading) > coalesce(d.last_reading, '-infinity')"
    " THEN v.{0} END, d.{0})"
)
_DEVICES: Final = f"""
UPDATE devices d SET
  last_seen = greatest(d.last_seen, to_timestamp(v.seen)),
  last_reading = greatest(d.last_reading, to_timestamp(v.reading)),
  battery_voltage = {_NEWEST.format("battery_voltage")},
  signal_strength = {_NEWEST.format("signal_strength")},
  firmware_version = {_NEWEST.format("firmware_version")},
  model_version = {_NEWEST.format("model_version")}
FROM unnest(%b::text[], %b::float8[], %b::float8[], %b::float8[], %b::float8[], %b::text[],
            %b::text[])
  AS v (id, seen, reading, battery_voltage, signal_strength, firmware_version, model_version)
WHERE d.id = v.id
"""

_STATUS: Final = """
UPDATE devices SET
  status = %s,
  uptime_seconds = coalesce(%s, uptime_seconds),
  free_heap_bytes = coalesce(%s, free_heap_bytes),
  boot_count = coalesce(%s, boot_count),
  reset_reason = coalesce(%s, reset_reason),
  firmware_version = coalesce(%s, firmware_version),
  model_version = coalesce(%s, model_version)
WHERE id = %s
"""


class Outcome(NamedTuple):
    """What became of the messages of a batch."""

    stored: int
    duplicate: int
    quarantined: int


class Writer:
    """Writes batches through one connection."""

    def __init__(self, connection: psycopg.Connection, hot_days: int) -> None:
        self._connection = connection
        self._hot_days = hot_days
        self._partitions = Partitions()
        connection.execute(_PREPARE)

    def write(self, batch: Batch, received_at: Collection[float]) -> Outcome:
        """Store a batch; it is committed when this returns.

        Raises:
            psycopg.Error: nothing of the batch is stored.
        """
        if not batch.received:
            return Outcome(0, 0, 0)
        hours = set(map(raw_partition, received_at))
        days = {day_partition("telemetry_hot", day) for day in batch.telemetry_days}
        if self._partitions.ensure(self._connection, hours | days):  # at least once an hour
            # A reading of one day may arrive until the hot window has passed the day's end.
            today = utc_day(max(received_at))
            drop_expired(self._connection, today - self._hot_days - 1)
        try:
            return self._write(batch)
        except (errors.UndefinedTable, errors.CheckViolation):
            # Someone dropped a partition that we remember: make it anew and try once more.
            self._partitions.forget()
            self._partitions.ensure(self._connection, hours | days)
            return self._write(batch)

    def _write(self, batch: Batch) -> Outcome:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            _copy(cursor, "raw_messages", rows.RAW_COLUMNS, batch.raw)
            _copy(cursor, "quarantine", rows.QUARANTINE_COLUMNS, batch.quarantine)
            inserted = _insert_telemetry(cursor, batch) + _insert_inference(cursor, batch)
            stored = batch.stored + inserted
            duplicate = batch.duplicate + (batch.staged - inserted)
            # The ledger first: its rows are locked in order, so that two workers who update the
            # same devices wait for each other instead of dead-locking.
            _update_ledger(cursor, stored, duplicate, batch.quarantined)
            _update_devices(cursor, batch)
        return Outcome(stored.total(), duplicate.total(), batch.quarantined.total())


def _copy(
    cursor: psycopg.Cursor, table: str, columns: Sequence[str], packed: Sequence[bytes]
) -> None:
    if packed:
        with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(pgcopy.stream(packed))


def _insert_telemetry(cursor: psycopg.Cursor, batch: Batch) -> Counter[LedgerKey]:
    if not batch.telemetry:
        return Counter()
    _copy(cursor, "staged_telemetry", rows.TELEMETRY_COLUMNS, batch.telemetry)
    if batch.clock_ahead:
        cursor.execute(_DROP_SEEN)
    return _insert(cursor, "telemetry_hot", "staged_telemetry", rows.TELEMETRY_COLUMNS)


def _insert_inference(cursor: psycopg.Cursor, batch: Batch) -> Counter[LedgerKey]:
    if not batch.inference:
        return Counter()
    _copy(cursor, "staged_inference", rows.INFERENCE_COLUMNS, batch.inference)
    return _insert(cursor, "inference_results", "staged_inference", rows.INFERENCE_COLUMNS)


def _insert(
    cursor: psycopg.Cursor, table: str, staged: str, columns: Sequence[str]
) -> Counter[LedgerKey]:
    """Move staged rows into their table; returns how many were new."""
    cursor.execute(_INSERT.format(table=table, staged=staged, columns=", ".join(columns)))
    return Counter({(day, device_id): count for day, device_id, count in cursor})


def _update_ledger(cursor: psycopg.Cursor, *counts: Counter[LedgerKey]) -> None:
    keys = sorted(set().union(*counts))
    cursor.execute(
        _LEDGER,
        [
            [_EPOCH + timedelta(days=day) for day, _ in keys],
            [device_id for _, device_id in keys],
            *([count[key] for key in keys] for count in counts),
        ],
    )


def _update_devices(cursor: psycopg.Cursor, batch: Batch) -> None:
    if not batch.last_seen:
        return
    newest = [batch.readings.get(device_id) for device_id in batch.last_seen]
    messages = [reading and reading.message for reading in newest]
    cursor.execute(
        _DEVICES,
        [
            list(batch.last_seen),
            list(batch.last_seen.values()),
            [reading and reading.time for reading in newest],
            [m and m.sensors.get("battery_voltage") for m in messages],
            [m and m.signal_strength for m in messages],
            [m and m.firmware_version for m in messages],
            [m and m.model_version for m in messages],
        ],
    )
    if batch.statuses:
        cursor.executemany(_STATUS, map(_status_row, batch.statuses))


def _status_row(status: Status) -> tuple[object, ...]:
    return (
        status.status,
        status.uptime_seconds,
        status.free_heap_bytes,
        status.boot_count,
        status.reset_reason,
        status.firmware_version,
        status.model_version,
        status.device_id,
    )
