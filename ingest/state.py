"""Current state of devices in the database: moved by what a batch changes of it."""

from collections.abc import Collection, Mapping
from typing import Final

import psycopg

from ingest.devices import ALIVE, REPORTED, DeviceChange

# Only a reading that is newer than the last one moves what readings say.
_NEWER: Final = "to_timestamp(v.reading_at) > coalesce(d.last_reading, '-infinity')"
_NEWEST: Final = f"coalesce(CASE WHEN {_NEWER} THEN v.{{0}} END, d.{{0}})"
_TELLS: Final = (
    "v.presence IS NOT NULL AND to_timestamp(v.seen) >= coalesce(d.status_at, '-infinity')"
)
_WAKES: Final = "d.status IN ('unknown', 'offline')"

# A device that comes back after a day does not from then on report once a day: a longer pause
# counts as twice the usual one.
_INTERVAL: Final = f"""CASE WHEN NOT coalesce({_NEWER}, false) OR d.last_reading IS NULL
    THEN d.observed_interval_s
  WHEN d.observed_interval_s IS NULL
    THEN (v.reading_at - extract(epoch FROM d.last_reading)) / v.readings
  ELSE 0.8 * d.observed_interval_s + 0.2 * least(2 * d.observed_interval_s,
    (v.reading_at - extract(epoch FROM d.last_reading)) / v.readings) END"""

# Of the numbers from the last newest one to this one, `seqs` have come. A newer reading with a
# smaller number is a counter that began anew, of which nothing before is known.
_MISSING: Final = """greatest(0, d.missing_readings + CASE
  WHEN v.seq IS NULL OR d.last_seq IS NULL THEN 0
  WHEN (to_timestamp(v.seq_at), v.seq) <= (d.last_seq_at, d.last_seq) THEN -v.seqs
  WHEN v.seq > d.last_seq THEN v.seq - d.last_seq - v.seqs
  ELSE 0 END)"""
_COUNTS_ON: Final = (
    "(to_timestamp(v.seq_at), v.seq) > (d.last_seq_at, d.last_seq) OR d.last_seq IS NULL"
)

_UPDATE: Final = f"""
UPDATE devices d SET
  last_seen = greatest(d.last_seen, to_timestamp(v.seen)),
  status = CASE WHEN NOT ({_TELLS}) THEN d.status
    WHEN v.presence <> '{ALIVE}' THEN v.presence WHEN {_WAKES} THEN 'online' ELSE d.status END,
  status_at = CASE WHEN {_TELLS} AND (v.presence <> '{ALIVE}' OR {_WAKES})
    THEN to_timestamp(v.seen) ELSE d.status_at END,
  observed_interval_s = {_INTERVAL},
  last_reading = greatest(d.last_reading, to_timestamp(v.reading_at)),
  battery_voltage = {_NEWEST.format("battery_voltage")},
  signal_strength = {_NEWEST.format("signal_strength")},
  firmware_version = {_NEWEST.format("firmware_version")},
  model_version = {_NEWEST.format("model_version")},
  missing_readings = {_MISSING},
  last_seq = CASE WHEN {_COUNTS_ON} THEN coalesce(v.seq, d.last_seq) ELSE d.last_seq END,
  last_seq_at = CASE WHEN {_COUNTS_ON}
    THEN coalesce(to_timestamp(v.seq_at), d.last_seq_at) ELSE d.last_seq_at END
FROM unnest(
  %b::text[], %b::float8[], %b::text[], %b::float8[], %b::int8[], %b::float8[], %b::float8[],
  %b::text[], %b::text[], %b::int8[], %b::float8[], %b::int8[]
) AS v (id, seen, presence, reading_at, readings, battery_voltage, signal_strength,
  firmware_version, model_version, seq, seq_at, seqs)
WHERE d.id = v.id
"""

_REPORT: Final = """
UPDATE devices d SET
  uptime_seconds = coalesce(v.uptime_seconds, d.uptime_seconds),
  free_heap_bytes = coalesce(v.free_heap_bytes, d.free_heap_bytes),
  boot_count = coalesce(v.boot_count, d.boot_count),
  reset_reason = coalesce(v.reset_reason, d.reset_reason),
  firmware_version = coalesce(v.firmware_version, d.firmware_version),
  model_version = coalesce(v.model_version, d.model_version)
FROM unnest(
  %b::text[], %b::float8[], %b::int8[], %b::int8[], %b::text[], %b::text[], %b::text[]
) AS v (id, uptime_seconds, free_heap_bytes, boot_count, reset_reason, firmware_version,
  model_version)
WHERE d.id = v.id
"""


def update_devices(
    cursor: psycopg.Cursor, changes: Mapping[str, DeviceChange], again: Mapping[str, int]
) -> None:
    """Move the current state of these devices, by id.

    `again` is how many of a device's counted readings had come before.
    """
    if not changes:
        return
    seqs = [c.seqs - again.get(device_id, 0) for device_id, c in changes.items()]
    cursor.execute(_UPDATE, [list(changes), *_columns(changes.values()), seqs])
    reports = {device_id: c.report for device_id, c in changes.items() if c.report is not None}
    if reports:
        told = [[report.get(name) for report in reports.values()] for name in REPORTED]
        cursor.execute(_REPORT, [list(reports), *told])


def _columns(changes: Collection[DeviceChange]) -> list[list[object]]:
    """The columns of `v` from `seen` to `seq_at`."""
    newest = [change.reading for change in changes]
    return [
        [c.seen for c in changes],
        [c.presence for c in changes],
        [c.reading and c.reading_at for c in changes],
        [c.readings for c in changes],
        [m and m.sensors.get("battery_voltage") for m in newest],
        [m and m.signal_strength for m in newest],
        [m and m.firmware_version for m in newest],
        [m and m.model_version for m in newest],
        [c.seq for c in changes],
        [c.seq_at for c in changes],
    ]
