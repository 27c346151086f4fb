"""Silver assets by day of the reading: weather, cleaned telemetry, and its pieces if it has any.

Thin: day_runs.py, weather_runs.py and shards.py build; transforms.py and weather.py have the rules.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from zenthos_assets import parquet
from zenthos_assets.bronze.telemetry_days import TELEMETRY_DAYS_KEY, TELEMETRY_KEY
from zenthos_assets.config import BuildConfig
from zenthos_assets.partitions import DAILY, ONE_RUN, days_of
from zenthos_assets.resources import Platform
from zenthos_assets.silver import statistics
from zenthos_assets.silver.checks import SILVER_CHECKS, SILVER_KEY, silver_results
from zenthos_assets.silver.day_runs import (
    CLEANED,
    CLEANED_ASSET,
    STATISTICS,
    WEATHER,
    Outcome,
    Session,
    Target,
    clean_days,
    session,
)
from zenthos_assets.silver.errors import open_errors
from zenthos_assets.silver.examine import DAYS_BEFORE, Findings, examine
from zenthos_assets.silver.reference import WEATHER_SCHEMA, read_intervals
from zenthos_assets.silver.shards import PIECES, join_days, piece, whole
from zenthos_assets.silver.transforms import SCHEMA
from zenthos_assets.silver.views import COLUMNS, WEATHER_COLUMNS, pictures
from zenthos_assets.silver.weather_runs import WEATHER_ASSET, weather_days
from zenthos_assets.tables import column_lineage, column_schema
from zenthos_core import lake

WEATHER_KEY: Final = dg.AssetKey(["silver", WEATHER])
KINDS: Final = {"parquet", "polars"}
OWNERS: Final = ["team:data"]
DEVICES_AT_ONCE: Final = 1_000_000
"""Rows of statistics that are examined together: bounds memory whatever fleet and range."""

_FROM_WEATHER: Final = {"weather_condition": (WEATHER_KEY, ["weather_condition"])}
_FROM_BRONZE: Final = {
    name: (TELEMETRY_KEY, ["received_at" if name == "received_at" else "payload"])
    for name in (*statistics.SENSORS, "message_id", "device_id", "time", "received_at", "extra")
}


def silver_assets(shards: int) -> list[dg.AssetsDefinition]:
    """The silver layer; with more than one shard, telemetry_cleaned is joined from pieces."""
    if shards == 1:
        return [weather_hourly, telemetry_cleaned([whole()], [TELEMETRY_DAYS_KEY, WEATHER_KEY])]
    pieces = [piece(number, shards) for number in range(shards)]
    assets = [telemetry_piece(target) for target in pieces]
    return [weather_hourly, *assets, telemetry_cleaned(pieces, [a.key for a in assets])]


@dg.asset(
    key=WEATHER_KEY,
    deps=[TELEMETRY_DAYS_KEY],
    group_name="silver",
    description="The weather of each farm by the hour, from its own stations.",
    metadata={
        "dagster/column_schema": column_schema(WEATHER_SCHEMA, WEATHER_COLUMNS),
        "dagster/column_lineage": column_lineage(
            {name: (TELEMETRY_KEY, ["payload"]) for name in WEATHER_SCHEMA}
        ),
        "object_path": f"{lake.SILVER}/{WEATHER}/YYYY/MM/DD.parquet",
    },
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    kinds=KINDS,
    owners=OWNERS,
)
def weather_hourly(
    context: dg.AssetExecutionContext, config: BuildConfig, platform: Platform
) -> None:
    days, run_id = days_of(context), context.run.run_id
    with session(platform, WEATHER_ASSET, days, run_id=run_id, force=config.force) as run:
        outcome = weather_days(run, days)
    report(context, outcome)


def telemetry_piece(target: Target) -> dg.AssetsDefinition:
    """A piece of telemetry_cleaned: the devices of a range of buckets."""

    @dg.asset(
        key=dg.AssetKey(target.asset.split("/")),
        deps=[TELEMETRY_DAYS_KEY, WEATHER_KEY],
        group_name="silver_shards",
        description=f"{CLEANED} of the device buckets {target.buckets}, up to and not including.",
        metadata={"object_path": f"{lake.SILVER}/{PIECES}/YYYY/MM/DD.K-of-N.parquet"},
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        kinds=KINDS,
        owners=OWNERS,
    )
    def build(context: dg.AssetExecutionContext, config: BuildConfig, platform: Platform) -> None:
        days, run_id = days_of(context), context.run.run_id
        with session(platform, target.asset, days, run_id=run_id, force=config.force) as run:
            outcome = clean_days(run, target, days)
        report(context, outcome)
        if outcome.lost or outcome.repeated:
            refused = f"lost: {outcome.lost}; repeated: {outcome.repeated}"
            raise dg.Failure(refused, allow_retries=False)

    return build


def telemetry_cleaned(
    targets: Sequence[Target], deps: Sequence[dg.AssetDep | dg.AssetKey]
) -> dg.AssetsDefinition:
    """Cleaned telemetry, built whole or joined from pieces."""

    @dg.asset(
        key=SILVER_KEY,
        deps=deps,
        group_name="silver",
        description=(
            "Readings, each once, typed, judged and placed, by the day they are about. Reads "
            "exactly the bronze objects that hold readings of the day, whenever those arrived."
        ),
        metadata={
            "dagster/column_schema": column_schema(SCHEMA, COLUMNS),
            "dagster/column_lineage": column_lineage(_FROM_BRONZE | _FROM_WEATHER),
            "object_path": f"{lake.SILVER}/{CLEANED}/YYYY/MM/DD.parquet",
        },
        check_specs=SILVER_CHECKS,
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        kinds=KINDS,
        owners=OWNERS,
    )
    def build(
        context: dg.AssetExecutionContext, config: BuildConfig, platform: Platform
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]
        days, run_id = days_of(context), context.run.run_id
        with session(platform, CLEANED_ASSET, days, run_id=run_id, force=config.force) as run:
            whole_days = len(targets) == 1
            outcome = (
                clean_days(run, targets[0], days) if whole_days else join_days(run, days, targets)
            )
            found = examine_days(run, days)
            unusable = open_errors(run.ops, CLEANED_ASSET, days)
            shown = read_statistics(run, days[-1:]) if outcome.rebuilt else None
        report(context, outcome)
        if shown is not None:
            images = pictures(shown, outcome.sample, days[-1])
            context.add_asset_metadata(images, partition_key=str(days[-1]))
        return dg.MaterializeResult(check_results=silver_results(outcome, found, unusable))

    return build


def report(context: dg.AssetExecutionContext, outcome: Outcome) -> None:
    """What became of each partition, in its metadata."""
    rebuilt = set(outcome.rebuilt)
    for day, built in sorted(outcome.builds.items()):
        described = {
            "dagster/row_count": built.rows_out,
            "received": built.rows_in,
            "duplicate": built.rows_duplicate,
            "quarantined": built.rows_quarantined,
            "sha256": built.output_checksum,
            "unchanged": day not in rebuilt,
        }
        context.add_asset_metadata(described, partition_key=str(day))
    context.log.info("built %s of %s days", len(rebuilt), len(outcome.builds))


def examine_days(run: Session, days: Sequence[date]) -> Findings:
    """What is odd about those days, some of them at a time."""
    now = datetime.now(UTC)
    intervals_s = read_intervals(run.ops)
    size = max(DAYS_BEFORE, DEVICES_AT_ONCE // max(1, len(intervals_s)))
    found = [
        examine(
            read_statistics(run, _with_days_before(chunk)), chunk, now=now, intervals_s=intervals_s
        )
        for chunk in parquet.chunks(list(days), size)
    ]
    return sum(found[1:], found[0])


def _with_days_before(days: Sequence[date]) -> list[date]:
    before = {day - timedelta(days=n) for day in days for n in range(DAYS_BEFORE + 1)}
    return sorted(before)


def read_statistics(run: Session, days: Sequence[date]) -> pl.DataFrame:
    """The statistics of those days, as far as they were built."""
    return parquet.read_days(run.store, lake.SILVER, STATISTICS, days, statistics.SCHEMA)
