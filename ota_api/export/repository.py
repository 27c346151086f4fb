"""Tables of our databases, batch by batch, as of one moment.

Loads pyarrow: import it where it is used.
"""

from collections.abc import Generator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import psycopg
import pyarrow as pa
from psycopg import sql

from ota_api.export.batches import Source
from ota_api.export.catalogue import SqlTable
from ota_api.export.schemas import Selection
from zenthos_core.database import connect
from zenthos_core.errors import NotFoundError

FETCH_ROWS: Final = 20_000
FIRST_ROW_WITHIN_MS: Final = 300_000
"""A large range is sorted before its first row comes."""
CLIENT_PATIENCE_MS: Final = 60_000
"""A reader that takes nothing for so long would keep the database from tidying up."""

_COLUMNS: Final = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""
_ARROW: Final = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "date": pa.date32(),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}
"""Any other type is exported as Postgres writes it."""


def read_rows(url: str, table: SqlTable, selection: Selection) -> Source:
    """The rows selected, by time and device.

    Raises:
        NotFoundError: where the table is not there yet, has no such days, or not the column that
            a selection needs.
    """
    connection = connect(url, application="ota-export")
    try:
        types, where, values = _prepare(connection, table, selection)
    except BaseException:
        connection.close()
        raise
    schema = pa.schema([(name, _ARROW.get(kind, pa.string())) for name, kind in types.items()])
    return Source(schema, _batches(connection, _query(table, types, where), values, schema))


def _prepare(
    connection: psycopg.Connection, table: SqlTable, selection: Selection
) -> tuple[dict[str, str], sql.Composable, list[Any]]:
    """Types of the columns, and the condition on rows, once it is known that some meet it."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    connection.execute(f"SET LOCAL statement_timeout = {FIRST_ROW_WITHIN_MS}")
    connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {CLIENT_PATIENCE_MS}")
    types = _column_types(connection, table)
    where, values = _condition(table, selection, types)
    if not _exists(connection, table, where, values):
        raise NotFoundError(_nothing(connection, table, selection))
    return types, where, values


def _column_types(connection: psycopg.Connection, table: SqlTable) -> dict[str, str]:
    found: dict[str, str] = dict(
        connection.execute(_COLUMNS, [f"public.{table.relation}"]).fetchall()
    )
    if not found:
        raise NotFoundError(f"{table.database}/{table.relation} is not there yet: migrate")
    return {name: found[name] for name in table.columns or found}


def _condition(
    table: SqlTable, selection: Selection, types: dict[str, str]
) -> tuple[sql.Composable, list[Any]]:
    if (selection.first or selection.last) and not table.time:
        raise NotFoundError(f"{table.relation} is as it is now: leave `from` and `to` out")
    if selection.device and table.device not in types:
        raise NotFoundError(f"{table.relation} is not by device: leave `device` out")
    parts: list[sql.Composable] = [sql.SQL("true")]
    values: list[Any] = []
    time = sql.Identifier(table.time or table.device)
    if selection.first:
        parts.append(sql.SQL("{} >= %s").format(time))
        values.append(_moment(selection.first, types[table.time]))
    if selection.last:
        parts.append(sql.SQL("{} < %s").format(time))
        values.append(_moment(selection.last + timedelta(days=1), types[table.time]))
    if selection.device:
        parts.append(sql.SQL("{} = ANY(%s)").format(sql.Identifier(table.device)))
        values.append(selection.device)
    return sql.SQL(" AND ").join(parts), values


def _moment(day: date, kind: str) -> date:
    return day if kind == "date" else datetime(day.year, day.month, day.day, tzinfo=UTC)


def _query(table: SqlTable, types: dict[str, str], where: sql.Composable) -> sql.Composed:
    columns = [
        sql.Identifier(name) if kind in _ARROW else sql.SQL("{}::text").format(sql.Identifier(name))
        for name, kind in types.items()
    ]
    keys = [name for name in (table.time, table.device) if name in types] or list(types)[:1]
    return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {}").format(
        sql.SQL(", ").join(columns),
        sql.Identifier(table.relation),
        where,
        sql.SQL(", ").join(map(sql.Identifier, keys)),
    )


def _exists(
    connection: psycopg.Connection, table: SqlTable, where: sql.Composable, values: Sequence[Any]
) -> bool:
    query = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE {})")
    row = connection.execute(query.format(sql.Identifier(table.relation), where), values).fetchone()
    return bool(row and row[0])


def _nothing(connection: psycopg.Connection, table: SqlTable, selection: Selection) -> str:
    of = f" of {', '.join(selection.device[:3])}" if selection.device else ""
    what = f"no rows{of} in {table.relation}"
    if not table.time:
        return what
    query = sql.SQL("SELECT min({0}), max({0}) FROM {1}").format(
        sql.Identifier(table.time), sql.Identifier(table.relation)
    )
    first, last = connection.execute(query).fetchone() or (None, None)
    there = "it is empty" if first is None else f"it holds {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    return f"{what} {selection.describe_range()}: {there}"


def _batches(
    connection: psycopg.Connection, query: sql.Composed, values: Sequence[Any], schema: pa.Schema
) -> Generator[pa.RecordBatch, None, None]:
    with closing(connection), connection.cursor("export") as cursor:
        cursor.execute(query, values)
        while rows := cursor.fetchmany(FETCH_ROWS):
            columns = zip(*rows, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
