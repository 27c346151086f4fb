"""Gold assets: rollups and features by day, in the lake and in the analytical database."""

from datetime import date, timedelta
from typing import Final, Literal

import dagster as dg
import polars as pl

from ml.features import (
    MAX_DAYS_SINCE,
    WINDOW_DAYS,
    compute_features,
)
from ml.features import SCHEMA as FEATURES_SCHEMA
from zenthos_assets import parquet, plots
from zenthos_assets.gold.checks import (
    DAILY_KEY,
    FEATURES_KEY,
    FEATURES_SPEC,
    HOURLY_KEY,
    features_valid,
    reconciles,
    reconciles_spec,
)
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA, rollup
from zenthos_assets.gold.warehouse import (
    DAILY_TABLE,
    FEATURES_TABLE,
    HOURLY_TABLE,
    Table,
    count_samples,
    replace_days,
)
from zenthos_assets.partitions import DAILY, ONE_RUN, days_of, window_of
from zenthos_assets.resources import Platform
from zenthos_assets.silver.assets import GROUP_ROWS, archived_days
from zenthos_assets.silver.assets import TABLE as SILVER_TABLE
from zenthos_assets.silver.checks import SILVER_KEY
from zenthos_assets.silver.transforms import SCHEMA as SILVER_SCHEMA
from zenthos_assets.silver.transforms import group_days
from zenthos_assets.tables import column_lineage, column_schema
from zenthos_core import lake

HOURS_AT_ONCE: Final = 2_000_000
"""Hourly rows read at once for features: bounds memory whatever the fleet and the range."""

IRRIGATION_EVENTS = dg.AssetSpec(
    "irrigation_events",
    description="When a farm was irrigated; written by operators and controllers.",
    group_name="source",
    kinds={"postgres"},
    owners=["team:platform"],
)

_SOURCES: Final = {
    "soil": "soil_moisture",
    "temp": "temperature",
    "humidity": "humidity",
    "light": "light_level",
    "battery": "battery_voltage",
    "rain": "rainfall_mm",
    "soil_20cm": "soil_moisture_20cm",
    "soil_40cm": "soil_moisture_40cm",
}
_UNITS: Final = {"soil": "%", "temp": "°C", "humidity": "%RH", "light": "lux", "battery": "V"}


def rollup_asset(
    key: dg.AssetKey, period: Literal["hour", "day"], table: Table, schema: pl.Schema
) -> dg.AssetsDefinition:
    """The rollup of silver by hour or by day."""
    measures = [name for name in schema if name.rsplit("_", 1)[0] in _SOURCES]
    units = {name: _UNITS.get(name.split("_")[0], "mm") for name in measures}

    @dg.asset(
        key=key,
        deps=[SILVER_KEY],
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        group_name="gold",
        kinds={"parquet", "postgres", "polars"},
        owners=["team:data"],
        description=f"Statistics per device and {period}; values out of range count as missing.",
        metadata={
            "dagster/column_schema": column_schema(schema, units),
            "dagster/column_lineage": column_lineage(
                {name: (SILVER_KEY, [_SOURCES[name.rsplit("_", 1)[0]]]) for name in measures}
            ),
            "dagster/table_name": f"zenthos_analytics.public.{table.name}",
            "object_path": f"{lake.GOLD}/{table.name}/YYYY/MM/DD.parquet",
        },
        check_specs=[reconciles_spec(key)],
    )
    def build(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg]
        days = days_of(context)
        store = platform.store()
        with platform.ops() as connection:
            contents = archived_days(connection, days)
        place = (lake.GOLD, table.name)
        readings = 0
        counts: dict[date, int] = {}
        with platform.analytics() as connection:
            for wanted, _ in group_days(contents, days, GROUP_ROWS):
                silver = parquet.read_days(store, lake.SILVER, SILVER_TABLE, wanted, SILVER_SCHEMA)
                frame = rollup(silver, period)
                readings += len(silver)
                day = pl.col(table.time).cast(pl.Date)
                counts |= parquet.write_days(store, place, frame, wanted, day=day)
                replace_days(connection, table, frame, wanted[0], wanted[-1])
            samples = count_samples(connection, table, days[0], days[-1])
        for written, count in counts.items():
            context.add_asset_metadata({"dagster/row_count": count}, partition_key=str(written))
        picture = plots.lines_by_device(
            frame, table.time, "soil_avg", title="soil moisture at 5 cm", unit="%"
        )
        context.add_asset_metadata({"soil_moisture": picture}, partition_key=str(days[-1]))
        return dg.MaterializeResult(check_results=[reconciles(samples, readings)])

    return build


