"""GitHub tells of releases; users see what became of them."""

from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Header, Query, Request, Response

from ota_api.auth import User
from ota_api.hooks.repository import DeliveryRepository
from ota_api.hooks.schemas import Delivery, HookAnswer, State
from ota_api.hooks.service import Incoming, receive
from ota_api.pagination import Limit, Page, cut_page
from ota_api.resources import Opened, Transaction

router = APIRouter(tags=["hooks"])
HOOK_PATH: Final = "/hooks/github-release"
_OPENAPI: Final[dict[str, Any]] = {
    "responses": {HTTPStatus.ACCEPTED.value: {"model": HookAnswer, "description": "Under way."}},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
}


@router.post(HOOK_PATH, **_OPENAPI)
async def github_release(
    *,
    request: Request,
    response: Response,
    after: BackgroundTasks,
    resources: Opened,
    connection: Transaction,
    event: Annotated[str, Header(alias="X-GitHub-Event")] = "",
    delivery: Annotated[str, Header(alias="X-GitHub-Delivery")] = "",
    signature: Annotated[str | None, Header(alias="X-Hub-Signature-256")] = None,
) -> HookAnswer:
    """A delivery of GitHub's webhook: 202 while it is under way, else what came of it."""
    incoming = Incoming(event, delivery, signature, await request.body())
    answer = await receive(resources, DeliveryRepository(connection), incoming)
    if answer.status == "pending":
        response.status_code = HTTPStatus.ACCEPTED
        after.add_task(resources.hook_calls.set)  # once it is committed
    return answer


@router.get("/hooks/deliveries")
async def get_deliveries(
    *,
    _: User,
    connection: Transaction,
    state: State | None = None,
    after: Annotated[UUID | None, Query(description="`next` of the page before.")] = None,
    limit: Limit = 100,
) -> Page[Delivery]:
    """Releases that GitHub has announced, the newest first."""
    found = await DeliveryRepository(connection).page(after, limit + 1, state)
    return cut_page(found, limit, lambda delivery: str(delivery.id))
