"""Gold assets about farms: weather by day, what irrigation did, and long-term trends.

irrigation_response and telemetry_trends have no partitions in Dagster: their windows reach into
days to come, or over a year. Each run rebuilds the days or weeks whose input has changed, by
etl_runs; an event is complete once the days after it are there.
"""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from zenthos_assets import parquet, plots
from zenthos_assets.config import BuildConfig
from zenthos_assets.gold.assets import IRRIGATION_EVENTS, PLOT_DAYS, ROWS_AT_ONCE, built_frames
from zenthos_assets.gold.build import UNPARTITIONED, Outcome, Recipe, Upstream, building, describe
from zenthos_assets.gold.catalogue import (
    RESPONSE_COLUMNS,
    SILVER_WEATHER_KEY,
    TRENDS_COLUMNS,
    WEATHER_COLUMNS,
    describe_table,
)
from zenthos_assets.gold.checks import (
    DAILY_KEY,
    HOURLY_KEY,
    RESPONSE_KEY,
    RESPONSE_RANGES,
    TREND_RANGES,
    TRENDS_KEY,
    WEATHER_KEY,
    WEATHER_RANGES,
    problems,
    reconciles,
    reconciles_spec,
    valid,
    valid_spec,
)
from zenthos_assets.gold.irrigation import (
    LOOKAHEAD_DAYS,
    RESPONSE_SCHEMA,
    curve,
    responses,
)
from zenthos_assets.gold.pictures import response_curve, weather_bars
from zenthos_assets.gold.reading import read_window
from zenthos_assets.gold.reference import digests_by_day, read_events
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA
from zenthos_assets.gold.trends import DAYS, TRENDS_SCHEMA, trends, weeks_between
from zenthos_assets.gold.warehouse import (
    DAILY_TABLE,
    HOURLY_TABLE,
    RESPONSE_TABLE,
    TRENDS_TABLE,
    WEATHER_TABLE,
)
from zenthos_assets.gold.weather import WEATHER_SCHEMA, weather_by_day
from zenthos_assets.partitions import DAILY, ONE_RUN, days_of
from zenthos_assets.resources import Platform
from zenthos_assets.silver.reference import WEATHER_SCHEMA as HOURLY_WEATHER_SCHEMA
from zenthos_core import lake

HOURLY_PLACE: Final = (lake.GOLD, HOURLY_TABLE.name)
DAILY_PLACE: Final = (lake.GOLD, DAILY_TABLE.name)
WEATHER_PLACE: Final = (lake.SILVER, "weather_hourly")
CURVE_HOURS: Final = 72

_SOIL: Final = pl.Schema(
    {n: HOURLY_SCHEMA[n] for n in ("device_id", "farm_id", "bucket", "soil_avg")}
)
_DAYS: Final = pl.Schema(
    {n: DAILY_SCHEMA[n] for n in ("device_id", "farm_id", "day", "soil_avg", "temp_avg")}
)

_WEATHER = Recipe(WEATHER_KEY, WEATHER_TABLE, "1", (Upstream(SILVER_WEATHER_KEY),))
_RESPONSE = Recipe(
    RESPONSE_KEY, RESPONSE_TABLE, "1", (Upstream(HOURLY_KEY, before=1, after=LOOKAHEAD_DAYS),)
)
_TRENDS = Recipe(
    TRENDS_KEY, TRENDS_TABLE, "1", (Upstream(DAILY_KEY, before=DAYS - 7, after=6),), step_days=7
)


