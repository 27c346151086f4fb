"""GitHub tells of releases; users see what became of them."""

from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Query, Request, Response

from ota_api.auth import PUBLIC, User
from ota_api.hooks.repository import DeliveryRepository
from ota_api.hooks.schemas import Delivery, HookAnswer, State
from ota_api.hooks.service import Incoming, receive
from ota_api.hooks.signature import check_signature, hook_secrets
from ota_api.pagination import Limit, Page, cut_page
from ota_api.resources import Opened, Resources, Transaction

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


async def _read(
    request: Request,
    resources: Opened,
    event: Annotated[str, Header(alias="X-GitHub-Event")] = "",
    delivery: Annotated[str, Header(alias="X-GitHub-Delivery")] = "",
    signature: Annotated[str | None, Header(alias="X-Hub-Signature-256")] = None,
) -> Incoming:
    """The body, read and found to be GitHub's before a transaction begins: it may take its time."""
    body = await request.body()
    check_signature(hook_secrets(resources.settings), body, signature)
    return Incoming(event, delivery, body)


@router.post(HOOK_PATH, dependencies=PUBLIC, **_OPENAPI)
async def github_release(
    incoming: Annotated[Incoming, Depends(_read)],
    response: Response,
    after: BackgroundTasks,
    resources: Opened,
    connection: Transaction,
) -> HookAnswer:
    """A delivery of GitHub's webhook: 202 while it is under way, else what came of it."""
    answer = await receive(resources, DeliveryRepository(connection), incoming)
    if answer.status == "pending":
        response.status_code = HTTPStatus.ACCEPTED
        after.add_task(_wake, resources)  # once it is committed
    return answer


async def _wake(resources: Resources) -> None:
    """On the event loop."""
    resources.hook_calls.set()


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
