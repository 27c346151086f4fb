"""etl_runs: what each partition was built from. Unchanged input is not built again.

1. The input of a partition is what was read for it: objects by their SHA-256, tables by a digest of
   the rows read, and the version of the code that transforms them.
2. A partition whose newest row names the same input is up to date, unless a run is forced.
3. A row is written last: after the object, in the transaction that fills the tables. A run that is
   killed before has built nothing, and the next builds it again, to the same bytes.
4. Two runs of one asset and month wait for each other; the second finds the first one's row.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Final

import psycopg
from psycopg.rows import class_row

LOCK_CLASS: Final = 0x65746C  # "etl": the first half of the advisory locks' keys

_LATEST: Final = """
SELECT DISTINCT ON (partition) partition, input_checksum, output_checksum,
  rows_in, rows_out, rows_duplicate, rows_quarantined, duration_s
FROM etl_runs WHERE asset = %s AND partition = ANY(%s) ORDER BY partition, id DESC"""
_RECORD: Final = """
INSERT INTO etl_runs (asset, partition, input_checksum, output_checksum,
  rows_in, rows_out, rows_duplicate, rows_quarantined, duration_s, run_id)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""


@dataclass(frozen=True)
class Build:
    """A partition as it was built: rows read and written.

    In silver, rows_in = rows_out + rows_duplicate + rows_quarantined.
    """

    partition: str
    input_checksum: str
    output_checksum: str
    rows_in: int
    rows_out: int
    rows_duplicate: int
    rows_quarantined: int
    duration_s: float


def checksum(code_version: str, parts: Iterable[str]) -> str:
    """SHA-256 of what a partition is made of, whatever the order of its parts (rule 1)."""
    return hashlib.sha256("\n".join([code_version, *sorted(parts)]).encode()).hexdigest()


def outdated(inputs: Mapping[str, str], built: Mapping[str, Build], *, force: bool) -> list[str]:
    """Those of `inputs` (partition to input checksum) that are to be built, in order (rule 2)."""
    return [
        partition
        for partition, input_checksum in sorted(inputs.items())
        if force or partition not in built or built[partition].input_checksum != input_checksum
    ]


def latest_builds(
    connection: psycopg.Connection, asset: str, partitions: Sequence[str]
) -> dict[str, Build]:
    """The newest build of each of these partitions that was ever built."""
    with connection.cursor(row_factory=class_row(Build)) as cursor:
        found = cursor.execute(_LATEST, [asset, list(partitions)]).fetchall()
    return {build.partition: build for build in found}


def record(
    connection: psycopg.Connection, asset: str, builds: Iterable[Build], *, run_id: str
) -> None:
    """Write the builds' rows into the caller's transaction (rule 3)."""
    rows = [
        [
            asset,
            b.partition,
            b.input_checksum,
            b.output_checksum,
            b.rows_in,
            b.rows_out,
            b.rows_duplicate,
            b.rows_quarantined,
            b.duration_s,
            run_id,
        ]
        for b in builds
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_RECORD, rows)


@contextmanager
def exclusive(connection: psycopg.Connection, asset: str, days: Sequence[date]) -> Iterator[None]:
    """Hold the months of `days` of an asset, until the block ends or the connection does (rule 4).

    The locks belong to the session: transactions may begin and end inside.
    """
    months = sorted({f"{asset} {day:%Y-%m}" for day in days})
    _each(connection, "SELECT pg_advisory_lock(%s, hashtext(%s))", months)
    try:
        yield
    finally:
        if not connection.closed:
            connection.rollback()
            _each(connection, "SELECT pg_advisory_unlock(%s, hashtext(%s))", months)


def _each(connection: psycopg.Connection, statement: str, keys: Sequence[str]) -> None:
    for key in keys:
        connection.execute(statement, [LOCK_CLASS, key])
    connection.commit()
