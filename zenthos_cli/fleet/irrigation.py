"""Irrigation events of a simulated farm, into the operational database."""

from collections.abc import Iterable
from datetime import UTC, datetime

import psycopg

from zenthos_cli.fleet.farm import Irrigation

INSERT = """
INSERT INTO irrigation_events
  (farm_id, timestamp, duration_minutes, water_volume_liters, triggered_by)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT (farm_id, timestamp) DO NOTHING
"""


def insert_irrigation(
    connection: psycopg.Connection, farm_id: str, events: Iterable[Irrigation]
) -> None:
    """Write events in one transaction; those that are there already stay as they are."""
    rows = [
        (
            farm_id,
            datetime.fromtimestamp(event.time, UTC),
            event.duration_minutes,
            event.water_volume_liters,
            event.triggered_by,
        )
        for event in events
    ]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(INSERT, rows)
