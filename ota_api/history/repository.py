"""Readings and rollups of one device, in both planes, each by its index."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ota_api.history.fields import ROLLUPS, gold_columns, hot_columns
from ota_api.history.merge import Cursor
from ota_api.history.schemas import HistoryPoint, Resolution
from ota_api.planes import Plane, hot_value

LATE: Final = timedelta(hours=1)
TIMES_DIFFER_BY: Final = timedelta(seconds=1)
"""At most, between the planes, where a clock is not suspect."""
_READING: Final = "time, message_id, farm_id, received_at"
_IN_HOT: Final = """
SELECT message_id FROM telemetry_hot
WHERE device_id = %(device_id)s AND time >= %(first)s AND time <= %(last)s
  AND message_id = ANY(%(ids)s)"""
_SUSPECT_IN_HOT: Final = """
SELECT message_id FROM telemetry_hot
WHERE message_id = ANY(%(ids)s) AND (clock_suspect OR time > received_at)
  AND device_id = %(device_id)s"""


@dataclass(frozen=True)
class Question:
    """What is asked of a device."""

    device_id: str
    start: datetime
    end: datetime
    fields: list[str]
    after: Cursor | None
    limit: int

    def parameters(self, **more: Any) -> dict[str, Any]:
        """For the queries."""
        after = {"after": self.after.time, "after_id": self.after.message_id} if self.after else {}
        start = max(self.start, self.after.time) if self.after else self.start
        own = {"device_id": self.device_id, "start": start, "end": self.end, **after}
        return {**own, "limit": self.limit + 1, **more}


async def hot_readings(connection: AsyncConnection, asked: Question) -> list[HistoryPoint]:
    """As they came."""
    values = [f"{hot_value(field)} AS {field}" for field in asked.fields]
    columns = ", ".join([_READING, "clock_suspect", *values])
    rows = await _readings(connection, f"SELECT {columns} FROM telemetry_hot", asked)
    return [_reading(row, Plane.HOT, asked.fields) for row in rows]


async def cold_readings(analytical: AsyncConnection, asked: Question) -> list[HistoryPoint]:
    """As silver has cleaned them."""
    suspect = "'time' = ANY(string_to_array(quality, ',')) AS clock_suspect"
    columns = ", ".join([_READING, suspect, *asked.fields])
    rows = await _readings(analytical, f"SELECT {columns} FROM telemetry_historical", asked)
    return [_reading(row, Plane.ANALYTICAL, asked.fields) for row in rows]


async def known_to_hot(
    connection: AsyncConnection, device_id: str, cold: Sequence[HistoryPoint]
) -> set[UUID]:
    """Messages of these that the hot plane has too, perhaps under another time."""
    if not cold:
        return set()
    found: set[UUID] = set()
    bounds = {"first": cold[0].time - TIMES_DIFFER_BY, "last": cold[-1].time + TIMES_DIFFER_BY}
    suspect = [point.message_id for point in cold if point.clock_suspect]
    questions = [(_IN_HOT, [point.message_id for point in cold])]
    for query, ids in [*questions, *([(_SUSPECT_IN_HOT, suspect)] if suspect else [])]:
        values = {"device_id": device_id, "ids": ids, **bounds}
        cursor = await connection.execute(query.encode(), values)
        found |= {row[0] for row in await cursor.fetchall()}
    return found


async def gold_rollups(
    analytical: AsyncConnection, asked: Question, resolution: Resolution, days: list[date]
) -> list[HistoryPoint]:
    """Of the days that gold has built."""
    if not days:
        return []
    relation, bucket = ROLLUPS[resolution]
    is_daily = resolution is Resolution.DAILY
    day = bucket if is_daily else f"({bucket} AT TIME ZONE 'UTC')::date"
    columns = ", ".join(
        [f"{bucket} AS bucket", "farm_id, sample_count", *gold_columns(asked.fields)]
    )
    first, last = asked.start, asked.end - timedelta(microseconds=1)
    after = asked.after.time if asked.after else None
    bounds = [moment.date() if is_daily and moment else moment for moment in (first, last, after)]
    later = f"AND {bucket} > %(after)s" if after else ""
    query = (
        f"SELECT {columns} FROM {relation} WHERE device_id = %(device_id)s"
        f" AND {bucket} >= %(first)s AND {bucket} <= %(last)s {later} AND {day} = ANY(%(days)s)"
        f" ORDER BY {bucket} LIMIT %(limit)s"
    )
    named = dict(zip(("first", "last", "after"), bounds, strict=True))
    rows = await _rows(analytical, query, asked.parameters(days=days, **named))
    return [_rollup(row, Plane.ANALYTICAL) for row in rows]


async def hot_rollups(
    connection: AsyncConnection, asked: Question, resolution: Resolution, days: list[date]
) -> list[HistoryPoint]:
    """The same of the other days, computed as gold will."""
    if not days:
        return []
    unit = "hour" if resolution is Resolution.HOURLY else "day"
    later = f"AND time >= %(after)s + INTERVAL '1 {unit}'" if asked.after else ""
    columns = ", ".join(
        [
            f"date_trunc('{unit}', time) AS bucket",
            "(array_agg(farm_id ORDER BY time))[1] AS farm_id",
            "count(*) AS sample_count",
            *hot_columns(asked.fields),
        ]
    )
    query = (
        f"SELECT {columns} FROM telemetry_hot WHERE device_id = %(device_id)s"
        f" AND time >= %(start)s AND time < %(end)s {later}"
        " AND (time AT TIME ZONE 'UTC')::date = ANY(%(days)s)"
        " GROUP BY 1 ORDER BY 1 LIMIT %(limit)s"
    )
    rows = await _rows(connection, query, asked.parameters(days=days))
    return [_rollup(row, Plane.HOT) for row in rows]


async def _readings(
    connection: AsyncConnection, select: str, asked: Question
) -> list[dict[str, Any]]:
    later = "AND (time, message_id) > (%(after)s, %(after_id)s)" if asked.after else ""
    query = (
        f"{select} WHERE device_id = %(device_id)s AND time >= %(start)s AND time < %(end)s"
        f" {later} ORDER BY time, message_id LIMIT %(limit)s"
    )
    return await _rows(connection, query, asked.parameters())


def _reading(row: dict[str, Any], plane: Plane, fields: list[str]) -> HistoryPoint:
    return HistoryPoint(
        time=row["time"],
        plane=plane,
        farm_id=row["farm_id"],
        message_id=row["message_id"],
        received_at=row["received_at"],
        clock_suspect=row["clock_suspect"],
        late=row["received_at"] - row["time"] > LATE,
        values={field: row[field] for field in fields},
    )


def _rollup(row: dict[str, Any], plane: Plane) -> HistoryPoint:
    bucket, farm_id, count = row.pop("bucket"), row.pop("farm_id"), row.pop("sample_count")
    if not isinstance(bucket, datetime):
        bucket = datetime.combine(bucket, time(), UTC)
    return HistoryPoint(time=bucket, plane=plane, farm_id=farm_id, sample_count=count, values=row)


async def _rows(
    connection: AsyncConnection, query: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), values)
        return await cursor.fetchall()
