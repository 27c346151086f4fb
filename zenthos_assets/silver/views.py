"""What the UI shows of silver: columns with their units and origin, pictures of a day."""

from collections.abc import Sequence
from datetime import date
from typing import Final

import dagster as dg
import polars as pl

from zenthos_assets import plots
from zenthos_assets.silver.statistics import HOURS
from zenthos_assets.silver.transforms import RANGES

COLUMNS: Final = {
    "bucket": "of the device: shards are ranges of it",
    "message_id": "UUID, 16 bytes",
    "device_id": "of topic and payload",
    "time": "by the device's clock, or of receipt where that is suspect",
    "received_at": "by the clock of ingest",
    "soil_moisture": "% at 5 cm",
    "temperature": "°C",
    "humidity": "%RH",
    "light_level": "lux",
    "battery_voltage": "V",
    "rainfall_mm": "mm since the last reading",
    "soil_moisture_20cm": "%",
    "soil_moisture_40cm": "%",
    "extra": "other sensors, JSON",
    "signal_strength": "dBm",
    "seq": "the device's own counter",
    "firmware_version": "as the device reported",
    "model_version": "as the device reported",
    "clock_suspect": "the device's timestamp cannot be",
    "backlog": "sent from the device's buffer after an outage",
    "device_model": "of the placement at that time",
    "farm_id": "of the placement at that time",
    "latitude": "°, of the placement at that time",
    "longitude": "°, of the placement at that time",
    "weather_condition": "of the farm in that hour",
    "irrigation_event": "the farm was being irrigated",
    "quality": "columns not to be taken at face value, separated by commas; empty is good",
}
WEATHER_COLUMNS: Final = {
    "hour": "its beginning",
    "rain_mm": "mm in the hour",
    "temp_avg": "°C",
    "humidity_avg": "%RH",
    "light_avg": "lux",
    "weather_condition": "heavy_rain, rain, frost, hot, fog, clear, overcast or dry",
}
UNITS: Final = {name: COLUMNS[name].split()[0].rstrip(",") for name in RANGES}
GAPPIEST: Final = 20
"""Devices of the heat map."""


def pictures(
    statistics: pl.DataFrame, sample: Sequence[pl.DataFrame], day: date
) -> dict[str, dg.MarkdownMetadataValue]:
    """Readings by hour, where they are missing, and how the values are distributed.

    Args:
        statistics: of at least that day.
        sample: of the readings of the run.
        day: the day to show.
    """
    shown = statistics.filter(pl.col("day") == day)
    hours = shown["readings_by_hour"].to_list()
    found = {
        "readings_by_hour": plots.bars_by_hour(
            [sum(of_hour) for of_hour in zip(*hours, strict=True)] or [0] * HOURS,
            f"readings of {day}",
        ),
        "gaps": plots.heat_map(hours_covered(shown), "readings an hour of the gappiest devices"),
    }
    if sample:
        found["distribution"] = plots.histograms(pl.concat(sample), UNITS)
    return found


def hours_covered(statistics: pl.DataFrame) -> dict[str, list[float]]:
    """Share of a device's usual readings in each hour of a day, of the devices with most gaps."""
    usual = (3600 / pl.col("interval_s")).clip(lower_bound=1)
    silent = (usual * HOURS - pl.col("readings")) / usual
    rows = (
        statistics.filter(pl.col("interval_s") > 0)
        .with_columns(usual=usual)
        .sort(silent, "device_id", descending=[True, False])
        .head(GAPPIEST)
    )
    return {
        row["device_id"]: [min(1.0, count / row["usual"]) for count in row["readings_by_hour"]]
        for row in rows.iter_rows(named=True)
    }
