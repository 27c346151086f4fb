"""Gold tables in the analytical database: a range of days is replaced, all at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl
import psycopg
from psycopg import sql


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


def replace_days(
    connection: psycopg.Connection, table: Table, frame: pl.DataFrame, first: date, last: date
) -> None:
    """Make the table hold exactly `frame` for those days, in one transaction."""
    names = [sql.Identifier(name) for name in frame.columns]
    columns = sql.SQL(", ").join(names)
    others = [sql.Identifier(name) for name in frame.columns if name not in table.key]
    parts = {
        "table": sql.Identifier(table.name),
        "columns": columns,
        "key": sql.SQL(", ").join(map(sql.Identifier, table.key)),
        "time": sql.Identifier(table.time),
        "updates": sql.SQL(", ").join(
            sql.SQL("{0} = excluded.{0}").format(name) for name in others
        ),
    }
    with connection.transaction():
        run = connection.execute
        run(sql.SQL("CREATE TEMP TABLE staging (LIKE {table}) ON COMMIT DROP").format(**parts))
        _copy(connection, sql.SQL("COPY staging ({columns}) FROM STDIN").format(**parts), frame)
        run(
            sql.SQL(
                "DELETE FROM {table} t WHERE {time} >= %s AND {time} < %s AND NOT EXISTS"
                " (SELECT FROM staging s WHERE {match})"
            ).format(**parts, match=_match(table)),
            table.bounds(first, last),
        )
        run(
            sql.SQL(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM staging"
                " ON CONFLICT ({key}) DO UPDATE SET {updates}"
            ).format(**parts)
        )


def count_samples(connection: psycopg.Connection, table: Table, first: date, last: date) -> int:
    """Readings behind the rollups of those days."""
    query = sql.SQL(
        "SELECT coalesce(sum(sample_count), 0)::bigint FROM {table}"
        " WHERE {time} >= %s AND {time} < %s"
    ).format(table=sql.Identifier(table.name), time=sql.Identifier(table.time))
    row = connection.execute(query, table.bounds(first, last)).fetchone()
    return int(row[0]) if row else 0


def _match(table: Table) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("s.{0} = t.{0}").format(sql.Identifier(name)) for name in table.key
    )


def _copy(connection: psycopg.Connection, statement: sql.Composed, frame: pl.DataFrame) -> None:
    rows: Sequence[tuple[object, ...]] = frame.rows()
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
