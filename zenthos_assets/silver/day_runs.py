"""A run over days of silver: what is out of date is built, kept and recorded, by runs.py's rules.

1. The object is written first, then the statistics, then etl_errors, and the row of etl_runs last.
2. A day of which messages are missing or doubled is not recorded: the next run builds it again.
3. What etl_runs calls built and the lake has lost is built again.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Final

import polars as pl
import psycopg

from zenthos_assets import parquet, runs
from zenthos_assets.bronze import codec
from zenthos_assets.parquet import ALL_BUCKETS, Buckets
from zenthos_assets.resources import Platform
from zenthos_assets.runs import Build
from zenthos_assets.silver import errors
from zenthos_assets.silver.build import Built, build_days
from zenthos_assets.silver.reference import (
    WEATHER_SCHEMA,
    Reference,
    read_irrigation,
    read_placements,
)
from zenthos_assets.silver.source import Share, archived_shares, input_checksums
from zenthos_assets.silver.tally import Counts, Tally
from zenthos_assets.silver.transforms import group_days
from zenthos_core import lake
from zenthos_core.blobs import BlobStore

CLEANED: Final = "telemetry_cleaned"
WEATHER: Final = "weather_hourly"
STATISTICS: Final = "telemetry_statistics"
CLEANED_ASSET: Final = f"silver/{CLEANED}"
"""Its name in etl_runs and etl_errors, whichever shard finds an error."""

CODE_VERSION: Final = "1"
"""To be raised with every change of what the same input gives."""

GROUP_ROWS: Final = 500_000
"""Readings of small days that are built together."""


@dataclass(frozen=True)
class Target:
    """What is built: the name in etl_runs, where the object of a day goes, and whose readings."""

    asset: str
    key_of: Callable[[date], str]
    buckets: Buckets = ALL_BUCKETS


@dataclass
class Outcome:
    """What became of the days of a run."""

    builds: dict[date, Build] = field(default_factory=dict)
    """The newest build of each day."""

    rebuilt: list[date] = field(default_factory=list)
    lost: dict[date, str] = field(default_factory=dict)
    """Days of which messages are missing, and how many."""

    repeated: int = 0
    sample: list[pl.DataFrame] = field(default_factory=list)


@dataclass(frozen=True)
class Session:
    """A run's connections, in autocommit, and what it was asked for."""

    ops: psycopg.Connection
    analytics: psycopg.Connection
    store: BlobStore
    run_id: str
    force: bool


@contextmanager
def session(
    platform: Platform, asset: str, days: Sequence[date], *, run_id: str, force: bool
) -> Iterator[Session]:
    """Hold days of an asset until the block ends: another run of them waits."""
    with platform.ops() as ops, platform.analytics() as analytics:
        ops.autocommit = analytics.autocommit = True
        with runs.exclusive(analytics, asset, days):
            yield Session(ops, analytics, platform.store(), run_id, force)


def plan(
    run: Session, asset: str, key_of: Callable[[date], str], inputs: Mapping[str, str]
) -> tuple[list[date], dict[date, Build]]:
    """The days to build, in order, and the builds that stay as they are (rule 3)."""
    known = runs.latest_builds(run.analytics, asset, list(inputs))
    there = {
        partition: build
        for partition, build in known.items()
        if run.store.exists(lake.SILVER, key_of(date.fromisoformat(partition)))
    }
    stale = [date.fromisoformat(p) for p in runs.outdated(inputs, there, force=run.force)]
    kept = {date.fromisoformat(p): build for p, build in there.items()}
    return stale, {day: build for day, build in kept.items() if day not in set(stale)}


def read_reference(run: Session, days: Sequence[date]) -> Reference:
    """What holds for those days."""
    return Reference(
        read_placements(run.ops),
        parquet.read_days(run.store, lake.SILVER, WEATHER, days, WEATHER_SCHEMA),
        read_irrigation(run.ops, days),
    )