telemetry_hourly = rollup_asset(HOURLY_KEY, "hour", HOURLY_TABLE, HOURLY_SCHEMA)
telemetry_daily = rollup_asset(DAILY_KEY, "day", DAILY_TABLE, DAILY_SCHEMA)


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
    metadata={
        "dagster/column_schema": column_schema(
            FEATURES_SCHEMA,
            {
                "soil_7d_avg": "%",
                "soil_7d_stddev": "%",
                "temp_7d_avg": "°C",
                "soil_trend_slope": "%/day",
                "temp_variability": "standard deviation over mean",
                "days_since_irrigation": "days",
                "days_since_rain": "days",
            },
        ),
        "dagster/column_lineage": column_lineage(
            {
                "soil_7d_avg": (HOURLY_KEY, ["soil_avg"]),
                "soil_7d_stddev": (HOURLY_KEY, ["soil_avg"]),
                "soil_trend_slope": (HOURLY_KEY, ["soil_avg"]),
                "temp_7d_avg": (HOURLY_KEY, ["temp_avg"]),
                "temp_variability": (HOURLY_KEY, ["temp_avg"]),
                "days_since_rain": (DAILY_KEY, ["rain_mm"]),
            }
        ),
        "dagster/table_name": "zenthos_analytics.public.ml_features",
        "object_path": f"{lake.GOLD}/ml_features/YYYY/MM/DD.parquet",
    },
    check_specs=[FEATURES_SPEC],
)
def ml_features(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg]
    days = days_of(context)
    store = platform.store()
    place = (lake.GOLD, FEATURES_TABLE.name)
    irrigation, devices = read_irrigation(platform)
    built = []
    with platform.analytics() as connection:
        for wanted in parquet.chunks(days, max(1, HOURS_AT_ONCE // (24 * max(1, devices)))):
            first, last = wanted[0], wanted[-1]
            window = parquet.day_range(first - timedelta(days=WINDOW_DAYS - 1), last)
            hourly = parquet.read_days(store, lake.GOLD, HOURLY_TABLE.name, window, HOURLY_SCHEMA)
            window = parquet.day_range(first - timedelta(days=MAX_DAYS_SINCE), last)
            daily = parquet.read_days(store, lake.GOLD, DAILY_TABLE.name, window, DAILY_SCHEMA)
            features = compute_features(hourly, daily, irrigation, first, last)
            parquet.write_days(store, place, features, wanted, day=pl.col("date"))
            replace_days(connection, FEATURES_TABLE, features, first, last)
            built.append(features)
    features = pl.concat(built)
    counts = dict(features.group_by("date").len().iter_rows())
    for day in days:
        row_count = {"dagster/row_count": counts.get(day, 0)}
        context.add_asset_metadata(row_count, partition_key=str(day))
    picture = plots.lines_by_device(
        features, "date", "soil_7d_avg", title="soil moisture, 7-day mean", unit="%"
    )
    context.add_asset_metadata({"soil_moisture": picture}, partition_key=str(days[-1]))
    return dg.MaterializeResult(check_results=[features_valid(features)])


def read_irrigation(platform: Platform) -> tuple[pl.DataFrame, int]:
    """Days of irrigation per device (of its farm), and how many devices there are."""
    with platform.ops() as connection:
        rows = connection.execute(
            "SELECT DISTINCT d.id, (e.timestamp AT TIME ZONE 'UTC')::date"
            " FROM irrigation_events e JOIN devices d USING (farm_id)"
        ).fetchall()
        count = connection.execute("SELECT count(*) FROM devices").fetchone()
    frame = pl.DataFrame(rows, schema={"device_id": pl.String, "day": pl.Date}, orient="row")
    return frame, int(count[0]) if count else 0
