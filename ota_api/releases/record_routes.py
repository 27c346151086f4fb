"""Releases as people see them, and taking one back."""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from ota_api.auth import Steering, Trail, User
from ota_api.fields import DeviceModel, Line
from ota_api.pagination import Limit, Page, cut_page
from ota_api.releases.records import ReleaseRecords
from ota_api.releases.schemas import ReleaseDetail, ReleaseSummary, Withdrawal
from ota_api.resources import Opened, Transaction
from ota_api.rollouts.repository import RolloutRepository
from ota_api.rollouts.service import Rollouts

router = APIRouter(tags=["releases"])


@router.get("/releases")
async def get_releases(
    *,
    _: User,
    connection: Transaction,
    device_model: Annotated[DeviceModel | None, Query()] = None,
    kind: Literal["firmware-bundle", "esp-image", "model"] | None = None,
    name: Annotated[Line | None, Query()] = None,
    version: Annotated[Line | None, Query()] = None,
    withdrawn: bool | None = None,
    after: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    limit: Limit = 100,
) -> Page[ReleaseSummary]:
    """Releases, the newest first; all filters that are given must hold."""
    rows = await ReleaseRecords(connection).page(
        limit + 1,
        device_model=device_model,
        kind=kind,
        name=name,
        version=version,
        withdrawn=withdrawn,
        after=after,
    )
    return cut_page([ReleaseSummary(**row) for row in rows], limit, lambda item: str(item.id))


@router.get("/releases/{release_id}")
async def get_release(_: User, connection: Transaction, release_id: UUID) -> ReleaseDetail:
    """One release, with what was signed."""
    return _detail(await ReleaseRecords(connection).find(release_id))


@router.post("/releases/{release_id}/withdraw")
async def withdraw_release(
    *,
    _: Steering,
    trail: Trail,
    resources: Opened,
    connection: Transaction,
    release_id: UUID,
    withdrawal: Withdrawal,
) -> ReleaseDetail:
    """Offer a release to nobody any more, and abort its rollouts."""
    now = datetime.fromtimestamp(resources.clock(), UTC)
    records = ReleaseRecords(connection)
    rollouts = Rollouts(RolloutRepository(connection), trail, now, resources.release_keys)
    return _detail(await records.withdraw(rollouts, trail, now, release_id, withdrawal.reason))


def _detail(row: dict[str, Any]) -> ReleaseDetail:
    signed = {name: b64encode(row[name]).decode() for name in ("manifest", "signature")}
    return ReleaseDetail(**{**row, **signed})
