"""telemetry_historical: native day partitions, or a hypertable with aggregates; one interface.

1. Which of the two it is, the migration has decided, and the catalogue remembers.
2. A day is prepared and loaded in one transaction. On TimescaleDB its aggregates are refreshed
   right after, for exactly that day, while its rows are there: a refresh of dropped days would
   delete what was aggregated of them.
3. Days past the retention are dropped whole. A partition that is being read is left for the next
   run: nobody waits for the lock.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, Protocol

import psycopg
from psycopg import sql

from zenthos_assets.gold.warehouse import DAILY_TABLE, HISTORICAL_TABLE, is_aggregate

AGGREGATES: Final = ("telemetry_hourly", "telemetry_daily_utc")
COMPRESS_AFTER_DAYS: Final = 7
"""Late readings mostly come earlier, and would have to unpack what is packed."""
LOCK_TIMEOUT: Final = "2s"

_PARTITIONS: Final = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    " AND relname ~ '^telemetry_historical_[0-9]{8}$' ORDER BY relname"
)
# Two rows that go again in the same transaction: the day counts as changed from its first moment to
# its last, whatever rows come. Of a day that was dropped, other hours may have been aggregated.
_MARK_CHANGED: Final = """
WITH edges (moment) AS (VALUES (%(start)s::timestamptz), (%(end)s - INTERVAL '1 microsecond'))
INSERT INTO telemetry_historical
  (device_id, time, message_id, farm_id, received_at, quality, irrigation_event)
SELECT '', moment, gen_random_uuid(), gen_random_uuid(), moment, '', false FROM edges"""
_UNMARK: Final = (
    "DELETE FROM telemetry_historical WHERE device_id = '' AND time >= %(start)s AND time < %(end)s"
)
_CHUNKS_TO_COMPRESS: Final = (
    "SELECT format('%%I.%%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
    " WHERE hypertable_name = 'telemetry_historical' AND NOT is_compressed AND range_end <= %s"
    " ORDER BY range_start"
)


def oldest_kept(today: date, days: int) -> date:
    """The first day that is kept."""
    return today - timedelta(days=days)


class History(Protocol):
    """How days come into telemetry_historical and leave it."""

    @property
    def aggregates(self) -> bool:
        """Whether loading a day also computes its rollups: past days, too, are loaded for it."""

    def prepare(self, connection: psycopg.Connection, day: date) -> None:
        """Make room for the rows of a day, in the caller's transaction."""

    def refresh(self, connection: psycopg.Connection, day: date) -> None:
        """Compute what is aggregated of a day; outside of a transaction."""

    def tidy(self, connection: psycopg.Connection, oldest: date, today: date) -> list[date]:
        """Compress, and drop what is older than `oldest`; returns the days that stayed in use."""


@dataclass(frozen=True)
class Partitions:
    """One native partition a day, named telemetry_historical_YYYYMMDD."""

    aggregates: bool = False

    def prepare(self, connection: psycopg.Connection, day: date) -> None:
        name = partition_name(day)
        if connection.execute("SELECT to_regclass(%s)", [name]).fetchone() != (None,):
            return
        start, end = HISTORICAL_TABLE.bounds(day, day)
        # made aside and attached: CREATE … PARTITION OF would wait for every reader of the table
        make = "CREATE TABLE {name} (LIKE telemetry_historical INCLUDING ALL)"
        connection.execute(sql.SQL(make).format(name=sql.Identifier(name)))
        attach = (
            "ALTER TABLE telemetry_historical ATTACH PARTITION {name}"
            " FOR VALUES FROM ({start}) TO ({end})"
        )
        connection.execute(
            sql.SQL(attach).format(
                name=sql.Identifier(name), start=_literal(start), end=_literal(end)
            )
        )

    def refresh(self, connection: psycopg.Connection, day: date) -> None:
        """Nothing: the rollups are tables of their own."""

    def tidy(self, connection: psycopg.Connection, oldest: date, today: date) -> list[date]:
        names = [name for (name,) in connection.execute(_PARTITIONS).fetchall()]
        days = [datetime.strptime(name[-8:], "%Y%m%d").date() for name in names]
        return [day for day in days if day < oldest and not _drop(connection, day)]


@dataclass(frozen=True)
class Hypertable:
    """One chunk a day, compressed later; hourly and daily rollups are its aggregates."""

    aggregates: bool = True

    def prepare(self, connection: psycopg.Connection, day: date) -> None:
        start, end = HISTORICAL_TABLE.bounds(day, day)
        connection.execute(
            "SELECT decompress_chunk(c, if_compressed => true) FROM show_chunks("
            "'telemetry_historical', newer_than => %s::timestamptz, older_than => %s::timestamptz)"
            " c",
            [start, end],
        )
        for statement in (_MARK_CHANGED, _UNMARK):
            connection.execute(statement, {"start": start, "end": end})

    def refresh(self, connection: psycopg.Connection, day: date) -> None:
        for view in AGGREGATES:
            connection.execute(
                "CALL refresh_continuous_aggregate(%s, %s::timestamptz, %s::timestamptz)",
                [view, *HISTORICAL_TABLE.bounds(day, day)],
            )

    def tidy(self, connection: psycopg.Connection, oldest: date, today: date) -> list[date]:
        kept, _ = HISTORICAL_TABLE.bounds(oldest, oldest)
        connection.execute("SELECT drop_chunks('telemetry_historical', %s::timestamptz)", [kept])
        warm = today - timedelta(days=COMPRESS_AFTER_DAYS)
        bounds = HISTORICAL_TABLE.bounds(warm, warm)
        for (chunk,) in connection.execute(_CHUNKS_TO_COMPRESS, bounds[:1]).fetchall():
            connection.execute("SELECT compress_chunk(%s::regclass, true)", [chunk])
        return []


def find_history(connection: psycopg.Connection) -> History:
    """Which of the two there is (rule 1)."""
    return Hypertable() if is_aggregate(connection, DAILY_TABLE) else Partitions()


def partition_name(day: date) -> str:
    """`telemetry_historical_20261123`."""
    return f"telemetry_historical_{day:%Y%m%d}"


def _drop(connection: psycopg.Connection, day: date) -> bool:
    """Whether the partition could be dropped without making anybody wait (rule 3)."""
    try:
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
            name = sql.Identifier(partition_name(day))
            connection.execute(sql.SQL("DROP TABLE {}").format(name))
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _literal(moment: date) -> sql.Literal:
    return sql.Literal(moment.isoformat())
