"""From bad data to the releases trained on it, and the devices that run them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from ota_api.lineage import repository
from ota_api.lineage.partitions import BRONZE, Period, TrainingDays, touched_by
from ota_api.lineage.repository import Row
from ota_api.lineage.schemas import Days, DeviceRunning, Impact, ImpactedRelease
from ota_api.pagination import cut_page
from ota_api.planes import in_ranges
from ota_api.resources import Resources


@dataclass(frozen=True)
class Concerned:
    """A release, and the touched days of its training set."""

    row: Row
    days: list[date]
    is_certain: bool


async def find_impact(
    resources: Resources,
    connection: AsyncConnection,
    asset: str,
    period: Period,
    page: tuple[str, int],
) -> Impact:
    """What ota_api/lineage/partitions.py says is touched; of devices a page, after an id.

    Raises:
        UnavailableError: where the analytical database is away.
    """
    after, limit = page
    days = period.days
    if asset == BRONZE:
        days = sorted(await repository.days_of_bronze(connection, period.start, period.end))
    async with resources.analytical.reading() as analytical:
        builds = await repository.newest_builds(analytical, asset, _partitions(asset, period))
    touched = touched_by(asset, days)
    models = await repository.trained_models(connection)
    concerned = [found for row in models if (found := _concerned(row, touched)) is not None]
    now = datetime.fromtimestamp(resources.clock(), UTC)
    ids = [found.row["id"] for found in concerned]
    devices = [
        DeviceRunning.model_validate(row)
        for row in await repository.page_devices(connection, ids, after, limit + 1)
    ]
    return Impact(
        asset=asset,
        start=period.start,
        end=period.end,
        reading_days=_ranges(days),
        training_days=_ranges(touched),
        builds=builds,
        releases=await _describe(connection, concerned, now),
        devices_running=await repository.count_devices(connection, ids),
        devices=cut_page(devices, limit, lambda device: device.device_id),
    )


def state_of(row: Row, rollouts: Iterable[Row], now: datetime) -> str:
    """Whether devices are offered a release now."""
    if row["withdrawn_at"] is not None:
        return "withdrawn"
    if row["expires_at"] <= now:
        return "expired"
    offering = any(rollout["state"] in ("running", "finished") for rollout in rollouts)
    return "offered" if offering else "not_offered"


def _concerned(row: Row, touched: set[date]) -> Concerned | None:
    training = TrainingDays.parse(row["partitions"])
    days = training.overlap(touched) if training else []
    if training is None or not days:
        return None
    return Concerned(row, days, training.certainly_hold_one_of(days))


async def _describe(
    connection: AsyncConnection, concerned: list[Concerned], now: datetime
) -> list[ImpactedRelease]:
    ids: list[UUID] = [found.row["id"] for found in concerned]
    rollouts = await repository.rollouts_of(connection, ids)
    deployments = await repository.deployments_of(connection, ids)
    running = await repository.running(connection, ids)
    versions = {found.row["version"] for found in concerned}
    predictions = await repository.predictions_of(connection, sorted(versions))
    none = {"predictions": 0, "first_prediction": None, "last_prediction": None}
    return [
        _release(
            found,
            [rollout for rollout in rollouts if rollout["release_id"] == found.row["id"]],
            now,
            deployments={
                row["state"]: row["devices"]
                for row in deployments
                if row["release_id"] == found.row["id"]
            },
            devices_running=running.get(found.row["id"], 0),
            **predictions.get(found.row["version"], none),
        )
        for found in concerned
    ]


def _release(
    found: Concerned, rollouts: list[Row], now: datetime, **counts: Any
) -> ImpactedRelease:
    return ImpactedRelease.model_validate(
        {
            **found.row,
            **counts,
            "state": state_of(found.row, rollouts, now),
            "dataset": {"sha256": found.row["sha256"], "partitions": found.row["partitions"]},
            "days": _ranges(found.days),
            "certain": found.is_certain,
            "open_rollouts": [r for r in rollouts if r["state"] != "finished"],
        }
    )


def _partitions(asset: str, period: Period) -> list[str]:
    return [] if asset.startswith("bronze/") else [str(day) for day in period.days]


def _ranges(days: Iterable[date]) -> list[Days]:
    return [Days(first=first, last=last) for first, last in in_ranges(days)]
