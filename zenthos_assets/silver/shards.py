"""telemetry_cleaned in pieces: N ranges of device buckets, built side by side and joined.

1. Piece k of N holds the devices of the buckets from k * 65536 // N up to, not including, those of
   the next. What becomes of a message is decided within its device: no piece needs another.
2. The pieces one after the other are the day, in the order and to the bytes that it has where it is
   built whole.
3. A piece is named by what it holds: with another N, all are built anew.
"""

import hashlib
import time
from collections.abc import Sequence
from datetime import date

import polars as pl

from zenthos_assets import parquet, runs
from zenthos_assets.parquet import ALL_BUCKETS
from zenthos_assets.runs import Build
from zenthos_assets.silver import statistics
from zenthos_assets.silver.day_runs import (
    CLEANED,
    CLEANED_ASSET,
    CODE_VERSION,
    STATISTICS,
    Outcome,
    Session,
    Target,
    plan,
    record,
)
from zenthos_assets.silver.order import count_repeated
from zenthos_assets.silver.source import archived_shares
from zenthos_assets.silver.tally import SAMPLE_ROWS
from zenthos_assets.silver.transforms import SCHEMA
from zenthos_core import lake
from zenthos_core.errors import ArchiveError

PIECES = f"{CLEANED}_pieces"


def whole() -> Target:
    """A day in one piece."""
    return Target(CLEANED_ASSET, lambda day: lake.day_key(CLEANED, day))


def piece(number: int, of: int) -> Target:
    """Piece `number`, from 0 (rule 1)."""
    first, end = ALL_BUCKETS
    buckets = (first + number * (end - first) // of, first + (number + 1) * (end - first) // of)

    def key_of(day: date) -> str:
        return f"{PIECES}/{day:%Y/%m/%d}.{number}-of-{of}.parquet"

    return Target(f"silver_shards/{CLEANED}_{number}", key_of, buckets)


def join_days(run: Session, days: Sequence[date], pieces: Sequence[Target]) -> Outcome:
    """Join the pieces of each day of which one has changed (rule 2).

    Raises:
        ArchiveError: where a piece is missing or changes meanwhile; it says which.
    """
    partitions = list(map(str, days))
    known = {t.asset: runs.latest_builds(run.analytics, t.asset, partitions) for t in pieces}
    for target in pieces:
        if missing := set(partitions) - known[target.asset].keys():
            raise ArchiveError(
                f"{target.asset} has no sound build of {min(missing)}: build it, see its run"
            )
    of_day = {day: [known[target.asset][str(day)] for target in pieces] for day in days}
    inputs = {
        str(day): runs.checksum(CODE_VERSION, [build.output_checksum for build in builds])
        for day, builds in of_day.items()
    }
    stale, kept = plan(run, CLEANED_ASSET, whole().key_of, inputs)
    outcome = Outcome(kept)
    shares = archived_shares(run.ops, days)
    for day in stale:
        archived = sum(share.row_count for share in shares if share.day == day)
        parts = list(zip(pieces, of_day[day], strict=True))
        build = _join(run, day, parts, inputs[str(day)], outcome)
        if archived != build.rows_in:
            outcome.lost[day] = f"{archived} archived, {build.rows_in} accounted for"
        elif not outcome.repeated:
            record(run, CLEANED_ASSET, [build])
        outcome.builds[day] = build
        outcome.rebuilt.append(day)
    return outcome


def _join(
    run: Session,
    day: date,
    parts: Sequence[tuple[Target, Build]],
    input_checksum: str,
    outcome: Outcome,
) -> Build:
    begin = time.monotonic()
    builds = [build for _, build in parts]
    described = []
    with parquet.writing(SCHEMA) as writer:
        for target, built in parts:
            frame = _read(run, target, day, built)
            described.append(statistics.describe(frame))
            outcome.repeated += count_repeated(frame)
            outcome.sample.append(frame.gather_every(max(1, len(frame) // SAMPLE_ROWS)))
            writer.write(frame)
        data = writer.finish()
    run.store.put(lake.SILVER, whole().key_of(day), data)
    of_day = pl.concat(described).sort(statistics.DEVICE_DAY)
    run.store.put(lake.SILVER, lake.day_key(STATISTICS, day), parquet.encode(of_day))
    return Build(
        partition=str(day),
        input_checksum=input_checksum,
        output_checksum=hashlib.sha256(data).hexdigest(),
        rows_in=sum(b.rows_in for b in builds),
        rows_out=sum(b.rows_out for b in builds),
        rows_duplicate=sum(b.rows_duplicate for b in builds),
        rows_quarantined=sum(b.rows_quarantined for b in builds),
        duration_s=time.monotonic() - begin,
    )


def _read(run: Session, target: Target, day: date, built: Build) -> pl.DataFrame:
    key = target.key_of(day)
    data = run.store.get(lake.SILVER, key)
    if hashlib.sha256(data).hexdigest() != built.output_checksum:
        raise ArchiveError(f"{lake.SILVER}/{key} is not what etl_runs says: build the piece again")
    return parquet.decode(data)