def clean_days(run: Session, target: Target, days: Sequence[date]) -> Outcome:
    """Build what is out of date of telemetry_cleaned, or of a piece of it (rules 1 to 3)."""
    shares = archived_shares(run.ops, days)
    reference = read_reference(run, days)
    refused = errors.refused_devices(run.ops, CLEANED_ASSET, days)
    version = f"{CODE_VERSION} {target.buckets}"
    inputs = input_checksums(version, days, shares, reference, refused)
    stale, kept = plan(run, target.asset, target.key_of, inputs)
    outcome = Outcome(kept)
    contents = [share[:3] for share in shares]
    for group, keys in group_days(contents, stale, GROUP_ROWS):
        begin = time.monotonic()
        built = build_days(
            run.store, group, keys, reference, key_of=target.key_of, buckets=target.buckets
        )
        in_errors = _keep(run, target, group, keys, built.tally)
        lost = _lost(target, built.tally.counts, in_errors, shares)
        sound = [day for day in group if day not in lost and not built.tally.repeated]
        spent_s = (time.monotonic() - begin) / len(group)
        builds = {day: _made(day, inputs[str(day)], built, spent_s) for day in group}
        record(run, target.asset, [builds[day] for day in sound])
        outcome.builds |= builds
        outcome.rebuilt += group
        outcome.lost |= lost
        outcome.repeated += built.tally.repeated
        outcome.sample.append(built.tally.sample)
    return outcome


def record(run: Session, asset: str, builds: Sequence[Build]) -> None:
    """Write rows of etl_runs, all at once."""
    with run.analytics.transaction():
        runs.record(run.analytics, asset, builds, run_id=run.run_id)


def _keep(
    run: Session, target: Target, days: Sequence[date], keys: Sequence[str], tally: Tally
) -> Mapping[date, int]:
    """Statistics go to the lake, unusable messages to etl_errors; returns how many are there."""
    write_statistics(run.store, target, tally.statistics, days)
    broken = tally.malformed
    if tally.strangers:
        bronze = read_messages(run.store, keys)
        refused = errors.strangers_messages(bronze, tally.strangers, broken, days)
        broken = pl.concat([broken, refused])
    return errors.record(
        run.ops, CLEANED_ASSET, broken, days, run_id=run.run_id, buckets=target.buckets
    )


def read_messages(store: BlobStore, keys: Sequence[str]) -> pl.DataFrame:
    """Archived messages with their `object_key`."""
    decoded = [(key, codec.decode(store.get(lake.BRONZE, key))) for key in keys]
    return pl.concat([frame.with_columns(object_key=pl.lit(key)) for key, frame in decoded])


def write_statistics(
    store: BlobStore, target: Target, found: pl.DataFrame, days: Sequence[date]
) -> None:
    """Replace the statistics of those days; those of a piece are made when it is joined."""
    if target.buckets == ALL_BUCKETS:
        place = (lake.SILVER, partial(lake.day_key, STATISTICS))
        parquet.write_days(store, place, found, days, day=pl.col("day"))


def _lost(
    target: Target,
    counts: Mapping[date, Counts],
    in_errors: Mapping[date, int],
    shares: Sequence[Share],
) -> dict[date, str]:
    """Days that do not add up, and why."""
    lost = {}
    for day, count in counts.items():
        archived = sum(share.row_count for share in shares if share.day == day)
        if in_errors.get(day, 0) != count.quarantined:
            lost[day] = f"{count.quarantined} unusable, {in_errors.get(day, 0)} in etl_errors"
        elif target.buckets == ALL_BUCKETS and archived != count.received:
            lost[day] = f"{archived} archived, {count.received} accounted for"
    return lost


def _made(day: date, input_checksum: str, built: Built, duration_s: float) -> Build:
    count = built.tally.counts[day]
    return Build(
        partition=str(day),
        input_checksum=input_checksum,
        output_checksum=built.checksums[day],
        rows_in=count.received,
        rows_out=count.kept,
        rows_duplicate=count.duplicate,
        rows_quarantined=count.quarantined,
        duration_s=duration_s,
    )
