"""The cleaned readings of the last weeks in the analytical database, for questions in SQL."""

import time
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Final

import dagster as dg
import polars as pl

from zenthos_assets import plots
from zenthos_assets.config import BuildConfig
from zenthos_assets.gold.build import Builder, Recipe, Sources, Upstream, building, describe, made
from zenthos_assets.gold.catalogue import HISTORICAL_COLUMNS, describe_table
from zenthos_assets.gold.checks import HISTORICAL_KEY, reconciles, reconciles_spec
from zenthos_assets.gold.compute import SILVER
from zenthos_assets.gold.history import History, find_history, oldest_kept
from zenthos_assets.gold.reading import read_slices
from zenthos_assets.gold.warehouse import HISTORICAL_TABLE, count_rows, holds_any, replace_days
from zenthos_assets.partitions import DAILY, ONE_RUN, days_of
from zenthos_assets.resources import Platform
from zenthos_assets.runs import Build, record
from zenthos_assets.silver.checks import SILVER_KEY
from zenthos_assets.silver.transforms import SCHEMA as SILVER_SCHEMA

HISTORICAL_SCHEMA: Final = pl.Schema({name: SILVER_SCHEMA[name] for name in HISTORICAL_COLUMNS})

_HISTORICAL = Recipe(HISTORICAL_KEY, HISTORICAL_TABLE, "1", (Upstream(SILVER_KEY),), in_lake=False)


@dg.asset(
    key=HISTORICAL_KEY,
    deps=[SILVER_KEY],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    group_name="gold",
    kinds={"postgres"},
    owners=["team:data"],
    description=(
        "The cleaned readings of the last ZENTHOS_HISTORICAL_DAYS days, as a table. On TimescaleDB "
        "the hourly and daily rollups are computed from it. Older days are in silver."
    ),
    metadata=describe_table(HISTORICAL_TABLE, HISTORICAL_SCHEMA, HISTORICAL_COLUMNS, in_lake=False),
    check_specs=[
        reconciles_spec(
            HISTORICAL_KEY, description="Rows of the days that are kept are the readings in silver."
        )
    ],
)
def telemetry_historical(
    context: dg.AssetExecutionContext, platform: Platform, config: BuildConfig
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    days = days_of(context)
    today = datetime.now(UTC).date()
    oldest = oldest_kept(today, platform.settings.historical_days)
    kept = [day for day in days if day >= oldest]
    with building(context, platform, config, _HISTORICAL, days) as builder:
        history = find_history(builder.connection)
        others = {day: ["kept" if day >= oldest else "past"] for day in days}
        found = builder.sources(days, others)
        stale, outcome = builder.plan(found, absent(builder, found, kept))
        for day in stale:
            outcome.add({day: load(builder, history, found, day, is_kept=day >= oldest)})
        in_use = history.tidy(builder.connection, oldest, today)
        count = count_rows(builder.connection, HISTORICAL_TABLE, kept[0], kept[-1]) if kept else 0
    if in_use:
        context.log.warning("being read, left for the next run: %s", ", ".join(map(str, in_use)))
    describe(context, outcome)
    picture = plots.rows_by_day(outcome.rows, "readings a day")
    context.add_asset_metadata({"rows_by_day": picture}, partition_key=str(days[-1]))
    return dg.MaterializeResult(
        check_results=[reconciles(count, sum(found.rows.get(day, 0) for day in kept))]
    )


def absent(builder: Builder, found: Sources, kept: Collection[date]) -> list[date]:
    """Days that should have rows and have none, such as those past a retention that was raised."""
    return [
        day
        for day in kept
        if found.rows.get(day) and not holds_any(builder.connection, HISTORICAL_TABLE, day, day)
    ]


def load(builder: Builder, history: History, found: Sources, day: date, *, is_kept: bool) -> Build:
    """Make the table hold a day, or leave out one that is past; returns its row of etl_runs."""
    begin = time.monotonic()
    connection = builder.connection
    build = made(found, day, (found.checksums[str(day)], found.rows.get(day, 0) * is_kept), 0.0)
    # a refresh of aggregates is refused within a transaction
    with nullcontext() if history.aggregates else connection.transaction():
        if is_kept or history.aggregates:
            frames = read_slices(builder.store, SILVER, [day], HISTORICAL_SCHEMA, found.rows)
            with connection.transaction():
                history.prepare(connection, day)
                replace_days(connection, HISTORICAL_TABLE, frames, day, day)
            history.refresh(connection, day)
        build = replace(build, duration_s=time.monotonic() - begin)
        record(connection, builder.recipe.name, [build], run_id=builder.run_id)
    return build
