"""One evaluation of a rollout of a large fleet: proof of success, timeouts, counts, decision.

Half of the devices have it, a tenth wait for their proof, a tenth of the deployments have gone
silent, a tenth are at work, a few failed; the rest has not asked. Each run is undone, so that all
work on the same rows. The peer reads devices, deployments and readings, concludes and counts in
Python, and writes back what it concluded with executemany.
"""

import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from rich.console import Console
from rich.progress import Progress

from bench.servers import running_postgres
from ota_api.audit.repository import AuditRepository
from ota_api.audit.service import Actor, AuditTrail
from ota_api.rollouts.evaluation import ASKED_AFTER
from ota_api.rollouts.membership import bucket_of, is_in
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.service import Rollouts
from zenthos_core.signing import ReleaseKey

TIMEOUT_S: Final = 3600
KEY: Final = ReleaseKey("", "", ["firmware-bundle"], ["*"], expires=2**40)
"""Of the release."""
VERSION: Final = "v2.0.0"
_POPULATE: Final = """
INSERT INTO farms (name) VALUES ('bench');
INSERT INTO devices (id, farm_id, device_model, device_type, last_seen, checked_in_at, created_at)
  SELECT 'bench-' || lpad(n::text, 6, '0'), farms.id, 'esp32-s3', 'soil', now(),
    CASE WHEN n % 10 < 8 THEN now() END, now() - INTERVAL '9 days'
  FROM farms, generate_series(0, {devices} - 1) n;
WITH release AS (
  INSERT INTO releases (kind, name, version, release_counter, sha256, size_bytes, manifest,
    signature, key_id, expires_at, published_by)
  VALUES ('firmware-bundle', 'sensor', '{version}', 1, '', 1, '', '', '', now() + INTERVAL '1 day',
    'bench') RETURNING id
), target AS (
  INSERT INTO release_targets (release_id, device_model, kind, name, version, release_counter,
    object_key) SELECT id, 'esp32-s3', 'firmware-bundle', 'sensor', '{version}', 1, '' FROM release
  RETURNING release_id
)
INSERT INTO rollouts (release_id, device_model, phases, success_threshold, error_threshold,
  min_devices, timeout_s, state, created_by, started_at, phase_started_at)
  SELECT release_id, 'esp32-s3', '{{99}}', 0.9, 0.3, 100, {timeout_s}, 'running', 'bench',
    now() - INTERVAL '30 minutes', now() - INTERVAL '30 minutes' FROM target;
INSERT INTO deployments (rollout_id, device_id, phase, state, stage, reason, confirmed_at,
    offered_at, changed_at)
  SELECT rollouts.id, d.id, 1,
    (ARRAY['success', 'success', 'success', 'success', 'success', 'rebooting', 'downloading',
      CASE WHEN random() < 0.1 THEN 'failure' ELSE 'pending' END])[1 + right(d.id, 1)::int],
    CASE WHEN d.id LIKE '%7' THEN 'install' END, NULL,
    CASE WHEN d.id LIKE '%5' THEN now() - INTERVAL '20 minutes' END,
    now() - INTERVAL '25 minutes',
    now() - CASE WHEN d.id LIKE '%6' THEN INTERVAL '2 hours' ELSE INTERVAL '15 minutes' END
  FROM rollouts, devices d WHERE right(d.id, 1)::int < 8;
"""


@dataclass(frozen=True)
class RolloutResult:
    """Seconds are medians; `ratio` is the peer's by ours."""

    devices: int
    deployments: int
    evaluate_s: float
    evaluate_max_s: float
    peer_s: float
    ratio: float
    proven: int
    timed_out: int
    same_counts: bool
    """Whether both concluded and counted the same."""


def run_rollout_bench(devices: int, *, runs: int) -> RolloutResult:
    """Measure in turn; ConfigurationError where Postgres cannot be started."""
    with (
        tempfile.TemporaryDirectory(prefix="zenthos-bench-") as folder,
        Progress(console=Console(stderr=True)) as progress,
        running_postgres(Path(folder)) as (_, url),
    ):
        task = progress.add_task(f"{devices} devices and their deployments", total=1 + 2 * runs)
        rollout_id, deployments = _populate(url, devices)
        progress.update(task, advance=1, description="evaluations, and the peer's")
        ours, peers, counted = [], [], []
        for _ in range(runs):
            seconds, mine = asyncio.run(_evaluate(url, rollout_id))
            ours.append(seconds)
            progress.advance(task)
            seconds, theirs = _evaluate_in_python(url, rollout_id)
            peers.append(seconds)
            counted.append((mine, theirs))
            progress.advance(task)
    proven, timed_out, *_ = counted[0][0]
    return RolloutResult(
        devices=devices,
        deployments=deployments,
        evaluate_s=round(median(ours), 3),
        evaluate_max_s=round(max(ours), 3),
        peer_s=round(median(peers), 3),
        ratio=round(median(peers) / median(ours), 2),
        proven=proven,
        timed_out=timed_out,
        same_counts=all(mine == theirs for mine, theirs in counted),
    )


