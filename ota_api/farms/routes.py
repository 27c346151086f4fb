"""Farms: admins create them, users list them."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from ota_api.auth import Admin, Trail, User
from ota_api.farms.repository import FarmRepository
from ota_api.farms.schemas import Farm, FarmCreation
from ota_api.farms.service import create_farm
from ota_api.openapi import same_again
from ota_api.pagination import After, Limit, Page, cut_page
from ota_api.resources import Transaction

router = APIRouter(tags=["farms"])


@router.post("/farms", status_code=HTTPStatus.CREATED, responses=same_again(Farm))
async def post_farm(
    wanted: FarmCreation, _: Admin, trail: Trail, connection: Transaction, response: Response
) -> Farm:
    """Create a farm; the same farm again is answered with 200."""
    farm, created = await create_farm(FarmRepository(connection), trail, wanted)
    if not created:
        response.status_code = HTTPStatus.OK
    return farm


@router.get("/farms")
async def get_farms(
    _: User, connection: Transaction, after: After = "", limit: Limit = 100
) -> Page[Farm]:
    """Farms by name."""
    farms = await FarmRepository(connection).page(after, limit + 1)
    return cut_page(farms, limit, lambda farm: farm.name)
