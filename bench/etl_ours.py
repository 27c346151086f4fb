"""The lineage's own contender: the functions that the assets call, without Dagster and Postgres."""

from pathlib import Path

import polars as pl

from bench.etl_contender import DAILY, FEATURES, HOURLY, Stages, check, run
from bench.etl_day import DAY, Reference, read_irrigated_days, read_reference
from ml.features import MAX_DAYS_SINCE, WINDOW_DAYS, compute_features
from zenthos_assets import parquet
from zenthos_assets.gold.assets import RAIN, READINGS, SILVER_PLACE, SOIL_AND_TEMPERATURE
from zenthos_assets.gold.checks import FEATURE_RANGES, ROLLUP_RANGES, problems
from zenthos_assets.gold.reading import read_slices, read_window
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA, Period, rollup
from zenthos_assets.silver.build import build_days
from zenthos_core import lake
from zenthos_core.blobs import FolderStore


def contend(folder: Path, stages: Stages) -> None:
    """Silver, hourly, daily, features."""
    store = FolderStore(folder)
    keys = list(store.keys(lake.BRONZE, "telemetry/"))
    reference = read_reference(folder)
    rows = 0

    def silver() -> None:
        nonlocal rows
        built = build_days(
            store,
            [DAY],
            keys,
            reference,
            key_of=lambda day: lake.day_key(SILVER_PLACE[1], day),
        )
        counts = built.tally.counts[DAY]
        rows = counts.kept
        check(holds=not built.tally.repeated and not counts.quarantined, what="silver")

    stages.timed("silver", silver)
    stages.timed("hourly", lambda: _roll(store, "hour", rows))
    stages.timed("daily", lambda: _roll(store, "day", rows))
    stages.timed("features", lambda: _features(store, read_irrigated_days(folder)))


def _roll(store: FolderStore, period: Period, rows: int) -> None:
    place, schema = (HOURLY, HOURLY_SCHEMA) if period == "hour" else (DAILY, DAILY_SCHEMA)
    slices = read_slices(store, SILVER_PLACE, [DAY], READINGS, {DAY: rows})
    time = schema.names()[0]
    frame = pl.concat([rollup(readings, period) for readings in slices]).sort("device_id", time)
    store.put(place[0], lake.day_key(place[1], DAY), parquet.encode(frame))
    check(holds=frame["sample_count"].sum() == rows, what="reconciles_with_silver")
    check(holds=not problems(frame, ("device_id", time), ROLLUP_RANGES), what="rollups_valid")


def _features(store: FolderStore, irrigation: pl.DataFrame) -> None:
    hours = parquet.last_days(DAY, WINDOW_DAYS)
    hourly = read_window(store, HOURLY, hours, SOIL_AND_TEMPERATURE)
    daily = read_window(store, DAILY, parquet.last_days(DAY, MAX_DAYS_SINCE + 1), RAIN)
    features = compute_features(hourly, daily, irrigation, DAY, DAY)
    store.put(FEATURES[0], lake.day_key(FEATURES[1], DAY), parquet.encode(features))
    wrong = problems(features, ("device_id", "date"), FEATURE_RANGES)
    check(holds=not wrong, what="features_valid")


if __name__ == "__main__":
    run(contend)
