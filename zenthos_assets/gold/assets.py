"""Gold assets: rollups and features by day, in the lake and in the analytical database."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Final

import dagster as dg
import polars as pl

from ml.features import FEATURES, MAX_DAYS_SINCE, WINDOW_DAYS
from ml.features import SCHEMA as FEATURES_SCHEMA
from zenthos_assets import parquet, plots
from zenthos_assets.config import BuildConfig
from zenthos_assets.gold.build import (
    Builder,
    Outcome,
    Recipe,
    Upstream,
    batches,
    building,
    describe,
)
from zenthos_assets.gold.catalogue import (
    FEATURES_COLUMNS,
    IRRIGATION_EVENTS_KEY,
    ROLLUP_COLUMNS,
    describe_table,
)
from zenthos_assets.gold.checks import (
    COVERAGE_SPEC,
    DAILY_KEY,
    FEATURE_RANGES,
    FEATURES_KEY,
    HISTORICAL_KEY,
    HOURLY_KEY,
    ROLLUP_RANGES,
    USUAL_DAYS,
    coverage,
    full_windows,
    problems,
    reconciles,
    reconciles_spec,
    unusual_days,
    usual,
    usual_spec,
    valid,
    valid_spec,
)
from zenthos_assets.gold.compute import feature_days, rollup_days
from zenthos_assets.gold.pictures import distributions
from zenthos_assets.gold.reading import read_window
from zenthos_assets.gold.reference import digests_by_day, read_irrigated_days
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA, Period
from zenthos_assets.gold.warehouse import (
    DAILY_TABLE,
    FEATURES_TABLE,
    HOURLY_TABLE,
    Table,
    count_samples,
)
from zenthos_assets.partitions import DAILY, ONE_RUN, days_of, window_of
from zenthos_assets.resources import Platform
from zenthos_assets.runs import latest_builds
from zenthos_assets.silver.checks import SILVER_KEY
from zenthos_core import lake
from zenthos_core.blobs import BlobStore

ROWS_AT_ONCE: Final = 2_000_000
"""Rows of gold handled at once: bounds memory whatever the fleet and the range."""
READINGS_AT_ONCE: Final = 1_000_000
PLOT_DAYS: Final = 31

IRRIGATION_EVENTS = dg.AssetSpec(
    IRRIGATION_EVENTS_KEY,
    description="When a farm was irrigated; written by operators and controllers.",
    group_name="source",
    kinds={"postgres"},
    owners=["team:platform"],
)


def rollup_asset(
    key: dg.AssetKey, period: Period, table: Table, schema: pl.Schema
) -> dg.AssetsDefinition:
    """The rollup of silver by hour or by day."""
    recipe = Recipe(key, table, "1", (Upstream(SILVER_KEY),))

    @dg.asset(
        key=key,
        # the tables of the analytical database are loaded, or computed there, from its readings
        deps=[SILVER_KEY, HISTORICAL_KEY],
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        group_name="gold",
        kinds={"parquet", "postgres", "polars"},
        owners=["team:data"],
        description=f"Statistics per device and {period}; values out of range count as missing.",
        metadata=describe_table(table, schema, ROLLUP_COLUMNS),
        check_specs=[
            reconciles_spec(key),
            valid_spec(key, "rollups_valid"),
            usual_spec(key),
        ],
    )
    def build(
        context: dg.AssetExecutionContext, platform: Platform, config: BuildConfig
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        days = days_of(context)
        with building(context, platform, config, recipe, days) as builder:
            found = builder.sources(days)

            def make(wanted: list[date]) -> pl.DataFrame:
                return rollup_days(builder.store, wanted, found.rows, period)

            outcome = builder.build(found, make, rows_at_once=READINGS_AT_ONCE)
            samples = count_samples(builder.connection, table, days[0], days[-1])
            usual_counts = usual(unusual_days(rows_before(builder, days), days))
        wrong: Counter[str] = Counter()
        for frame in built_frames(builder.store, table, schema, outcome):
            wrong += problems(frame, table.key, ROLLUP_RANGES)
        describe(context, outcome)
        shown = read_window(builder.store, (lake.GOLD, table.name), days[-PLOT_DAYS:], schema)
        if shown[table.time].n_unique() > 1:  # a line has two ends
            picture = plots.lines_by_device(
                shown, table.time, "soil_avg", title="soil moisture at 5 cm", unit="%"
            )
            context.add_asset_metadata({"soil_moisture": picture}, partition_key=str(days[-1]))
        return dg.MaterializeResult(
            check_results=[
                reconciles(samples, sum(found.rows.values())),
                valid(wrong, "rollups_valid"),
                usual_counts,
            ]
        )

    return build


def rows_before(builder: Builder, days: Sequence[date]) -> dict[date, int]:
    """Rows of the days of a run and of those that say what is usual."""
    window = parquet.day_range(days[0] - timedelta(days=USUAL_DAYS), days[-1])
    built = latest_builds(builder.connection, builder.recipe.name, list(map(str, window)))
    return {date.fromisoformat(name): build.rows_out for name, build in built.items()}


def built_frames(
    store: BlobStore, table: Table, schema: pl.Schema, outcome: Outcome, step_days: int = 1
) -> Iterator[pl.DataFrame]:
    """What the lake holds of the days of a run, those left as they were too."""
    for group in batches(outcome.rows, outcome.rows, ROWS_AT_ONCE, step_days):
        yield read_window(store, (lake.GOLD, table.name), group, schema)


telemetry_hourly = rollup_asset(HOURLY_KEY, "hour", HOURLY_TABLE, HOURLY_SCHEMA)
telemetry_daily = rollup_asset(DAILY_KEY, "day", DAILY_TABLE, DAILY_SCHEMA)

_FEATURES = Recipe(
    FEATURES_KEY,
    FEATURES_TABLE,
    "1",
    (Upstream(HOURLY_KEY, before=WINDOW_DAYS - 1), Upstream(DAILY_KEY, before=MAX_DAYS_SINCE)),
)


@dg.asset(
    key=FEATURES_KEY,
    deps=[
        dg.AssetDep(HOURLY_KEY, partition_mapping=window_of(WINDOW_DAYS)),
        dg.AssetDep(DAILY_KEY, partition_mapping=window_of(MAX_DAYS_SINCE + 1)),
        IRRIGATION_EVENTS,
    ],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    group_name="gold",
    kinds={"parquet", "postgres", "polars"},
    owners=["team:data"],
    description="The seven inputs of the irrigation model per device and day, by ml.features.",
    metadata=describe_table(FEATURES_TABLE, FEATURES_SCHEMA, FEATURES_COLUMNS),
    check_specs=[
        valid_spec(FEATURES_KEY, "features_valid"),
        COVERAGE_SPEC,
    ],
)
def ml_features(
    context: dg.AssetExecutionContext, platform: Platform, config: BuildConfig
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    days = days_of(context)
    earliest = days[0] - timedelta(days=MAX_DAYS_SINCE)
    with platform.ops() as connection:
        irrigation = read_irrigated_days(connection, earliest, days[-1])
    known = digests_by_day(irrigation, "day", parquet.day_range(earliest, days[-1]))
    window = MAX_DAYS_SINCE + 1
    others = {day: known[number : number + window] for number, day in enumerate(days)}
    with building(context, platform, config, _FEATURES, days) as builder:
        store = builder.store

        def make(wanted: list[date]) -> pl.DataFrame:
            return feature_days(store, wanted[0], wanted[-1], irrigation)

        outcome = builder.build(builder.sources(days, others), make, rows_at_once=ROWS_AT_ONCE)
    wrong: Counter[str] = Counter()
    windows: Counter[str] = Counter()
    for frame in built_frames(store, FEATURES_TABLE, FEATURES_SCHEMA, outcome):
        wrong += problems(frame, FEATURES_TABLE.key, FEATURE_RANGES)
        windows += full_windows(frame)
    describe(context, outcome)
    shown = read_window(store, (lake.GOLD, FEATURES_TABLE.name), days[-PLOT_DAYS:], FEATURES_SCHEMA)
    pictures = {"distributions": distributions(shown, FEATURES)}
    if shown["date"].n_unique() > 1:
        pictures["soil_moisture"] = plots.lines_by_device(
            shown, "date", "soil_7d_avg", title="soil moisture, 7-day mean", unit="%"
        )
    context.add_asset_metadata(pictures, partition_key=str(days[-1]))
    return dg.MaterializeResult(check_results=[valid(wrong, "features_valid"), coverage(windows)])
