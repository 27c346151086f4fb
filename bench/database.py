"""What the database says of a bench: how far it is, what was lost, what is there twice."""

import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, LiteralString

import psycopg

from bench.messages import MODEL
from bench.process import BenchError

POLL_S: Final = 0.02
STALL_S: Final = 60.0
COUNTED: Final = "SELECT coalesce(sum(received - duplicate), 0)::int8 FROM ledger"
"""Messages accounted for, each once, however often it came."""


_ROWS_A_WRITE: Final = 10_000
_TABLES: Final = ("farms", "devices", "telemetry_hot", "raw_messages", "ledger", "quarantine")
_FARM: Final = "INSERT INTO farms (name) VALUES ('bench')"
_DEVICES: Final = f"""
INSERT INTO devices (id, farm_id, device_model, device_type)
SELECT 'bench-' || lpad(number::text, 5, '0'), farms.id, '{MODEL}', 'soil'
FROM farms, generate_series(0, %s - 1) number
"""
_LOST: Final = """
SELECT count(*) FROM published p
WHERE NOT EXISTS (SELECT FROM telemetry_hot t WHERE t.message_id = p.message_id)
"""
_DUPLICATED: Final = "SELECT count(*) - count(DISTINCT message_id) FROM telemetry_hot"


def connect(url: str) -> psycopg.Connection:
    """A connection that commits each statement."""
    return psycopg.connect(url, autocommit=True)


def prepare(connection: psycopg.Connection, devices: int, *tables: LiteralString) -> None:
    """Forget the run before, register devices anew, and leave the checkpoint behind.

    The devices are those whose ids `bench.messages.device_id` gives; `tables` are a peer's.
    """
    connection.execute(f"TRUNCATE {', '.join((*_TABLES, *tables))} CASCADE")
    connection.execute(_FARM)
    connection.execute(_DEVICES, [devices])
    connection.execute("ANALYZE devices")
    connection.execute("CHECKPOINT")


def number(connection: psycopg.Connection, query: LiteralString) -> int:
    """The one number that a query gives."""
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def await_count(
    connection: psycopg.Connection,
    query: LiteralString,
    messages: int,
    *,
    watch: Callable[[int], None] = lambda _: None,
) -> None:
    """Wait until a query counts all messages; `watch` hears each count.

    Raises:
        BenchError: nothing moves any more.
    """
    counted, moved_at = number(connection, query), time.monotonic()
    watch(counted)
    while counted < messages:
        time.sleep(POLL_S)
        before, counted = counted, number(connection, query)
        watch(counted)
        if counted != before:
            moved_at = time.monotonic()
        if time.monotonic() - moved_at > STALL_S:
            raise BenchError(f"stopped at {counted} of {messages} messages for {STALL_S:.0f} s")


def lost_and_duplicated(
    connection: psycopg.Connection, published: Iterable[bytes]
) -> tuple[int, int]:
    """How many of the published ids are not in telemetry_hot, and how many are there again."""
    connection.execute("DROP TABLE IF EXISTS published")
    connection.execute("CREATE TEMP TABLE published (message_id uuid NOT NULL)")
    ids = iter(published)
    with connection.cursor() as cursor, cursor.copy("COPY published FROM STDIN") as copy:
        while rows := list(islice(ids, _ROWS_A_WRITE)):
            copy.write(b"\n".join(rows) + b"\n")
    return number(connection, _LOST), number(connection, _DUPLICATED)
