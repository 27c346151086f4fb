"""Building gold partitions: only those whose input changed, object first, then rows and etl_runs.

The rules are those of zenthos_assets/runs.py. What a partition is made of is named by the output
checksums that etl_runs has of its upstream partitions.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta

import dagster as dg
import polars as pl
import psycopg

from zenthos_assets import parquet
from zenthos_assets.gold.warehouse import Table, is_aggregate, replace_days
from zenthos_assets.resources import Platform
from zenthos_assets.runs import Build, checksum, exclusive, latest_builds, outdated, record
from zenthos_core import lake
from zenthos_core.blobs import BlobStore


@dataclass(frozen=True)
class Upstream:
    """The partitions of an asset that a day is made of: itself, days before, days after."""

    key: dg.AssetKey
    before: int = 0
    after: int = 0

    @property
    def name(self) -> str:
        """Its name in etl_runs."""
        return self.key.to_user_string()

    def window(self, day: date) -> list[date]:
        """The days of the asset that a day needs."""
        return parquet.day_range(
            day - timedelta(days=self.before), day + timedelta(days=self.after)
        )


@dataclass(frozen=True)
class Recipe:
    """How the days of an asset are made. The first upstream's rows of a day are its rows_in."""

    key: dg.AssetKey
    table: Table
    code_version: str
    upstreams: tuple[Upstream, ...]
    step_days: int = 1
    """From one partition to the next: 7 where it is a week, named after its Monday."""

    @property
    def name(self) -> str:
        """Its name in etl_runs."""
        return self.key.to_user_string()


@dataclass(frozen=True)
class Sources:
    """What etl_runs says of what some days are made of."""

    checksums: Mapping[str, str]
    """Partition to input checksum."""

    rows: Mapping[date, int]
    """Rows of the first upstream, by day."""


@dataclass
class Outcome:
    """What became of the days of a run: the newest build of each, and which were built now."""

    builds: dict[date, Build] = field(default_factory=dict)
    rebuilt: set[date] = field(default_factory=set)

    @property
    def rows(self) -> dict[date, int]:
        """Rows by day, in order."""
        return {day: build.rows_out for day, build in sorted(self.builds.items())}


@contextmanager
def opened(platform: Platform, recipe: Recipe, days: Sequence[date]) -> Iterator[psycopg.Connection]:
    """The analytical database, with the days of an asset held for this run."""
    with platform.analytics() as connection:
        connection.autocommit = True  # each transaction below is one, and ends when it ends
        with exclusive(connection, recipe.name, days):
            yield connection


def sources(
    connection: psycopg.Connection,
    recipe: Recipe,
    days: Sequence[date],
    others: Mapping[date, Iterable[str]] | None = None,
) -> Sources:
    """Input checksums of days, from those of their upstream partitions and what else they read."""
    parts: dict[date, list[str]] = {day: list((others or {}).get(day, ())) for day in days}
    rows: dict[date, int] = {}
    for upstream in recipe.upstreams:
        wanted = sorted({needed for day in days for needed in upstream.window(day)})
        built = latest_builds(connection, upstream.name, list(map(str, wanted)))
        for day, known in parts.items():
            for needed in map(str, upstream.window(day)):
                if needed in built:
                    known.append(f"{upstream.name} {needed} {built[needed].output_checksum}")
        if upstream is recipe.upstreams[0]:
            rows = {day: built[str(day)].rows_out for day in days if str(day) in built}
    checksums = {str(day): checksum(recipe.code_version, known) for day, known in parts.items()}
    return Sources(checksums, rows)


def plan(
    connection: psycopg.Connection, recipe: Recipe, found: Sources, *, force: bool
) -> tuple[list[date], Outcome]:
    """The days to build, in order, and the builds that there are."""
    built = latest_builds(connection, recipe.name, list(found.checksums))
    stale = outdated(found.checksums, built, force=force)
    outcome = Outcome({date.fromisoformat(name): build for name, build in built.items()})
    return [date.fromisoformat(name) for name in stale], outcome


def batches(
    days: Iterable[date], weights: Mapping[date, int], limit: int, step_days: int = 1
) -> list[list[date]]:
    """Consecutive days, in groups of at most `limit` rows; a heavier day is a group of its own."""
    groups: list[list[date]] = []
    weight = 0
    for day in days:
        follows = groups and day - groups[-1][-1] == timedelta(days=step_days)
        weight += weights.get(day, 0)
        if not follows or weight > limit:
            groups.append([])
            weight = weights.get(day, 0)
        groups[-1].append(day)
    return groups


def build_all(
    context: dg.AssetExecutionContext,
    connection: psycopg.Connection,
    store: BlobStore,
    recipe: Recipe,
    found: Sources,
    *,
    force: bool,
    rows_at_once: int,
    make: Callable[[list[date]], pl.DataFrame],
) -> Outcome:
    """Build the days that are out of date, group by group, each written as runs.py says."""
    stale, outcome = plan(connection, recipe, found, force=force)
    computed = is_aggregate(connection, recipe.table)
    for group in batches(stale, found.rows, rows_at_once, recipe.step_days):
        begin = time.monotonic()
        frame = make(group)
        sums = write_objects(store, recipe, frame, group)
        spent = (time.monotonic() - begin) / len(group)
        builds = [
            Build(
                partition=str(day),
                input_checksum=found.checksums[str(day)],
                output_checksum=sums[day][0],
                rows_in=found.rows.get(day, 0),
                rows_out=sums[day][1],
                rows_duplicate=0,
                rows_quarantined=0,
                duration_s=spent,
            )
            for day in group
        ]
        with connection.transaction():
            if not computed:
                replace_days(connection, recipe.table, [frame], group[0], group[-1])
            record(connection, recipe.name, builds, run_id=context.run_id)
        outcome.builds |= dict(zip(group, builds, strict=True))
        outcome.rebuilt |= set(group)
        context.log.info("%s: %s rows of %s to %s", recipe.name, len(frame), group[0], group[-1])
    return outcome


def write_objects(
    store: BlobStore, recipe: Recipe, frame: pl.DataFrame, days: Iterable[date]
) -> dict[date, tuple[str, int]]:
    """Replace the objects of days; returns the SHA-256 and the rows of each."""
    day = pl.col(recipe.table.time).cast(pl.Date)
    parts = frame.partition_by(day.alias("_day"), as_dict=True, include_key=False)
    written = {}
    for wanted in days:
        part = parts.get((wanted,), frame.clear())
        data = parquet.encode(part)
        store.put(lake.GOLD, lake.day_key(recipe.table.name, wanted), data)
        written[wanted] = (hashlib.sha256(data).hexdigest(), len(part))
    return written


def describe(context: dg.AssetExecutionContext, outcome: Outcome) -> None:
    """Row counts of each partition of the run, and whether it was left as it was."""
    for day, count in outcome.rows.items():
        facts = {"dagster/row_count": count, "unchanged": day not in outcome.rebuilt}
        context.add_asset_metadata(facts, partition_key=str(day))
