"""A run over days of weather_hourly; the rules of the weather are weather.py's."""

import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Final

import polars as pl

from zenthos_assets import parquet
from zenthos_assets.runs import Build
from zenthos_assets.silver.build import for_each_slice
from zenthos_assets.silver.day_runs import GROUP_ROWS, WEATHER, Outcome, Session, plan, record
from zenthos_assets.silver.reference import Reference, read_placements
from zenthos_assets.silver.source import archived_shares, input_checksums
from zenthos_assets.silver.transforms import group_days
from zenthos_assets.silver.weather import farm_weather, station_hours
from zenthos_core import lake

WEATHER_ASSET: Final = f"silver/{WEATHER}"
CODE_VERSION: Final = "1"


def weather_days(run: Session, days: Sequence[date]) -> Outcome:
    """Build what is out of date of weather_hourly."""
    shares = archived_shares(run.ops, days)
    reference = Reference(read_placements(run.ops))
    inputs = input_checksums(CODE_VERSION, days, shares, reference, {})
    stale, kept = plan(run, WEATHER_ASSET, key_of, inputs)
    outcome = Outcome(kept)
    contents = [share[:3] for share in shares]
    for group, keys in group_days(contents, stale, GROUP_ROWS):
        begin = time.monotonic()
        of_slice = partial(_of_slice, reference.placements, group)
        weather = farm_weather(for_each_slice(run.store, keys, of_slice))
        written = parquet.write_days(
            run.store, (lake.SILVER, key_of), weather, group, day=pl.col("hour").dt.date()
        )
        spent_s = (time.monotonic() - begin) / len(group)
        builds = {
            day: Build(str(day), inputs[str(day)], checksum, rows, rows, 0, 0, spent_s)
            for day, (checksum, rows) in written.items()
        }
        record(run, WEATHER_ASSET, list(builds.values()))
        outcome.builds |= builds
        outcome.rebuilt += group
    return outcome


def _of_slice(
    placements: pl.DataFrame, days: Sequence[date], readings: pl.DataFrame, _: pl.DataFrame
) -> pl.DataFrame:
    return station_hours(readings, placements, days)


def key_of(day: date) -> str:
    """Where the weather of a day lies, in the silver bucket."""
    return lake.day_key(WEATHER, day)
