"""The statements over all devices against a model of them in Python, on random fleets."""

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import AsyncConnection

from ota_api.rollouts import evaluation
from ota_api.rollouts.evaluation import ASKED_AFTER, PROOF_READINGS
from ota_api.rollouts.membership import bucket_of, is_in
from ota_api.rollouts.policy import Counts
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.transitions import State
from zenthos_core.database import Database, migrate

NOW: Final = datetime.now(UTC).replace(microsecond=0)
VERSION: Final = "v2.0.0"
TIMEOUT: Final = timedelta(hours=1)
OPEN: Final = {"pending", "downloading", "installing", "rebooting"}
DONE: Final = {"success", "already-installed"}


@dataclass
class Part:
    """A deployment."""

    state: str
    changed_at: datetime
    confirmed_at: datetime | None = None
    reason: str | None = None


@dataclass
class Device:
    """A device; `readings` are (time, received_at, version, backlog)."""

    id: str
    model: str
    farm: int
    tags: list[str]
    created_at: datetime
    last_seen: datetime | None
    checked_in_at: datetime | None
    model_checked_in_at: datetime | None
    decommissioned: bool
    part: Part | None = None
    readings: list[tuple[datetime, datetime, str, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """Of a rollout."""

    state: str
    percentage: float
    control: float
    farm: int | None
    tag: str | None
    kind: str
    phase_started_at: datetime


def ago(draw: random.Random, minutes: float) -> datetime:
    return NOW - timedelta(seconds=draw.randint(1, int(minutes * 60)))


def fleet(draw: random.Random, size: int) -> list[Device]:
    devices = []
    for number in range(size):
        device = Device(
            id=f"field-{number:03}",
            model=draw.choice(["esp32-s3"] * 5 + ["esp32-c3"]),
            farm=draw.randrange(2),
            tags=draw.choice([[], ["beta"], ["beta", "hill"]]),
            created_at=ago(draw, 400),
            last_seen=draw.choice([None, ago(draw, 30), ago(draw, 180)]),
            checked_in_at=draw.choice([None, ago(draw, 30), ago(draw, 300)]),
            model_checked_in_at=draw.choice([None, ago(draw, 30), ago(draw, 300)]),
            decommissioned=draw.random() < 0.1,
        )
        if draw.random() < 0.6:
            device.part = Part(draw.choice(list(State)).value, ago(draw, 150))
            if device.part.state in {"rebooting", "timed_out", "aborted", "success"}:
                device.part.confirmed_at = draw.choice([None, ago(draw, 100)])
        for _ in range(draw.randrange(9)):
            received_at = ago(draw, 60)
            sent = received_at - draw.choice([timedelta(0), timedelta(hours=4)])
            version = draw.choice([VERSION] * 4 + ["v1.0.0"])
            device.readings.append((sent, received_at, version, draw.random() < 0.1))
        devices.append(device)
    return devices


def setting(draw: random.Random) -> Setting:
    return Setting(
        state=draw.choice(["running", "running", "paused", "finished", "aborted"]),
        percentage=draw.choice([1, 30, 70, 100]),
        control=draw.choice([0, 0, 20]),
        farm=draw.choice([None, None, 0]),
        tag=draw.choice([None, None, "beta"]),
        kind=draw.choice(["model", "firmware-bundle"]),
        phase_started_at=NOW - draw.choice([timedelta(minutes=20), timedelta(minutes=100)]),
    )


def model_of(rollout_id: UUID, s: Setting, devices: list[Device]) -> tuple[int, int, Counts]:
    """Rules 1 to 4 of the module, one device after the other."""
    deadline, asked_after = NOW - TIMEOUT, s.phase_started_at + ASKED_AFTER
    proven = late = members = unasked = 0
    long_enough = s.phase_started_at < deadline
    for device in devices:
        here = s.farm in (None, device.farm) and (s.tag is None or s.tag in device.tags)
        if not here and device.part is not None and device.part.state == "pending":
            device.part = Part("aborted", NOW, reason="left")
        part = device.part
        matches = device.model == "esp32-s3" and not device.decommissioned and here
        finished = s.state == "finished"
        member = matches and is_in(
            bucket_of(rollout_id, device.id), s.percentage, s.control, finished=finished
        )
        members += member
        asked = device.model_checked_in_at if s.kind == "model" else device.checked_in_at
        has_not_asked = asked is None or asked < asked_after
        if (
            part is not None
            and part.confirmed_at
            and part.state in {"rebooting", "timed_out", "aborted"}
        ):
            since = part.confirmed_at
            good = [
                1
                for sent, received_at, version, backlog in device.readings
                if sent >= since - timedelta(hours=1)
                and received_at >= since
                and version == VERSION
                and not backlog
            ]
            if len(good) >= PROOF_READINGS:
                device.part = Part("success", NOW)
                proven += 1
                continue
        may_begin = s.state != "paused" and long_enough
        if (
            part is not None
            and part.state in OPEN
            and part.changed_at < deadline
            and (part.state != "pending" or may_begin)
        ):
            reason = "not_begun" if part.state == "pending" else "silent"
            device.part = Part("timed_out", NOW, reason=reason)
            late += 1
        if part is None and member and has_not_asked:
            seen = device.last_seen
            began = s.phase_started_at
            if s.state == "running" and long_enough and seen and seen > began > device.created_at:
                device.part = Part("timed_out", NOW, reason="never_asked")
                late += 1
            elif any(
                at and at > deadline
                for at in (seen, device.checked_in_at, device.model_checked_in_at)
            ):
                unasked += 1
    parts = [device.part for device in devices if device.part is not None]
    recent = [part for part in parts if part.changed_at >= s.phase_started_at]
    succeeded = sum(part.state in DONE for part in parts)
    failed = sum(part.state in {"failure", "timed_out"} for part in recent)
    answering = succeeded + failed + unasked + sum(part.state in OPEN for part in parts)
    counts = Counts(
        members=members,
        answering=answering,
        succeeded=succeeded,
        phase_succeeded=sum(part.state in DONE for part in recent),
        phase_failed=failed,
    )
    return proven, late, counts


async def insert(connection: AsyncConnection, s: Setting, devices: list[Device]) -> UUID:
    farms = [uuid4(), uuid4()]
    rollout_id, release_id = uuid4(), uuid4()
    for farm in farms:
        await connection.execute("INSERT INTO farms (id, name) VALUES (%s, %s)", (farm, str(farm)))
    await connection.execute(
        "INSERT INTO releases (id, kind, name, version, release_counter, sha256, size_bytes,"
        " manifest, signature, key_id, expires_at, published_by)"
        " VALUES (%s, %s, 'sensor', %s, 1, '', 1, '', '', '', now(), 'a test')",
        (release_id, s.kind, VERSION),
    )
    await connection.execute(
        "INSERT INTO release_targets (release_id, device_model, kind, name, version,"
        " release_counter, object_key) VALUES (%s, 'esp32-s3', %s, 'sensor', %s, 1, '')",
        (release_id, s.kind, VERSION),
    )
    began = s.phase_started_at
    await connection.execute(
        "INSERT INTO rollouts (id, release_id, device_model, farm_id, tag, phases,"
        " control_percentage, success_threshold, error_threshold, min_devices, timeout_s, state,"
        " created_by, started_at, phase_started_at)"
        " VALUES (%s, %s, 'esp32-s3', %s, %s, %s, %s, 0.9, 0.1, 1, %s, %s, 'a test', %s, %s)",
        (
            *(rollout_id, release_id, None if s.farm is None else farms[s.farm], s.tag),
            *([float(s.percentage)], s.control, TIMEOUT.total_seconds(), s.state),
            *(began - timedelta(days=1), began),
        ),
    )
    for device in devices:
        await insert_device(connection, rollout_id, farms[device.farm], device)
    return rollout_id


async def insert_device(
    connection: AsyncConnection, rollout_id: UUID, farm: UUID, device: Device
) -> None:
    await connection.execute(
        "INSERT INTO devices (id, farm_id, device_model, device_type, tags, created_at, last_seen,"
        " checked_in_at, model_checked_in_at, decommissioned_at)"
        " VALUES (%s, %s, %s, 'soil', %s, %s, %s, %s, %s, %s)",
        (
            *(device.id, farm, device.model, device.tags, device.created_at, device.last_seen),
            *(device.checked_in_at, device.model_checked_in_at),
            NOW if device.decommissioned else None,
        ),
    )
    if (part := device.part) is not None:
        await connection.execute(
            "INSERT INTO deployments (rollout_id, device_id, phase, state, confirmed_at,"
            " offered_at, changed_at) VALUES (%s, %s, 1, %s, %s, %s, %s)",
            (
                rollout_id,
                device.id,
                part.state,
                part.confirmed_at,
                part.changed_at,
                part.changed_at,
            ),
        )
    for sent, received_at, version, backlog in device.readings:
        await connection.execute(
            "INSERT INTO telemetry_hot (time, message_id, device_id, farm_id, firmware_version,"
            " model_version, received_at, backlog) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (sent, uuid4(), device.id, farm, version, version, received_at, backlog),
        )


async def compare(url: str, seeds: range) -> None:
    async with await AsyncConnection.connect(url) as connection:
        for seed in seeds:
            draw = random.Random(seed)
            s, devices = setting(draw), fleet(draw, 80)
            rollout_id = await insert(connection, s, devices)
            rollout = await RolloutRepository(connection).find(rollout_id)
            assert rollout is not None
            concluded = await evaluation.conclude(connection, rollout, NOW)
            counts, states = await evaluation.count(connection, rollout, NOW)
            proven, late, expected = model_of(rollout_id, s, devices)
            assert (*concluded, counts) == (proven, late, expected), f"seed {seed}: {s}"
            assert sum(states.values()) == sum(device.part is not None for device in devices)
            assert await parts(connection) == {
                device.id: (device.part.state, device.part.reason)
                for device in devices
                if device.part is not None
            }
            again = await evaluation.conclude(connection, rollout, NOW)
            assert again == (0, 0), "what was concluded is concluded once"
            events = await connection.execute("SELECT count(*) FROM deployment_events")
            left = sum(d.part is not None and d.part.reason == "left" for d in devices)
            assert await events.fetchone() == (proven + late + left,)
            await connection.rollback()


async def parts(connection: AsyncConnection) -> dict[str, tuple[Any, ...]]:
    cursor = await connection.execute("SELECT device_id, state, reason FROM deployments")
    return {device: (state, reason) for device, state, reason in await cursor.fetchall()}


def test_statements_and_model_agree(ops_url: str) -> None:
    with psycopg.connect(ops_url) as connection:
        connection.execute("CREATE TABLE telemetry_now PARTITION OF telemetry_hot DEFAULT")
    asyncio.run(compare(ops_url, range(20)))


@pytest.mark.e2e
def test_they_agree_on_hypertables(timescale: str) -> None:
    migrate(timescale, Database.OPS)
    asyncio.run(compare(timescale, range(1)))
