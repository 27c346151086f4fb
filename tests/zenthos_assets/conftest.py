"""A platform on real databases and a folder store, and readings to put into its outbox."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import dagster as dg
import psycopg
import pytest

from zenthos_assets.automation import RANGE_END, RANGE_START
from zenthos_assets.definitions import build_definitions
from zenthos_assets.resources import Platform
from zenthos_core.blobs import FolderStore

RECEIVED = datetime(2026, 11, 20, 5, 30, tzinfo=UTC)
HOUR_KEY = "2026-11-20-05:00"


def reading(
    device_id: str, time: datetime, number: int = 0, sensors: Mapping[str, float] | None = None
) -> bytes:
    """A telemetry payload; the same arguments give the same message_id."""
    message = {
        "message_id": str(uuid5(NAMESPACE_OID, f"{device_id} {time} {number}")),
        "device_id": device_id,
        "timestamp": int(time.timestamp()),
        "sensors": dict(sensors or {"soil_moisture": 30.0, "temperature": 20.0}),
        "firmware_version": "v1.0.0",
    }
    return json.dumps(message).encode()


def topic_of(payload: bytes, message_type: str) -> str:
    """The topic of the payload's device, or of soil-1 where it names none."""
    try:
        device_id = json.loads(payload).get("device_id", "soil-1")
    except (ValueError, AttributeError):
        device_id = "soil-1"
    return f"zenthos/esp32-s3/{device_id}/{message_type}"


@dataclass
class Farmyard:
    """A platform with a farm, its devices and an outbox to fill."""

    platform: Platform
    ops_url: str
    analytics_url: str
    store: FolderStore
    instance: dg.DagsterInstance

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement on the operational database."""
        with psycopg.connect(self.ops_url) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def query_analytics(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one query on the analytical database."""
        with psycopg.connect(self.analytics_url) as connection:
            return connection.execute(statement).fetchall()

    def analyse(self, statement: str, *parameters: object) -> None:
        """Run one statement on the analytical database."""
        with psycopg.connect(self.analytics_url) as connection:
            connection.execute(statement, parameters)

    def register(self, *device_ids: str) -> None:
        """Devices of one farm."""
        self.execute("INSERT INTO farms (name) VALUES ('north') ON CONFLICT DO NOTHING")
        for device_id in device_ids:
            self.execute(
                "INSERT INTO devices (id, farm_id, device_model, device_type, latitude, longitude)"
                " SELECT %s, id, 'esp32-s3', 'soil', 39.1, -96.6 FROM farms",
                device_id,
            )

    def receive(
        self,
        payloads: Iterable[bytes],
        *,
        at: datetime = RECEIVED,
        message_type: str = "telemetry",
    ) -> None:
        """Put messages into the outbox and the ledger as ingest does."""
        start = at.replace(minute=0, second=0, microsecond=0)
        end = start + timedelta(hours=1)
        rows = list(payloads)
        with psycopg.connect(self.ops_url) as connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS raw_messages_{start:%Y%m%d%H}"
                f" PARTITION OF raw_messages FOR VALUES FROM ('{start}') TO ('{end}')"
            )
            copy_in = (
                "COPY raw_messages (message_type, topic, payload, received_at, qos) FROM STDIN"
            )
            with connection.cursor().copy(copy_in) as copy:
                for row in rows:
                    copy.write_row((message_type, topic_of(row, message_type), row, at, 1))
            connection.execute(
                "INSERT INTO ledger (day, device_id, stored) VALUES (%s, 'soil-1', %s)"
                " ON CONFLICT (day, device_id) DO UPDATE SET stored = ledger.stored + %s",
                [at.date(), len(rows), len(rows)],
            )

    def run(
        self,
        job: str,
        first: str | None = None,
        last: str | None = None,
        *,
        platform: Platform | None = None,
        run_config: dict[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Execute a job for a range of partitions."""
        tags = {RANGE_START: first, RANGE_END: last or first} if first else {}
        definition = build_definitions(platform or self.platform).resolve_job_def(job)
        return definition.execute_in_process(
            instance=self.instance, tags=tags, run_config=run_config, raise_on_error=False
        )


@pytest.fixture
def farmyard(
    ops_url: str, analytics_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Farmyard]:
    """A platform whose settings lie in tmp_path; devices soil-1 and soil-2 are registered."""
    store = FolderStore(tmp_path / "blobs")
    settings = {
        "DATABASE_URL": ops_url,
        "ANALYTICS_DATABASE_URL": analytics_url,
        "BLOB_URL": store.root.as_uri(),
        "MLFLOW_URL": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    for name in settings:
        monkeypatch.delenv(f"ZENTHOS_{name}", raising=False)
    file = tmp_path / ".env"
    file.write_text("".join(f"ZENTHOS_{name}={value}\n" for name, value in settings.items()))
    with dg.DagsterInstance.ephemeral() as instance:
        yard = Farmyard(Platform(directory=str(tmp_path)), ops_url, analytics_url, store, instance)
        yard.register("soil-1", "soil-2")
        yield yard
