"""What the databases know of builds, releases, devices and predictions."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

MOST_OBJECTS: Final = 200
_DAYS_OF_BRONZE: Final = """
SELECT DISTINCT d.day FROM bronze_objects o JOIN bronze_days d USING (object_key)
WHERE o.table_name = 'telemetry' AND o.hour >= %(start)s AND o.hour < %(end)s"""
_BUILDS: Final = """
SELECT DISTINCT ON (partition) partition, finished_at, run_id, rows_in, rows_out, output_checksum
FROM etl_runs WHERE asset = %(asset)s AND partition = ANY(%(partitions)s)
ORDER BY partition, id DESC"""
_MODELS: Final = """
SELECT r.id, r.name, r.version, r.release_counter, r.withdrawn_at, r.expires_at,
  to_timestamp((m.manifest ->> 'created')::bigint) AS trained,
  m.manifest -> 'lineage' ->> 'dataset_partitions' AS partitions,
  m.manifest -> 'lineage' ->> 'dataset_sha256' AS sha256,
  m.manifest -> 'lineage' ->> 'mlflow_model' AS mlflow_model,
  array(SELECT device_model FROM release_targets WHERE release_id = r.id ORDER BY device_model)
    AS device_models
FROM releases r, LATERAL (SELECT convert_from(r.manifest, 'UTF8')::jsonb AS manifest) m
WHERE r.kind = 'model' AND m.manifest -> 'lineage' ->> 'dataset_partitions' IS NOT NULL
ORDER BY r.release_counter DESC, r.uploaded_at DESC"""
_ROLLOUTS: Final = """
SELECT id, release_id, device_model, state, phase FROM rollouts
WHERE release_id = ANY(%(releases)s) AND state <> 'aborted' ORDER BY created_at"""
_DEPLOYMENTS: Final = """
SELECT o.release_id, d.state, count(*) AS devices
FROM rollouts o JOIN deployments d ON d.rollout_id = o.id
WHERE o.release_id = ANY(%(releases)s) GROUP BY 1, 2"""
_RUNNING: Final = """
FROM devices d JOIN release_targets t ON t.kind = 'model' AND t.device_model = d.device_model
  AND t.version = d.model_version
WHERE t.release_id = ANY(%(releases)s) AND d.decommissioned_at IS NULL"""
_COUNT_RUNNING: Final = f"""
SELECT t.release_id, count(*) AS devices {_RUNNING} GROUP BY 1"""
_COUNT_DEVICES: Final = f"SELECT count(DISTINCT d.id) AS devices {_RUNNING}"
_DEVICES: Final = f"""
SELECT DISTINCT ON (d.id) d.id AS device_id, d.farm_id, d.device_model, d.model_version,
  d.last_seen {_RUNNING} AND d.id > %(after)s ORDER BY d.id LIMIT %(limit)s"""
_PREDICTIONS: Final = """
SELECT model_version, count(*) AS predictions, min(time) AS first_prediction,
  max(time) AS last_prediction
FROM inference_results WHERE model_version = ANY(%(versions)s) GROUP BY 1"""
_PREDICTION: Final = """
SELECT message_id, device_id, time, received_at, model_version, result, confidence, features
FROM inference_results
WHERE message_id = %(message_id)s AND device_id = coalesce(%(device_id)s, device_id)
ORDER BY time, device_id LIMIT 2"""
_RELEASE: Final = """
SELECT r.id, r.name, r.version, r.sha256, r.key_id, r.withdrawn_at IS NOT NULL AS withdrawn,
  coalesce(convert_from(r.manifest, 'UTF8')::jsonb -> 'lineage', '{}') AS lineage
