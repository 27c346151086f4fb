"""What the operational database knows of rollouts and of what their devices have sent; reads only.

1. Updated devices are those that have the release by this rollout, or have confirmed a boot of it.
   Each is measured from then on, to the second, as devices tell time.
2. Control are devices that the rollout is for, by model, farm and tag, which it has not offered the
   release; where it has offered it to all, those that do not run it yet. Each is measured from the
   beginning of an updated one on, so that both sides saw the same hours of the day, and was heard
   of since.
3. The window begins with the first update and is WINDOW long at most. Of each side DEVICES devices
   at most are measured, always the same ones, so that a tick costs the same for any fleet.
4. The ranges are those of silver.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import cycle
from typing import Final
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from zenthos_assets.rollouts.transforms import Measured, Quality, compare
from zenthos_assets.silver.transforms import RANGES
from zenthos_core.messages import SENSOR_COLUMNS

WINDOW: Final = timedelta(hours=24)
DEVICES: Final = 200
READ_WITHIN_S: Final = 5.0
"""Longest that a statement of a tick may take."""

_RUNNING: Final = """
SELECT o.id, o.device_model, o.farm_id, o.tag, t.kind, t.name, t.version
FROM rollouts o JOIN release_targets t USING (release_id, device_model)
WHERE o.state = 'running' OR EXISTS (
  SELECT FROM deployments p WHERE p.rollout_id = o.id
    AND p.state IN ('pending', 'downloading', 'installing', 'rebooting'))
  OR o.id IN (
  SELECT p.rollout_id FROM deployments p WHERE p.state IN ('timed_out', 'aborted')
    AND p.confirmed_at > now() - INTERVAL '7 days')
ORDER BY o.created_at, o.id"""

_UPDATED: Final = """
SELECT device_id,
  greatest(date_trunc('second', coalesce(confirmed_at, changed_at)), %(floor)s) AS since
FROM deployments
WHERE rollout_id = %(id)s
  AND (state IN ('success', 'already-installed') OR confirmed_at IS NOT NULL)
ORDER BY hashtext(device_id), device_id LIMIT %(devices)s"""

_CONTROL: Final = """
SELECT d.id, d.last_seen FROM devices d
WHERE d.device_model = %(device_model)s AND d.decommissioned_at IS NULL
  AND (%(farm_id)s::uuid IS NULL OR d.farm_id = %(farm_id)s)
  AND (%(tag)s::text IS NULL OR d.tags @> ARRAY[%(tag)s::text])
  AND d.last_seen >= %(since)s AND d.{runs} IS DISTINCT FROM %(version)s
  AND NOT EXISTS (SELECT FROM deployments p WHERE p.rollout_id = %(id)s AND p.device_id = d.id
    AND ({excluded}))
ORDER BY hashtext(d.id), d.id LIMIT %(devices)s"""
_OFFERED: Final = "true"
_HAVE_IT: Final = "p.confirmed_at IS NOT NULL OR p.state IN ('success', 'already-installed')"


def _value(sensor: str) -> str:
    """The sensor's value in a row of telemetry_hot."""
    return sensor if sensor in SENSOR_COLUMNS else f"(extra->>'{sensor}')::float8"


VIOLATES: Final = " OR ".join(
    f"{_value(sensor)} NOT BETWEEN {low} AND {high}" for sensor, (low, high) in RANGES.items()
)
"""Rule 4, as a condition over telemetry_hot; null, hence not true, where no sensor is out."""

_BATTERY: Final = "battery_voltage BETWEEN {} AND {}".format(*RANGES["battery_voltage"])

_MEASURE: Final = f"""
SELECT c.device_id,
  extract(epoch FROM %(now)s - c.since)::float8 AS seconds,
  coalesce(d.report_interval_s, d.observed_interval_s) AS interval_s,
  t.readings, t.missing_seq, t.violations, t.slope_v_per_day, t.slope_s,
  i.predictions, i.confidence
FROM unnest(%(device_ids)s::text[], %(begins)s::timestamptz[]) AS c (device_id, since)
JOIN devices d ON d.id = c.device_id
CROSS JOIN LATERAL (
  SELECT count(*) AS readings,
    coalesce(sum(greatest(seq - previous - 1, 0)), 0)::int8 AS missing_seq,
    count(*) FILTER (WHERE {VIOLATES}) AS violations,
    regr_slope(battery_voltage, extract(epoch FROM time - c.since)::float8 / 86400)
      FILTER (WHERE {_BATTERY}) AS slope_v_per_day,
    coalesce(extract(epoch FROM max(time) FILTER (WHERE {_BATTERY})
      - min(time) FILTER (WHERE {_BATTERY})), 0)::float8 AS slope_s
  FROM (
    SELECT *, lag(seq) OVER (ORDER BY time, message_id) AS previous FROM telemetry_hot h
    WHERE h.device_id = c.device_id AND h.time >= c.since AND h.time >= %(floor)s
      AND h.time < %(now)s
  ) _
) t
CROSS JOIN LATERAL (
  SELECT count(*) AS predictions, avg(confidence) AS confidence FROM inference_results r
  WHERE r.device_id = c.device_id AND r.time >= c.since AND r.time < %(now)s
) i"""


Devices = Sequence[tuple[str, datetime]]
"""Ids, each with a moment."""


@dataclass(frozen=True)
class Rollout:
    """A rollout that goes on, and the release that it is about."""

    id: UUID
    device_model: str
    farm_id: UUID | None
    tag: str | None
    kind: str
    name: str
    version: str

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} {self.version} on {self.device_model}"


def running_rollouts(connection: psycopg.Connection) -> list[Rollout]:
    """Those that go on, or have devices at work to be concluded; the oldest first."""
    with connection.cursor(row_factory=class_row(Rollout)) as cursor:
        return cursor.execute(_RUNNING).fetchall()


def measure(connection: psycopg.Connection, rollout: Rollout, now: datetime) -> Quality | None:
    """Rules 1 to 4 at a moment; None where there is nothing to compare yet."""
    floor = now - WINDOW
    values = {**vars(rollout), "floor": floor, "devices": DEVICES}
    updated = connection.execute(_UPDATED, values).fetchall()
    if not updated:
        return None
    begin = min(since for _, since in updated)
    others = zip(_control(connection, rollout, begin), cycle(since for _, since in updated))
    control = [(device_id, since) for (device_id, seen), since in others if seen >= since]
    times = {"now": now, "floor": floor}
    return compare(
        _measured(connection, updated, times),
        _measured(connection, control, times),
        now=now.timestamp(),
        window_s=(now - begin).total_seconds(),
    )


def _control(connection: psycopg.Connection, rollout: Rollout, since: datetime) -> Devices:
    """Rule 2; each with when it was last heard of."""
    runs = "model_version" if rollout.kind == "model" else "firmware_version"
    values = {**vars(rollout), "since": since, "devices": DEVICES}
    for excluded in (_OFFERED, _HAVE_IT):
        query = _CONTROL.format(runs=runs, excluded=excluded)
        if found := connection.execute(query.encode(), values).fetchall():
            return found
    return []


def _measured(
    connection: psycopg.Connection,
    devices: Devices,
    times: dict[str, datetime],
) -> list[Measured]:
    values: dict[str, object] = {
        **times,
        "device_ids": [device_id for device_id, _ in devices],
        "begins": [since for _, since in devices],
    }
    with connection.cursor(row_factory=class_row(Measured)) as cursor:
        return cursor.execute(_MEASURE.encode(), values).fetchall()
