"""Building gold partitions: only those whose input changed, object first, then rows and etl_runs.

The rules are those of zenthos_assets/runs.py. What a partition is made of is named by the output
checksums that etl_runs has of its upstream partitions.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial

import dagster as dg
import polars as pl
import psycopg

from zenthos_assets import parquet
from zenthos_assets.config import BuildConfig
from zenthos_assets.gold.warehouse import Table, is_aggregate, replace_days
from zenthos_assets.resources import Platform
from zenthos_assets.runs import Build, checksum, exclusive, latest_builds, outdated, record
from zenthos_core import lake
from zenthos_core.blobs import BlobStore

UNPARTITIONED = (date.min,)
"""Stands for all of an asset that has no partitions, when a run holds it."""


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
    """How the days of an asset are made. The rows of its first upstream are its rows_in."""

    key: dg.AssetKey
    table: Table
    code_version: str
    upstreams: tuple[Upstream, ...]
    step_days: int = 1
    """From one partition to the next: 7 where it is a week, named after its Monday."""

    in_lake: bool = True
    """Whether each partition has an object."""

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
    """Rows of the first upstream in the window of each day."""


@dataclass
class Outcome:
    """What became of the days of a run: the newest build of each, and which were built now."""

    builds: dict[date, Build] = field(default_factory=dict)
    rebuilt: set[date] = field(default_factory=set)

    def add(self, builds: Mapping[date, Build]) -> None:
        """These were built now."""
        self.builds |= builds
        self.rebuilt |= builds.keys()

    @property
    def rows(self) -> dict[date, int]:
        """Rows by day, in order."""
        return {day: build.rows_out for day, build in sorted(self.builds.items())}


@dataclass(frozen=True)
class Builder:
    """Builds partitions of one asset within a run that holds them."""

    recipe: Recipe
    connection: psycopg.Connection
    store: BlobStore
    run_id: str
    force: bool

    def sources(
        self, days: Sequence[date], others: Mapping[date, Iterable[str]] | None = None
    ) -> Sources:
        """Input checksums of days, from their upstream partitions and what else they read."""
        parts = {day: list((others or {}).get(day, ())) for day in days}
        rows: dict[date, int] = {}
        for upstream in self.recipe.upstreams:
            wanted = sorted({needed for day in days for needed in upstream.window(day)})
            built = latest_builds(self.connection, upstream.name, list(map(str, wanted)))
            for day, known in parts.items():
                needed = [built[str(d)] for d in upstream.window(day) if str(d) in built]
                known += [f"{upstream.name} {b.partition} {b.output_checksum}" for b in needed]
                rows.setdefault(day, sum(build.rows_out for build in needed))
        version = self.recipe.code_version
        checksums = {str(day): checksum(version, known) for day, known in parts.items()}
        return Sources(checksums, rows)

    def built_before(self) -> set[date]:
        """Every day that was ever built."""
        query = "SELECT DISTINCT partition FROM etl_runs WHERE asset = %s"
        found = self.connection.execute(query, [self.recipe.name]).fetchall()
        return {date.fromisoformat(partition) for (partition,) in found}

    def plan(self, found: Sources, also: Collection[date] = ()) -> tuple[list[date], Outcome]:
        """The days to build, in order, those of `also` among them, and the builds that stay.

        What etl_runs calls built and the lake has lost is built again.
        """
        known = latest_builds(self.connection, self.recipe.name, list(found.checksums))
        built = {name: build for name, build in known.items() if self._is_there(name)}
        stale = outdated(found.checksums, built, force=self.force)
        outcome = Outcome({date.fromisoformat(name): build for name, build in built.items()})
        return sorted({*map(date.fromisoformat, stale), *also}), outcome

    def _is_there(self, partition: str) -> bool:
        key = lake.day_key(self.recipe.table.name, date.fromisoformat(partition))
        return not self.recipe.in_lake or self.store.exists(lake.GOLD, key)

    def build(
        self, found: Sources, make: Callable[[list[date]], pl.DataFrame], *, rows_at_once: int
    ) -> Outcome:
        """Build what is out of date, group by group: objects, then rows and etl_runs at once."""
        stale, outcome = self.plan(found)
        table = self.recipe.table
        computed = is_aggregate(self.connection, table)
        for group in batches(stale, found.rows, rows_at_once, self.recipe.step_days):
            begin = time.monotonic()
            frame = make(group)
            place = (lake.GOLD, partial(lake.day_key, table.name))
            written = parquet.write_days(
                self.store, place, frame, group, day=pl.col(table.time).cast(pl.Date)
            )
            spent = (time.monotonic() - begin) / len(group)
            builds = {day: made(found, day, written[day], spent) for day in group}
            with self.connection.transaction():
                if not computed:
                    replace_days(self.connection, table, [frame], group[0], group[-1])
                record(self.connection, self.recipe.name, builds.values(), run_id=self.run_id)
            outcome.add(builds)
        return outcome


def made(found: Sources, day: date, written: tuple[str, int], duration_s: float) -> Build:
    """The row for etl_runs of a day, of which (output checksum, rows) have been written."""
    output_checksum, rows_out = written
    return Build(
        partition=str(day),
        input_checksum=found.checksums[str(day)],
        output_checksum=output_checksum,
        rows_in=found.rows.get(day, 0),
        rows_out=rows_out,
        rows_duplicate=0,
        rows_quarantined=0,
        duration_s=duration_s,
    )


@contextmanager
def building(
    context: dg.AssetExecutionContext,
    platform: Platform,
    config: BuildConfig,
    recipe: Recipe,
    days: Sequence[date],
) -> Iterator[Builder]:
    """A builder that holds these days of the asset until the block ends."""
    with platform.analytics() as connection:
        connection.autocommit = True  # each transaction is one of its own, and ends where it ends
        with exclusive(connection, recipe.name, days):
            yield Builder(recipe, connection, platform.store(), context.run.run_id, config.force)


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


def describe(context: dg.AssetExecutionContext, outcome: Outcome) -> None:
    """Row counts of each partition of the run, and whether it was left as it was."""
    for day, count in outcome.rows.items():
        facts = {"dagster/row_count": count, "unchanged": day not in outcome.rebuilt}
        context.add_asset_metadata(facts, partition_key=str(day))