@dg.asset(
    key=WEATHER_KEY,
    deps=[SILVER_WEATHER_KEY],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    group_name="gold",
    kinds={"parquet", "postgres", "polars"},
    owners=["team:data"],
    description="Weather per farm and day, from the farm's own stations.",
    metadata=describe_table(WEATHER_TABLE, WEATHER_SCHEMA, WEATHER_COLUMNS),
    check_specs=[
        reconciles_spec(
            WEATHER_KEY, description="Hours behind the days are the hours in silver/weather_hourly."
        ),
        valid_spec(WEATHER_KEY, "weather_valid"),
    ],
)
def weather_daily(
    context: dg.AssetExecutionContext, platform: Platform, config: BuildConfig
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    days = days_of(context)
    with building(context, platform, config, _WEATHER, days) as builder:
        store = builder.store

        def make(wanted: list[date]) -> pl.DataFrame:
            return weather_by_day(read_window(store, WEATHER_PLACE, wanted, HOURLY_WEATHER_SCHEMA))

        found = builder.sources(days)
        outcome = builder.build(found, make, rows_at_once=ROWS_AT_ONCE)
    wrong: Counter[str] = Counter()
    hours = 0
    for frame in built_frames(store, WEATHER_TABLE, WEATHER_SCHEMA, outcome):
        wrong += problems(frame, WEATHER_TABLE.key, WEATHER_RANGES)
        hours += int(frame["hour_count"].sum())
    describe(context, outcome)
    shown = read_window(store, (lake.GOLD, WEATHER_TABLE.name), days[-PLOT_DAYS:], WEATHER_SCHEMA)
    context.add_asset_metadata({"weather": weather_bars(shown)}, partition_key=str(days[-1]))
    return dg.MaterializeResult(
        check_results=[
            reconciles(hours, sum(found.rows.values())),
            valid(wrong, "weather_valid"),
        ]
    )


@dg.asset(
    key=RESPONSE_KEY,
    deps=[HOURLY_KEY, IRRIGATION_EVENTS],
    group_name="gold",
    kinds={"parquet", "postgres", "polars"},
    owners=["team:data"],
    description=(
        "What each irrigation did to the soil of each device of the farm. Days of events whose "
        "input has changed are built again; an event is complete when the days after it are there."
    ),
    metadata=describe_table(RESPONSE_TABLE, RESPONSE_SCHEMA, RESPONSE_COLUMNS),
    check_specs=[valid_spec(RESPONSE_KEY, "responses_valid")],
)
def irrigation_response(
    context: dg.AssetExecutionContext, platform: Platform, config: BuildConfig
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    with platform.ops() as connection:
        events = read_events(connection)
    with building(context, platform, config, _RESPONSE, UNPARTITIONED) as builder:
        store = builder.store
        happened = set(events["started_at"].dt.date().to_list())
        days = sorted(happened | builder.built_before())

        def make(wanted: list[date]) -> pl.DataFrame:
            made = []
            for day in wanted:
                known = read_window(store, HOURLY_PLACE, _RESPONSE.upstreams[0].window(day), _SOIL)
                made.append(responses(events.filter(pl.col("started_at").dt.date() == day), known))
            return pl.concat(made)

        digests = digests_by_day(events, "started_at", days)
        others = {day: [digest] for day, digest in zip(days, digests, strict=True)}
        outcome = builder.build(builder.sources(days, others), make, rows_at_once=ROWS_AT_ONCE)
    wrong: Counter[str] = Counter()
    for frame in built_frames(store, RESPONSE_TABLE, RESPONSE_SCHEMA, outcome):
        wrong += problems(frame, RESPONSE_TABLE.key, RESPONSE_RANGES)
    latest = days[-1:]
    recent = events.filter(pl.col("started_at").dt.date().is_in(latest))
    window = [d for day in latest for d in _RESPONSE.upstreams[0].window(day)]
    around = curve(recent, read_window(store, HOURLY_PLACE, window, _SOIL), CURVE_HOURS)
    return dg.MaterializeResult(
        metadata=totals(outcome) | {"response": response_curve(around)},
        check_results=[valid(wrong, "responses_valid")],
    )


@dg.asset(
    key=TRENDS_KEY,
    deps=[DAILY_KEY],
    group_name="trends",
    kinds={"parquet", "postgres", "polars"},
    owners=["team:data"],
    description=(
        "Long-term trends per device and ISO week, over 4, 12 and 52 weeks. Weeks that are over "
        "and whose days have changed are built again."
    ),
    metadata=describe_table(TRENDS_TABLE, TRENDS_SCHEMA, TRENDS_COLUMNS),
    check_specs=[valid_spec(TRENDS_KEY, "trends_sane", blocking=False)],
)
def telemetry_trends(
    context: dg.AssetExecutionContext, platform: Platform, config: BuildConfig
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    with building(context, platform, config, _TRENDS, UNPARTITIONED) as builder:
        store = builder.store
        built = parquet.built_days(store, *DAILY_PLACE)
        weeks = weeks_between(built[0], yesterday) if built else []

        def make(wanted: list[date]) -> pl.DataFrame:
            first = _TRENDS.upstreams[0].window(wanted[0])[0]
            window = parquet.day_range(first, wanted[-1] + timedelta(days=6))
            return trends(read_window(store, DAILY_PLACE, window, _DAYS), wanted)

        outcome = builder.build(builder.sources(weeks), make, rows_at_once=ROWS_AT_ONCE)
    wrong: Counter[str] = Counter()
    for frame in built_frames(store, TRENDS_TABLE, TRENDS_SCHEMA, outcome, _TRENDS.step_days):
        wrong += problems(frame, TRENDS_TABLE.key, TREND_RANGES)
    shown = read_window(store, (lake.GOLD, TRENDS_TABLE.name), weeks[-52:], TRENDS_SCHEMA)
    picture = plots.lines_by_device(
        shown.filter(pl.col("weeks") == 12),
        "week",
        "soil_slope",
        title="soil moisture, slope of 12 weeks",
        unit="%/week",
    )
    return dg.MaterializeResult(
        metadata=totals(outcome) | {"soil_slope": picture},
        check_results=[valid(wrong, "trends_sane")],
    )


def totals(outcome: Outcome) -> dict[str, dg.MetadataValue]:
    """Row counts of an asset without partitions: in all, and of what was built now."""
    rows = outcome.rows
    return {
        "dagster/row_count": dg.MetadataValue.int(sum(rows.values())),
        "unchanged": dg.MetadataValue.bool(not outcome.rebuilt),
        "rows_by_day": plots.rows_by_day(rows, "rows a day or week"),
        "rebuilt": dg.MetadataValue.json([str(day) for day in sorted(outcome.rebuilt)]),
    }
