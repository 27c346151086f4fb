"""Releases, rollouts, deployments and readings as rows, where the server and ingest would write."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

MODEL = "esp32-s3"
VERSION = "v2.0.0"
GOOD = {"soil_moisture": 30.0, "temperature": 20.0, "battery_voltage": 3.9}


class Rows:
    """Writes into an operational database, in autocommit."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self.key_id = ""
        """Of the key that has signed its releases."""
        self.farm = self.one("INSERT INTO farms (name) VALUES ('rollout test') RETURNING id")
        connection.execute("CREATE TABLE telemetry_rest PARTITION OF telemetry_hot DEFAULT")

    def one(self, query: str, *values: Any) -> Any:
        """The first column of the first row."""
        row = self.connection.execute(query.encode(), values).fetchone()
        assert row is not None
        return row[0]

    def release(
        self, version: str = VERSION, kind: str = "firmware-bundle", counter: int = 1
    ) -> UUID:
        """A release for MODEL."""
        release: UUID = self.one(
            "INSERT INTO releases (kind, name, version, release_counter, sha256, size_bytes,"
            " manifest, signature, key_id, expires_at, published_by)"
            " VALUES (%s, 'app', %s, %s, '', 1, '', '', %s, now() + interval '9 d', 'ci')"
            " RETURNING id",
            kind,
            version,
            counter,
            self.key_id,
        )
        self.connection.execute(
            "INSERT INTO release_targets VALUES (%s, %s, %s, 'app', %s, %s, 'key')",
            [release, MODEL, kind, version, counter],
        )
        return release

    def rollout(self, release: UUID, **changes: Any) -> UUID:
        """A rollout that goes on, to all devices of MODEL."""
        values = {
            "release_id": release,
            "device_model": MODEL,
            "phases": [50.0, 100.0],
            "success_threshold": 0.9,
            "error_threshold": 0.1,
            "min_devices": 1,
            "timeout_s": 86_400,
            "state": "running",
            "created_by": "ada",
            **changes,
        }
        marks = ", ".join(["%s"] * len(values))
        rollout: UUID = self.one(
            f"INSERT INTO rollouts ({', '.join(values)}) VALUES ({marks}) RETURNING id",
            *values.values(),
        )
        return rollout

    def device(self, device_id: str, seen: datetime, **changes: Any) -> None:
        """A device that reports each minute."""
        values = {
            "id": device_id,
            "farm_id": self.farm,
            "device_model": MODEL,
            "device_type": "soil",
            "status": "online",
            "last_seen": seen,
            "firmware_version": "v1.0.0",
            "report_interval_s": 60,
            **changes,
        }
        marks = ", ".join(["%s"] * len(values))
        self.connection.execute(
            f"INSERT INTO devices ({', '.join(values)}) VALUES ({marks})".encode(),
            [*values.values()],
        )

    def deploy(
        self,
        rollout: UUID,
        device_id: str,
        state: str,
        at: datetime,
        confirmed_at: datetime | None = None,
    ) -> None:
        """The device's part in the rollout."""
        self.connection.execute(
            "INSERT INTO deployments (rollout_id, device_id, phase, state, confirmed_at,"
            " offered_at, changed_at) VALUES (%s, %s, 1, %s, %s, %s, %s)",
            [rollout, device_id, state, confirmed_at, at, at],
        )

    def read(
        self, device_id: str, time: datetime, sensors: dict[str, float], seq: int | None = None
    ) -> None:
        """A reading, its sensors where ingest puts them."""
        columns = {"soil_moisture", "temperature", "humidity", "light_level", "battery_voltage"}
        values: dict[str, Any] = {name: v for name, v in sensors.items() if name in columns}
        extra = {name: v for name, v in sensors.items() if name not in columns}
        values |= {
            "time": time,
            "message_id": uuid4(),
            "device_id": device_id,
            "farm_id": self.farm,
            "seq": seq,
            "received_at": time,
            "extra": json.dumps(extra) if extra else None,
        }
        marks = ", ".join(["%s"] * len(values))
        self.connection.execute(
            f"INSERT INTO telemetry_hot ({', '.join(values)}) VALUES ({marks})".encode(),
            [*values.values()],
        )

    def report(self, device_id: str, begin: datetime, minutes: int, **sensors: float) -> None:
        """A reading each minute from `begin` on."""
        for minute in range(minutes):
            self.read(device_id, begin + timedelta(minutes=minute), {**GOOD, **sensors}, minute)

    def predict(self, device_id: str, time: datetime, confidence: float) -> None:
        """A prediction of the device."""
        self.connection.execute(
            "INSERT INTO inference_results (time, message_id, device_id, model_version, result,"
            " confidence, received_at) VALUES (%s, %s, %s, 'm-1', '{}', %s, %s)",
            [time, uuid4(), device_id, confidence, time],
        )
