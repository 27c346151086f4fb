"""What irrigation did to the soil, by event and device; values in, values out.

1. An event concerns the devices of its farm that reported within the hours around it.
2. Hours count whole: before are the last BEFORE_HOURS that ended by its start, after are the first
   AFTER_HOURS that began after it. `soil_change` is the highest after less the mean before.
3. The soil is dry again in the first hour after its highest whose mean is down at the mean before.
   That is looked for within LOOKAHEAD_DAYS, and null where it was not seen or nothing had risen.
4. A row is there once there is an hour before or after; `hours_before` and `hours_after` say how
   many there were. Later hours complete it.
"""

from datetime import timedelta
from typing import Final

import polars as pl

BEFORE_HOURS: Final = 6
AFTER_HOURS: Final = 24
LOOKAHEAD_DAYS: Final = 7

EVENTS_SCHEMA: Final = pl.Schema(
    {
        "event_id": pl.String(),
        "farm_id": pl.String(),
        "started_at": pl.Datetime("us", "UTC"),
        "duration_minutes": pl.Int64(),
        "water_volume_liters": pl.Float64(),
    }
)
RESPONSE_SCHEMA: Final = pl.Schema(
    {
        "device_id": pl.String(),
        "started_at": pl.Datetime("us", "UTC"),
        "event_id": pl.String(),
        "farm_id": pl.String(),
        "duration_minutes": pl.Int64(),
        "water_volume_liters": pl.Float64(),
        "soil_before": pl.Float64(),
        "soil_after_avg": pl.Float64(),
        "soil_after_max": pl.Float64(),
        "soil_change": pl.Float64(),
        "hours_before": pl.Int64(),
        "hours_after": pl.Int64(),
        "dry_again_hours": pl.Int64(),
    }
)


def responses(events: pl.DataFrame, hourly: pl.DataFrame) -> pl.DataFrame:
    """One row (RESPONSE_SCHEMA) for each event and device that has an hour before or after it.

    Args:
        events: EVENTS_SCHEMA.
        hourly: `device_id`, `farm_id`, `bucket` (hour, UTC) and `soil_avg` %, from a day before
            the first event to LOOKAHEAD_DAYS after the last.
    """
    hours = hours_around(events, hourly, AFTER_HOURS)
    before = pl.col("soil_avg").filter(pl.col("offset") < 0)
    after = pl.col("soil_avg").filter(pl.col("offset") >= 0)
    known = hours.group_by("device_id", *EVENTS_SCHEMA.names()).agg(
        soil_before=before.mean(),
        soil_after_avg=after.mean(),
        soil_after_max=after.max(),
        soil_change=after.max() - before.mean(),
        hours_before=before.count(),
        hours_after=after.count(),
    )
    return (
        known.join(_dry_again(events, hourly, known), on=["device_id", "event_id"], how="left")
        .select(RESPONSE_SCHEMA.names())
        .cast(RESPONSE_SCHEMA)
        .sort("device_id", "started_at", "event_id")
    )


def hours_around(events: pl.DataFrame, hourly: pl.DataFrame, after_hours: int) -> pl.DataFrame:
    """Events with the hours of the farm's devices around them, in order.

    `offset` counts whole hours: -1 is the last that ended by the start, 0 the first that began
    after it.
    """
    start = pl.col("started_at").dt.truncate("1h")
    first_full = pl.col("started_at").dt.offset_by("59m59s999999us").dt.truncate("1h")
    ago, later = (pl.col("bucket") - start), (pl.col("bucket") - first_full)
    soil = hourly.filter(pl.col("soil_avg").is_not_null())
    return (
        events.join(soil.select("device_id", "farm_id", "bucket", "soil_avg"), on="farm_id")
        .with_columns(
            offset=pl.when(ago < timedelta()).then(ago).when(later >= timedelta()).then(later)
        )
        .with_columns(pl.col("offset").dt.total_hours())
        .filter(pl.col("offset").is_between(-BEFORE_HOURS, after_hours - 1))
        .sort("device_id", "started_at", "event_id", "bucket")
    )


def curve(events: pl.DataFrame, hourly: pl.DataFrame, after_hours: int) -> pl.DataFrame:
    """The hours around events, with their `change` from the mean before."""
    before = pl.col("soil_avg").filter(pl.col("offset") < 0).mean().over("device_id", "event_id")
    hours = hours_around(events, hourly, after_hours)
    return hours.with_columns(change=pl.col("soil_avg") - before)


def _dry_again(events: pl.DataFrame, hourly: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """`dry_again_hours` of those whose soil was seen to be back (rule 3)."""
    key = ["device_id", "event_id"]
    later = hours_around(events, hourly, 24 * LOOKAHEAD_DAYS).filter(pl.col("offset") >= 0)
    peaks = (
        later.filter(pl.col("offset") < AFTER_HOURS)
        .sort("soil_avg", "offset", descending=[True, False])
        .group_by(key, maintain_order=True)
        .agg(peak=pl.col("offset").first())
    )
    return (
        later.join(peaks, on=key)
        .join(known.filter(pl.col("soil_change") > 0).select(*key, "soil_before"), on=key)
        .filter((pl.col("offset") > pl.col("peak")) & (pl.col("soil_avg") <= pl.col("soil_before")))
        .group_by(key)
        .agg(dry_again_hours=pl.col("offset").min())
    )
