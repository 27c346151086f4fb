"""A device's history: what to ask of which plane, and what neither has.

1. Readings are asked of both planes: the hot one holds what gold has not built, the analytical one
   what is past the hot window, and each may hold what the other has lost.
2. Hours and days are asked of one plane each, as ota_api/planes.py has it. The range is widened to
   whole ones.
3. Missing are days of which readings are archived, and which neither plane has: past the retention
   (`retention`), or not built before they left the hot plane (`not_built`).
"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from psycopg import AsyncConnection

from ota_api.devices.repository import DeviceRepository
from ota_api.devices.service import get_device
from ota_api.history import repository
from ota_api.history.merge import Cursor, choose_resolution, describe_parts, merge
from ota_api.history.repository import Question
from ota_api.history.schemas import (
    AskedResolution,
    DeviceHistory,
    HistoryPoint,
    Resolution,
)
from ota_api.moments import MAX_DAYS, days_between
from ota_api.planes import (
    DAILY,
    HISTORICAL,
    HOURLY,
    MissingDays,
    describe_missing,
    first_hot,
    plan_days,
    read_archived,
    read_built,
)
from ota_api.resources import Resources
from zenthos_core.errors import InvalidInputError

_STEP: Final = {Resolution.HOURLY: timedelta(hours=1), Resolution.DAILY: timedelta(days=1)}
Found = tuple[list[HistoryPoint], Cursor | None, list[MissingDays]]


async def read_history(
    resources: Resources, connection: AsyncConnection, asked: Question, wanted: AskedResolution
) -> DeviceHistory:
    """A page.

    Raises:
        NotFoundError: where there is no such device.
        InvalidInputError: for a range that is too long or empty, or a key of another question.
        UnavailableError: where the analytical database is away.
    """
    _check_range(asked)
    device = await get_device(DeviceRepository(connection), asked.device_id)
    interval_s = device.report_interval_s or device.observed_interval_s
    resolution = _resolution(asked, wanted, interval_s)
    if resolution in _STEP:
        asked = _widen(asked, _STEP[resolution])
    today = datetime.fromtimestamp(resources.clock(), UTC).date()
    read = _read_raw if resolution is Resolution.RAW else _read_rollups
    points, cursor, missing = await read(resources, connection, asked, resolution, today)
    return DeviceHistory(
        device_id=asked.device_id,
        resolution=resolution,
        start=asked.start,
        end=asked.end,
        parts=describe_parts(points),
        missing=missing,
        items=points,
        next=cursor.encode() if cursor else None,
    )


async def _read_raw(
    resources: Resources,
    connection: AsyncConnection,
    asked: Question,
    resolution: Resolution,
    today: date,
) -> Found:
    """Rules 1 and 3. The hot plane first: what leaves it meanwhile, the other one has."""
    hot = await repository.hot_readings(connection, asked)
    days = _days(asked)
    archived = await read_archived(connection, days[0], days[-1])
    async with resources.analytical.reading() as analytical:
        cold = await repository.cold_readings(analytical, asked)
        built = await read_built(analytical, HISTORICAL, days)
    in_hot = await repository.known_to_hot(connection, asked.device_id, cold)
    points, key = merge(hot, cold, asked.limit, in_hot)
    before_hot = [d for d in days if d < first_hot(today, resources.settings.hot_days)]
    kept_from = today - timedelta(days=resources.settings.historical_days)
    past = [d for d in before_hot if d < kept_from and d in archived]
    unbuilt = [d for d in before_hot if d >= kept_from and d in archived and d not in built]
    missing = describe_missing(past, "retention", asked.device_id)
    missing += describe_missing(unbuilt, "not_built")
    return points, Cursor(resolution, *key) if key else None, missing


async def _read_rollups(
    resources: Resources,
    connection: AsyncConnection,
    asked: Question,
    resolution: Resolution,
    today: date,
) -> Found:
    """Rules 2 and 3."""
    days = _days(asked)
    archived = await read_archived(connection, days[0], days[-1])
    asset = HOURLY if resolution is Resolution.HOURLY else DAILY
    async with resources.analytical.reading() as analytical:
        built = await read_built(analytical, asset, days)
        plan = plan_days(days, today, resources.settings.hot_days, built, archived)
        gold = await repository.gold_rollups(analytical, asked, resolution, plan.gold)
    hot = await repository.hot_rollups(connection, asked, resolution, plan.hot)
    points, key = merge(hot, gold, asked.limit)
    missing = describe_missing(plan.missing, "not_built")
    return points, Cursor(resolution, *key) if key else None, missing


def _check_range(asked: Question) -> None:
    if asked.start >= asked.end:
        raise InvalidInputError("start is not before end: end is not included")
    if asked.end - asked.start > timedelta(days=MAX_DAYS):
        raise InvalidInputError(f"ask for at most {MAX_DAYS} days at once; /export has them all")


def _resolution(asked: Question, wanted: AskedResolution, interval_s: float | None) -> Resolution:
    """What is asked for; a further page is as fine as the first."""
    if wanted is AskedResolution.AUTO and asked.after is None:
        return choose_resolution(asked.end - asked.start, interval_s)
    own = asked.after.resolution if asked.after else None
    chosen = own if wanted is AskedResolution.AUTO else Resolution(wanted)
    if chosen is None or (own is not None and own is not chosen):
        raise InvalidInputError(f"after is of the resolution {own}: ask for the same")
    return chosen


def _widen(asked: Question, step: timedelta) -> Question:
    """To whole hours or days."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    start = asked.start - (asked.start - epoch) % step
    return replace(asked, start=start, end=asked.end + (epoch - asked.end) % step)


def _days(asked: Question) -> list[date]:
    return days_between(asked.start.date(), (asked.end - timedelta(microseconds=1)).date())