FROM devices d JOIN release_targets t ON t.kind = 'model' AND t.device_model = d.device_model
JOIN releases r ON r.id = t.release_id
WHERE d.id = %(device_id)s AND t.version = %(version)s ORDER BY t.release_counter DESC LIMIT 1"""
_OBJECTS: Final = """
SELECT d.object_key, o.sha256, sum(d.row_count)::bigint AS rows, min(d.day) AS day
FROM bronze_days d JOIN bronze_objects o USING (object_key)
WHERE d.day BETWEEN %(first)s AND %(last)s AND o.table_name = 'telemetry'
GROUP BY d.object_key, o.sha256 ORDER BY day, d.object_key LIMIT %(limit)s"""
_COUNT_OBJECTS: Final = """
SELECT count(DISTINCT object_key) AS objects, coalesce(sum(row_count), 0)::bigint AS archived
FROM bronze_days WHERE day BETWEEN %(first)s AND %(last)s"""

Row = dict[str, Any]


async def rows(connection: AsyncConnection, query: str, **values: Any) -> list[Row]:
    """As dictionaries."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query.encode(), values)
        return await cursor.fetchall()


async def days_of_bronze(connection: AsyncConnection, start: datetime, end: datetime) -> list[date]:
    """Days whose readings were received in some hours."""
    return [row["day"] for row in await rows(connection, _DAYS_OF_BRONZE, start=start, end=end)]


async def newest_builds(
    analytical: AsyncConnection, asset: str, partitions: list[str]
) -> list[Row]:
    """Of each partition the newest."""
    return await rows(analytical, _BUILDS, asset=asset, partitions=partitions)


async def trained_models(connection: AsyncConnection) -> list[Row]:
    """Releases of models whose manifests name a training set, the newest first."""
    return await rows(connection, _MODELS)


async def rollouts_of(connection: AsyncConnection, releases: list[UUID]) -> list[Row]:
    """That offer them, or will."""
    return await rows(connection, _ROLLOUTS, releases=releases)


async def deployments_of(connection: AsyncConnection, releases: list[UUID]) -> list[Row]:
    """Of each release, by state."""
    return await rows(connection, _DEPLOYMENTS, releases=releases)


async def running(connection: AsyncConnection, releases: list[UUID]) -> dict[UUID, int]:
    """Devices in use that run each release."""
    found = await rows(connection, _COUNT_RUNNING, releases=releases)
    return {row["release_id"]: row["devices"] for row in found}


async def count_devices(connection: AsyncConnection, releases: list[UUID]) -> int:
    """That run any of them; a reissue has the version of what it reissues."""
    [row] = await rows(connection, _COUNT_DEVICES, releases=releases)
    return int(row["devices"])


async def page_devices(
    connection: AsyncConnection, releases: list[UUID], after: str, limit: int
) -> list[Row]:
    """That run any of them, by id."""
    return await rows(connection, _DEVICES, releases=releases, after=after, limit=limit)


async def predictions_of(connection: AsyncConnection, versions: Sequence[str]) -> dict[str, Row]:
    """How many each version has made, and when."""
    found = await rows(connection, _PREDICTIONS, versions=list(versions))
    return {row.pop("model_version"): row for row in found}


async def find_predictions(
    connection: AsyncConnection, message_id: UUID, device_id: str | None
) -> list[Row]:
    """Up to two of that message id: it is unique for each device alone."""
    return await rows(connection, _PREDICTION, message_id=message_id, device_id=device_id)


async def release_of(connection: AsyncConnection, device_id: str, version: str) -> Row | None:
    """The model release that a device names by its version."""
    found = await rows(connection, _RELEASE, device_id=device_id, version=version)
    return found[0] if found else None


async def archived(
    connection: AsyncConnection, first: date, last: date
) -> tuple[int, int, list[Row]]:
    """Readings of some days: how many, in how many objects, and the first of these."""
    [counts] = await rows(connection, _COUNT_OBJECTS, first=first, last=last)
    objects = await rows(connection, _OBJECTS, first=first, last=last, limit=MOST_OBJECTS)
    return counts["archived"], counts["objects"], objects
