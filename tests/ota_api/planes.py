"""Fills both planes with readings, rollups and what is known of their builds."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from tests.ota_api.conftest import Ota

TODAY = date(2026, 11, 28)
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def at(day: date, hour: float = 12) -> datetime:
    """A moment of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)


def ago(days: int) -> date:
    """A day before today."""
    return TODAY - timedelta(days=days)


@dataclass
class Planes:
    """A server whose clock stands at NOW, and its databases."""

    ota: Ota

    def device(self, device_id: str, farm: str) -> UUID:
        """Registered; its farm."""
        answer = self.ota.register(device_id, farm_name=farm)
        return UUID(answer.json()["farm_id"])

    def ops(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Of the operational database."""
        return _run(self.ota.settings.database_url.get_secret_value(), query, values)

    def analytics(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Of the analytical one."""
        return _run(self.ota.settings.analytics_database_url.get_secret_value(), query, values)

    def hot(self, device_id: str, farm: UUID, time: datetime, **columns: Any) -> UUID:
        """A reading as ingest stores it; its message id."""
        self.ops(day_partition("telemetry_hot", time))
        row = {"message_id": uuid4(), "received_at": time, **columns}
        row |= {"device_id": device_id, "farm_id": farm, "time": time}
        self.ops(*_insert("telemetry_hot", row))
        return UUID(str(row["message_id"]))

    def cold(self, device_id: str, farm: UUID, time: datetime, **columns: Any) -> UUID:
        """A reading as gold/telemetry_historical has it."""
        self.analytics(day_partition("telemetry_historical", time))
        row = {"message_id": uuid4(), "received_at": time, "quality": "", **columns}
        row |= {"device_id": device_id, "farm_id": farm, "time": time, "irrigation_event": False}
        self.analytics(*_insert("telemetry_historical", row))
        return UUID(str(row["message_id"]))

    def daily(self, device_id: str, farm: UUID, day: date, **columns: Any) -> None:
        """A row of telemetry_daily."""
        row = {"device_id": device_id, "farm_id": farm, "day": day, "sample_count": 1, **columns}
        self.analytics(*_insert("telemetry_daily", row))

    def hourly(self, device_id: str, farm: UUID, bucket: datetime, **columns: Any) -> None:
        """A row of telemetry_hourly."""
        row = {"device_id": device_id, "farm_id": farm, "bucket": bucket, "sample_count": 1}
        self.analytics(*_insert("telemetry_hourly", row | columns))

    def built(self, asset: str, *days: date, finished: datetime | None = None) -> None:
        """Rows of etl_runs: built after the day's end unless said otherwise."""
        for day in days:
            row: dict[str, Any] = {"asset": asset, "partition": str(day), "input_checksum": "in"}
            row |= {"output_checksum": f"out of {day}", "rows_in": 1, "rows_out": 1}
            row |= {"duration_s": 1, "run_id": "run-1"}
            moment = finished or at(day + timedelta(days=1), 2)
            self.analytics(*_insert("etl_runs", row | {"finished_at": moment}))

    def archived(self, hour: datetime, *days: date) -> str:
        """A bronze object of an hour with a reading of each of the days."""
        key = f"telemetry/{hour:%Y/%m/%d/%H}.{uuid4().hex}.parquet"
        [(part,)] = self.ops("SELECT count(*) FROM bronze_objects WHERE hour = %s", hour)
        row = {"table_name": "telemetry", "hour": hour, "part": part, "object_key": key}
        row |= {"row_count": len(days), "size_bytes": 1, "sha256": "s" * 64, "run_id": "r"}
        self.ops(*_insert("bronze_objects", row))
        for day in days:
            self.ops(*_insert("bronze_days", {"object_key": key, "day": day, "row_count": 1}))
        return key


def _insert(table: str, row: dict[str, Any]) -> tuple[Any, ...]:
    places = ", ".join(["%s"] * len(row))
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values()


def day_partition(table: str, time: datetime) -> str:
    """SQL that makes the partition of a day where it is missing."""
    day = time.date()
    return (
        f"CREATE TABLE IF NOT EXISTS {table}_{day:%Y%m%d} PARTITION OF {table}"
        f" FOR VALUES FROM ('{day} 00:00Z') TO ('{day + timedelta(days=1)} 00:00Z')"
    )


def _run(url: str, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []
