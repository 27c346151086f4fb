"""Readings to cleaned readings; values in, values out.

1. A payload is decoded by bronze/readings.py; what breaks the wire rules goes to etl_errors
   (ingest quarantines it, so there should be none).
2. `time` is the device's timestamp, or the time of receipt where that cannot be (`clock_suspect`).
   A reading belongs to the UTC day of `time`.
3. Of a device's messages with the same `message_id`, the first received counts; of those received
   at once, the first in the order given. Another device's message of that id is another message.
4. A reading of a device that was never registered has no place: it goes to etl_errors.
5. Nothing else is dropped. `quality` names the columns that are not to be taken at face value:
   those out of range, and `time` where the clock was suspect.
6. `farm_id`, `device_model` and the coordinates are those of the placement at that time.
7. `weather_condition` is that of the farm in that hour, null where no station reported;
   `irrigation_event` says whether the farm was being irrigated, first moment included, last not.
8. The order is (bucket, device_id, time, message_id), so that slices by bucket, one after the
   other, are the whole.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import polars as pl

from zenthos_assets.bronze.readings import READING_SCHEMA
from zenthos_assets.silver.order import arrange
from zenthos_assets.silver.reference import Reference
from zenthos_core.plausible import PLAUSIBLE

RANGES: Final = PLAUSIBLE
"""A value outside is kept in silver, named by `quality`, and missing in gold."""

SCHEMA: Final = pl.Schema(
    {
        "bucket": pl.UInt16(),
        **READING_SCHEMA,
        "device_model": pl.String(),
        "farm_id": pl.String(),
        "latitude": pl.Float64(),
        "longitude": pl.Float64(),
        "weather_condition": pl.String(),
        "irrigation_event": pl.Boolean(),
        "quality": pl.String(),
    }
)
"""Columns of telemetry_cleaned; `bucket` is that of the device."""


def clean(readings: pl.DataFrame, reference: Reference, days: Iterable[date]) -> pl.DataFrame:
    """Rules 2 to 8 for the readings of those days: a frame of SCHEMA.

    Args:
        readings: READING_SCHEMA and `bucket`, those of a device in the order of receipt, whatever
            the days and devices; those of other days and of unregistered devices are left out.
        reference: what holds for those days and devices; more does no harm.
        days: the days to clean.
    """
    wanted = sorted(days)
    return (
        arrange(readings, wanted)
        .pipe(place, reference.placements, wanted)
        .pipe(_join_weather, reference.weather)
        .pipe(_flag_irrigation, reference.irrigation)
        .with_columns(quality=quality())
        .select(SCHEMA.names())
    )


def unregistered(readings: pl.DataFrame, placements: pl.DataFrame) -> pl.DataFrame:
    """The readings that `clean` leaves out for want of a placement (rule 4)."""
    unknown = set(readings["device_id"].unique()) - set(placements["device_id"])
    return readings.filter(pl.col("device_id").is_in(sorted(unknown)))


def place(readings: pl.DataFrame, placements: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """Rule 6: readings with their placement; those without one are left out.

    Nearly every device has one placement on a day: then it is a plain join.
    """
    spans = placement_spans(placements, days)
    placed = readings.join(  # a left join is ten times as fast as an inner one that keeps the order
        spans.with_columns(placed=True), on="device_id", how="left", maintain_order="left"
    )
    if placed["placed"].has_nulls():
        placed = placed.filter("placed")
    if not spans["device_id"].is_duplicated().any():
        return placed
    began = pl.col("begins").is_null() | (pl.col("begins") <= pl.col("time"))
    lasts = pl.col("ends").is_null() | (pl.col("time") < pl.col("ends"))
    return placed.filter(began & lasts)


def placement_spans(placements: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """Placements that hold at some time in a range of days, with `begins` and `ends`.

    The first of a device begins, and its last one ends, at null: never.
    """
    start, end = moments(days)
    earlier = pl.col("valid_from").shift(1).over("device_id")
    return (
        placements.sort("device_id", "valid_from")
        .with_columns(
            begins=pl.when(earlier.is_not_null()).then("valid_from"),
            ends=pl.col("valid_from").shift(-1).over("device_id"),
        )
        .filter(
            (pl.col("begins").is_null() | (pl.col("begins") < end))
            & (pl.col("ends").is_null() | (pl.col("ends") > start))
        )
        .drop("valid_from")
    )


def moments(days: Sequence[date]) -> tuple[datetime, datetime]:
    """The first moment of a range of days, and the first after it."""
    first, last = min(days), max(days) + timedelta(days=1)
    return _midnight(first), _midnight(last)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _join_weather(readings: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    if weather.is_empty():
        return readings.with_columns(weather_condition=pl.lit(None, pl.String))
    conditions = weather.select("farm_id", "hour", "weather_condition")
    return readings.with_columns(hour=pl.col("time").dt.truncate("1h")).join(
        conditions, on=["farm_id", "hour"], how="left", maintain_order="left"
    )


def _flag_irrigation(readings: pl.DataFrame, irrigation: pl.DataFrame) -> pl.DataFrame:
    """Whether the latest end of what had begun by then is still to come."""
    if irrigation.is_empty():
        return readings.with_columns(irrigation_event=pl.lit(False))
    events = irrigation.sort("begins").with_columns(until=pl.col("ends").cum_max().over("farm_id"))
    rows = readings.select("farm_id", "time").with_row_index("row")
    irrigated = (
        rows.join(events, on="farm_id", how="semi")
        .sort("time")
        .join_asof(
            events.select("farm_id", "begins", "until"),
            left_on="time",
            right_on="begins",
            by="farm_id",
            check_sortedness=False,
        )
        .filter(pl.col("time") < pl.col("until"))["row"]
    )
    return readings.with_columns(irrigation_event=rows["row"].is_in(irrigated.implode()))


def quality() -> pl.Expr:
    """Rule 5: names of columns, separated by commas; empty where all is well."""
    suspect = pl.when("clock_suspect").then(pl.lit("time"))
    outside = [
        pl.when(~pl.col(name).is_between(low, high)).then(pl.lit(name))
        for name, (low, high) in RANGES.items()
    ]
    return pl.concat_str([suspect, *outside], separator=",", ignore_nulls=True)


def group_days(
    contents: Sequence[tuple[date, str, int]], days: Sequence[date], max_rows: int
) -> list[tuple[list[date], list[str]]]:
    """Consecutive days with the objects to read for them, of about `max_rows` readings a group.

    Args:
        contents: (day, object key, readings of that day in it).
        days: the days wanted, in order; those without readings are grouped too.
        max_rows: a single larger day is a group of its own.
    """
    rows_of: dict[date, int] = {}
    keys_of: dict[date, set[str]] = {}
    for day, key, count in contents:
        rows_of[day] = rows_of.get(day, 0) + count
        keys_of.setdefault(day, set()).add(key)
    groups: list[list[date]] = [[]]
    size = 0
    for day in days:
        if groups[-1] and size + rows_of.get(day, 0) > max_rows:
            groups.append([])
            size = 0
        groups[-1].append(day)
        size += rows_of.get(day, 0)
    return [
        (group, sorted(set().union(*(keys_of.get(day, set()) for day in group))))
        for group in groups
        if group
    ]