def _populate(url: str, devices: int) -> tuple[UUID, int]:
    statements = _POPULATE.format(devices=devices, version=VERSION, timeout_s=TIMEOUT_S)
    with psycopg.connect(url) as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        _insert_readings(connection)
        row = connection.execute(
            "SELECT rollout_id, count(*) FROM deployments GROUP BY rollout_id"
        ).fetchone()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    assert row is not None, "deployments were made"  # noqa: S101
    return row[0], int(row[1])


def _insert_readings(connection: psycopg.Connection) -> None:
    """Four readings of each device since its confirmation; every other names another version."""
    connection.execute("CREATE TABLE telemetry_now PARTITION OF telemetry_hot DEFAULT")
    connection.execute(
        "INSERT INTO telemetry_hot (time, message_id, device_id, farm_id, firmware_version,"
        " received_at) SELECT t, gen_random_uuid(), d.id, d.farm_id,"
        " CASE WHEN substr(d.id, 11, 1) IN ('0', '2', '4', '6', '8') THEN %s ELSE 'v1.0.0' END, t"
        " FROM devices d,"
        " generate_series(now() - INTERVAL '12 minutes', now(), INTERVAL '4 minutes') AS t",
        (VERSION,),
    )


async def _evaluate(url: str, rollout_id: UUID) -> tuple[float, tuple[Any, ...]]:
    async with await AsyncConnection.connect(url) as connection:
        trail = AuditTrail(AuditRepository(connection), Actor("bench", "system"))
        rollouts = Rollouts(RolloutRepository(connection), trail, datetime.now(UTC), lambda: [KEY])
        began = time.perf_counter()
        found = await rollouts.evaluate(rollout_id, None)
        seconds = time.perf_counter() - began
        await connection.rollback()
    counts = found.counts
    return seconds, (
        *(found.proven, found.timed_out, counts.members, counts.answering, counts.succeeded),
        *(counts.phase_succeeded, counts.phase_failed),
    )


def _evaluate_in_python(url: str, rollout_id: UUID) -> tuple[float, tuple[Any, ...]]:
    now = datetime.now(UTC)
    with psycopg.connect(url) as connection:
        began = time.perf_counter()
        row = connection.execute(
            "SELECT phase_started_at FROM rollouts WHERE id = %s", (rollout_id,)
        ).fetchone()
        assert row is not None, "the rollout was made"  # noqa: S101
        found = _conclude_in_python(connection, rollout_id, now, *row)
        seconds = time.perf_counter() - began
        connection.rollback()
    return seconds, found


def _conclude_in_python(
    connection: psycopg.Connection,
    rollout_id: UUID,
    now: datetime,
    phase_started_at: datetime,
) -> tuple[Any, ...]:
    devices = connection.execute("SELECT id, last_seen, checked_in_at FROM devices").fetchall()
    deployments = connection.execute(
        "SELECT id, device_id, state, confirmed_at, changed_at FROM deployments"
        " WHERE rollout_id = %s",
        (rollout_id,),
    ).fetchall()
    readings = Counter[str]()
    confirmed = {device: at for _, device, _, at, _ in deployments if at is not None}
    for device, received_at in connection.execute(
        "SELECT device_id, received_at FROM telemetry_hot WHERE firmware_version = %s", (VERSION,)
    ):
        if device in confirmed and received_at >= confirmed[device]:
            readings[device] += 1
    states, phase, proven, late = Counter[str](), Counter[str](), [], []
    for number, device, old, at, changed_at in deployments:
        state, moved = old, changed_at
        if state == "rebooting" and at is not None and readings[device] >= 3:
            state, moved = "success", now
            proven.append((now, number))
        elif state in {"downloading", "installing", "rebooting"} and (
            changed_at < now - timedelta(seconds=TIMEOUT_S)
        ):
            state, moved = "timed_out", now
            late.append((now, number))
        states[state] += 1
        phase[state] += moved >= phase_started_at
    with connection.cursor() as cursor:
        change = "UPDATE deployments SET state = '{}', changed_at = %s WHERE id = %s"
        cursor.executemany(change.format("success").encode(), proven)
        cursor.executemany(change.format("timed_out").encode(), late)
    known = {device for _, device, *_ in deployments}
    members = [d for d in devices if is_in(bucket_of(rollout_id, d[0]), 99, 0, finished=False)]
    unasked = sum(
        device not in known
        and seen > now - timedelta(seconds=TIMEOUT_S)
        and (asked is None or asked < phase_started_at + ASKED_AFTER)
        for device, seen, asked in members
    )
    at_work = sum(states[s] for s in ("pending", "downloading", "installing", "rebooting"))
    failed = phase["failure"] + phase["timed_out"]
    answering = states["success"] + at_work + failed + unasked
    return (
        *(len(proven), len(late), len(members), answering, states["success"]),
        *(phase["success"], failed),
    )
