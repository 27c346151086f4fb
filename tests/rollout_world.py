"""A fleet of simulated devices on real servers, an operator, and the sensor of Dagster."""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

from tests.ingest.conftest import IngestProcess
from tests.ota_api.conftest import DEVICE_MODEL, Ota, running_ota
from tests.servers import MosquittoServer
from zenthos_assets.fleet_alerts import fleet_alerts
from zenthos_assets.resources import Platform
from zenthos_assets.rollouts.sensor import rollouts
from zenthos_cli.fleet import messages
from zenthos_cli.fleet.publisher import connected
from zenthos_cli.fleet.session import Broker, Credentials
from zenthos_cli.updating import Faults, UpdatingDevice
from zenthos_core.mqtt import Message
from zenthos_core.settings import Settings
from zenthos_core.signing import read_key
from zenthos_core.tokens import Role

GOOD = {"soil_moisture": 31.0, "temperature": 20.5, "battery_voltage": 3.9}
READINGS = 8
"""Of a device in a round: three prove an update, 20 of a cohort are compared."""

BY_POLICY = ("advance", "finish", "pause")
STORED_WITHIN_S = 30.0


@dataclass
class World:
    """Servers, devices, and what an operator and Dagster do."""

    ota: Ota
    broker: MosquittoServer
    platform: Platform
    devices: dict[str, UpdatingDevice] = field(default_factory=dict)
    round: int = 0
    cursor: str | None = None

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the operational database."""
        with psycopg.connect(self.ota.settings.database_url.get_secret_value()) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        """Change the operational database."""
        with psycopg.connect(self.ota.settings.database_url.get_secret_value()) as connection:
            connection.execute(statement.encode(), values)

    def alerts(self, alert_type: str) -> set[str]:
        """Devices with an open alert of a type after a tick of the sensor."""
        fleet_alerts(dg.build_sensor_context(resources={"platform": self.platform}))
        rows = self.query(
            "SELECT device_id FROM alerts WHERE alert_type = %s AND resolved_at IS NULL", alert_type
        )
        return {device_id for (device_id,) in rows}

    def send(self, method: str, path: str, **options: Any) -> Any:
        """The JSON that an admin gets; any refusal is an error."""
        answer = self.ota.send(method, path, Role.ADMIN, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def populate(self, count: int, folder: Path, version: str, binary: bytes) -> None:
        """Devices of one farm that left the factory with a version, and say so."""
        lines = [f"dev-{number:02},{DEVICE_MODEL},soil,North,60" for number in range(count)]
        text = "device_id,device_model,device_type,farm_name,report_interval_s\n" + "\n".join(lines)
        headers = {"Content-Type": "text/csv"}
        rows = self.send("POST", "/devices/bulk", content=text.encode(), headers=headers)["rows"]
        root = read_key(self.ota.settings.root_public_key_file)
        for row in rows:
            device = UpdatingDevice(
                self.ota.settings.ota_url,
                row["device_id"],
                DEVICE_MODEL,
                row["jwt_token"],
                root,
                folder / row["device_id"],
            )
            device.flash(version, binary, counter=1)
            self.devices[device.device_id] = device
        self.report({})

    def fail(self, faults: Faults) -> None:
        """From now on, all devices have these."""
        for device in self.devices.values():
            device.faults = faults

    def check_in(self, devices: Iterable[str] | None = None) -> dict[str, str]:
        """Each device asks once: the state that it ends in."""
        asked = self.devices if devices is None else devices
        return {device_id: self.devices[device_id].update() for device_id in asked}

    def report(self, sensors: Mapping[str, Mapping[str, float]]) -> None:
        """Each device sends READINGS readings, and ingest stores them; `sensors` by version."""
        before = self._stored()
        self.round += 1
        asyncio.run(self._publish(sensors))
        wanted = before + READINGS * len(self.devices)
        deadline = time.monotonic() + STORED_WITHIN_S
        while self._stored() < wanted:
            assert time.monotonic() < deadline, "ingest has not stored what was sent"
            time.sleep(0.05)

    def tick(self) -> list[dict[str, Any]]:
        """What the sensor tells of decisions by policy: the metadata of its materializations."""
        context = dg.build_sensor_context(cursor=self.cursor, resources={"platform": self.platform})
        done = rollouts(context)
        self.cursor = context.cursor
        if isinstance(done, dg.SkipReason):
            assert str(done.skip_message).endswith("nothing decided"), done.skip_message
            return []
        assert isinstance(done, dg.SensorResult)
        told = [
            {name: value.value for name, value in event.metadata.items()}
            for event in done.asset_events or ()
            if isinstance(event, dg.AssetMaterialization)
        ]
        return [one for one in told if one["decision"] in BY_POLICY]

    def versions(self) -> dict[str, str | None]:
        """What each device runs, as ingest has last heard."""
        return dict(self.query("SELECT id, firmware_version FROM devices"))

    def states(self, rollout: str) -> dict[str, str]:
        """Of each device that the rollout was offered to."""
        return dict(
            self.query("SELECT device_id, state FROM deployments WHERE rollout_id = %s", rollout)
        )

    def _stored(self) -> int:
        [(count,)] = self.query("SELECT count(*) FROM telemetry_hot")
        return int(count)

    async def _publish(self, sensors: Mapping[str, Mapping[str, float]]) -> None:
        speakers = {
            device_id: messages.Device(device_id, DEVICE_MODEL, device.runs(None))
            for device_id, device in self.devices.items()
        }
        salt = str(self.round)

        def say(device_id: str, state: str) -> Message:
            return messages.status(speakers[device_id], state, now=time.time(), salt=salt)

        accounts = [Credentials(name, device.token) for name, device in self.devices.items()]
        broker = Broker(self.broker.host, self.broker.port)
        async with connected(broker, accounts, say, random.Random(1)) as publisher:
            for speaker in speakers.values():
                values = dict(sensors.get(speaker.firmware_version or "", GOOD))
                for number in range(READINGS):
                    sample = messages.Sample(int(time.time()), values)
                    message = messages.telemetry(
                        speaker, sample, salt=f"{salt}:{number}", backlog=False
                    )
                    await publisher.publish(speaker.device_id, message)


@contextmanager
def running_world(settings: Settings, broker: MosquittoServer, folder: Path) -> Iterator[World]:
    """The servers, ready."""
    database_url = settings.database_url.get_secret_value()
    ingest = IngestProcess(folder, database_url, broker)
    ingest.start()
    try:
        with running_ota(settings) as ota:
            here = folder / "dagster"
            here.mkdir()
            (here / ".env").write_text(
                f"ZENTHOS_DATABASE_URL={database_url}\n"
                f"ZENTHOS_OTA_URL={settings.ota_url}\n"
                f"ZENTHOS_SERVICE_TOKEN={ota.token(Role.OPERATOR, 'svc-lineage')}\n"
            )
            world = World(ota, broker, Platform(directory=str(here)))
            world.tick()
            yield world
    finally:
        ingest.stop()
