"""Gold tables in the analytical database: a range of days is replaced, all at once.

1. Rows go in as CSV by COPY: at once where the table holds nothing of those days, else through a
   staging table and INSERT … ON CONFLICT DO UPDATE.
2. Rows that are no longer there are deleted; rows that are the same are left alone.
3. The caller's transaction is the caller's: what belongs to the rows is written in it, too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from itertools import chain
from typing import Final, LiteralString

import polars as pl
import polars.selectors as cs
import psycopg
from psycopg import sql

ROWS_A_WRITE: Final = 50_000
_NULL: Final = r"\N"
_COPY: Final = r"COPY {table} ({columns}) FROM STDIN (FORMAT csv, NULL '\N')"
_DELETE_VANISHED: Final = """
DELETE FROM {table} t WHERE {time} >= %s AND {time} < %s
AND NOT EXISTS (SELECT FROM staging s WHERE {match})"""


@dataclass(frozen=True)
class Table:
    """A table, its primary key, and the column that holds its time."""

    name: str
    key: tuple[str, ...]
    time: str
    time_is_date: bool

    def bounds(self, first: date, last: date) -> list[date]:
        """The first moment of a range of days and the first after it."""
        end = last + timedelta(days=1)
        if self.time_is_date:
            return [first, end]
        return [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (first, end)]


HOURLY_TABLE = Table("telemetry_hourly", ("device_id", "bucket"), "bucket", time_is_date=False)
DAILY_TABLE = Table("telemetry_daily", ("device_id", "day"), "day", time_is_date=True)
FEATURES_TABLE = Table("ml_features", ("device_id", "date"), "date", time_is_date=True)
WEATHER_TABLE = Table("weather_daily", ("farm_id", "day"), "day", time_is_date=True)
RESPONSE_TABLE = Table(
    "irrigation_response", ("device_id", "started_at", "event_id"), "started_at", time_is_date=False
)
TRENDS_TABLE = Table("telemetry_trends", ("device_id", "week", "weeks"), "week", time_is_date=True)
HISTORICAL_TABLE = Table(
    "telemetry_historical", ("device_id", "time", "message_id"), "time", time_is_date=False
)


def replace_days(
    connection: psycopg.Connection,
    table: Table,
    frames: Iterable[pl.DataFrame],
    first: date,
    last: date,
) -> None:
    """Make the table hold exactly the rows of `frames` for those days (rules 1 and 2)."""
    bounds = table.bounds(first, last)
    with connection.transaction():
        if not holds_any(connection, table, first, last):
            copy_rows(connection, table.name, frames)
            return
        connection.execute(_of(table, "CREATE TEMP TABLE staging (LIKE {table}) ON COMMIT DROP"))
        columns = copy_rows(connection, "staging", frames)
        connection.execute(_of(table, _DELETE_VANISHED), bounds)
        if columns:
            connection.execute(_merge(table, columns))
        connection.execute("DROP TABLE staging")


def holds_any(connection: psycopg.Connection, table: Table, first: date, last: date) -> bool:
    """Whether there is a row of those days."""
    query = "SELECT EXISTS (SELECT FROM {table} WHERE {time} >= %s AND {time} < %s)"
    row = connection.execute(_of(table, query), table.bounds(first, last)).fetchone()
    return bool(row and row[0])


def count_rows(connection: psycopg.Connection, table: Table, first: date, last: date) -> int:
    """Rows of those days."""
    query = "SELECT count(*) FROM {table} WHERE {time} >= %s AND {time} < %s"
    row = connection.execute(_of(table, query), table.bounds(first, last)).fetchone()
    return int(row[0]) if row else 0


def count_samples(connection: psycopg.Connection, table: Table, first: date, last: date) -> int:
    """Readings behind the rollups of those days."""
    query = (
        "SELECT coalesce(sum(sample_count), 0)::bigint FROM {table}"
        " WHERE {time} >= %s AND {time} < %s"
    )
    row = connection.execute(_of(table, query), table.bounds(first, last)).fetchone()
    return int(row[0]) if row else 0


def is_aggregate(connection: psycopg.Connection, table: Table) -> bool:
    """Whether TimescaleDB computes it from the readings: then nobody writes to it."""
    row = connection.execute(
        "SELECT relkind = 'v' FROM pg_class WHERE oid = %s::regclass", [table.name]
    ).fetchone()
    return bool(row and row[0])


def copy_rows(
    connection: psycopg.Connection, name: str, frames: Iterable[pl.DataFrame]
) -> list[str]:
    """COPY frames of one shape into a table, 16 bytes as a uuid; returns their columns."""
    chunks = _chunks(frames)
    first = next(chunks, None)
    if first is None:
        return []
    columns = sql.SQL(", ").join(map(sql.Identifier, first.columns))
    statement = sql.SQL(_COPY).format(table=sql.Identifier(name), columns=columns)
    with connection.cursor().copy(statement) as copy:
        for chunk in chain([first], chunks):
            copy.write(_csv(chunk))
    return first.columns


def _chunks(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    return (chunk for frame in frames for chunk in frame.iter_slices(ROWS_A_WRITE))


def _csv(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.with_columns(cs.binary().bin.encode("hex")).write_csv(
        # every text is quoted, so that none is taken for a null
        buffer,
        include_header=False,
        null_value=_NULL,
        quote_style="non_numeric",
    )
    return buffer.getvalue()


def _merge(table: Table, columns: list[str]) -> sql.Composed:
    """Insert what is new, update what differs."""
    names = [sql.Identifier(name) for name in columns]
    others = [sql.Identifier(name) for name in columns if name not in table.key]
    comma = sql.SQL(", ")
    update = comma.join(sql.SQL("{0} = excluded.{0}").format(name) for name in others)
    old = comma.join(sql.SQL("t.{}").format(name) for name in others)
    new = comma.join(sql.SQL("excluded.{}").format(name) for name in others)
    statement = (
        "INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM staging"
        " ON CONFLICT ({key}) DO UPDATE SET {update} WHERE ({old}) IS DISTINCT FROM ({new})"
    )
    return sql.SQL(statement).format(
        table=sql.Identifier(table.name),
        columns=comma.join(names),
        key=comma.join(map(sql.Identifier, table.key)),
        update=update,
        old=old,
        new=new,
    )


def _of(table: Table, statement: LiteralString) -> sql.Composed:
    match = sql.SQL(" AND ").join(
        sql.SQL("s.{0} = t.{0}").format(sql.Identifier(name)) for name in table.key
    )
    return sql.SQL(statement).format(
        table=sql.Identifier(table.name), time=sql.Identifier(table.time), match=match
    )
