"""Which plane a day's statistics come from, so that nothing is counted twice.

1. Today comes from the hot plane: gold has not built it, or not all of it.
2. A past day comes from gold once gold has built it after its end.
3. Another past day comes from the hot plane while that holds the whole of it.
4. An older day comes from gold, as far as gold has it. It is missing where readings of it are
   archived and it was never built.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from psycopg import AsyncConnection
from pydantic import BaseModel, Field

from ota_api.moments import start_of
from zenthos_core.plausible import PLAUSIBLE

HISTORICAL: Final = "gold/telemetry_historical"
HOURLY: Final = "gold/telemetry_hourly"
DAILY: Final = "gold/telemetry_daily"
"""Names in etl_runs."""
_EXTRA: Final = ("rainfall_mm", "soil_moisture_20cm", "soil_moisture_40cm")
"""Sensors that telemetry_hot has no column of."""


class Plane(StrEnum):
    """Where a value was read."""

    HOT = "hot"
    ANALYTICAL = "analytical"


class MissingDays(BaseModel):
    """Days of which something is archived that this answer does not have."""

    first: date
    last: date
    reason: str = Field(description="`retention` or `not_built`.")
    export: str = Field(description="The route that has it.")


@dataclass(frozen=True)
class DayPlan:
    """Rules 1 to 4, for some days."""

    gold: list[date]
    hot: list[date]
    missing: list[date]


def plan_days(
    days: Iterable[date],
    today: date,
    hot_days: int,
    built: Mapping[date, datetime],
    archived: Collection[date],
) -> DayPlan:
    """Rules 1 to 4; `built` says when gold has last built a day."""
    plan = DayPlan([], [], [])
    for day in days:
        is_whole = day in built and built[day] >= start_of(day + timedelta(days=1))
        if day >= today or (not is_whole and day >= first_hot(today, hot_days)):
            plan.hot.append(day)
        else:
            plan.gold.append(day)
            if day not in built and day in archived:
                plan.missing.append(day)
    return plan


def first_hot(today: date, hot_days: int) -> date:
    """The oldest day that the hot plane holds whole."""
    return today - timedelta(days=hot_days)


def in_ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """Runs of consecutive days as (first, last)."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and ranges[-1][1] + timedelta(days=1) == day:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def describe_missing(days: Iterable[date], reason: str, device_id: str = "") -> list[MissingDays]:
    """With the route that has them: cleaned readings, or as they arrived where none are built."""
    table = "bronze/telemetry" if reason == "not_built" else "silver/telemetry_cleaned"
    device = f"&device={device_id}" if device_id and reason != "not_built" else ""
    return [
        MissingDays(
            first=first,
            last=last,
            reason=reason,
            export=f"/export/{table}?from={first}&to={last}{device}",
        )
        for first, last in in_ranges(days)
    ]


async def read_built(
    analytical: AsyncConnection, asset: str, days: Iterable[date]
) -> dict[date, datetime]:
    """When each of the days was last built."""
    cursor = await analytical.execute(
        "SELECT partition::date, max(finished_at) FROM etl_runs"
        " WHERE asset = %s AND partition = ANY(%s) GROUP BY partition",
        (asset, [str(day) for day in days]),
    )
    return dict(await cursor.fetchall())


async def read_archived(connection: AsyncConnection, first: date, last: date) -> set[date]:
    """Days of which bronze has readings."""
    cursor = await connection.execute(
        "SELECT DISTINCT day FROM bronze_days WHERE day BETWEEN %s AND %s", (first, last)
    )
    return {row[0] for row in await cursor.fetchall()}


def hot_value(sensor: str) -> str:
    """A sensor's value in telemetry_hot, as SQL."""
    if sensor not in _EXTRA:
        return sensor
    number = f"(extra ->> '{sensor}')::double precision"
    return f"CASE WHEN jsonb_typeof(extra -> '{sensor}') = 'number' THEN {number} END"


def plausible(function: str, sensor: str) -> str:
    """An aggregate of the plausible values in telemetry_hot, as gold has it, as SQL."""
    low, high = PLAUSIBLE[sensor]
    value = hot_value(sensor)
    return f"{function}({value}) FILTER (WHERE {value} BETWEEN {low} AND {high})"
