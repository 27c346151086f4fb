"""hawkBit's DDI v1 for SWUpdate, RAUC's updater and Zephyr's client."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from ota_api.ddi.access import Controller, ControllerPath, TenantPath
from ota_api.ddi.schemas import (
    Artifact,
    Cancel,
    ConfigData,
    ControllerBase,
    DeploymentBase,
    Feedback,
)
from ota_api.ddi.service import Actions, file_of
from ota_api.delivery.service import send_file
from ota_api.problems import MEDIA_TYPE
from ota_api.releases.counting import count_download
from ota_api.resources import Opened, Transaction
from ota_api.rollouts.halting import halt_if_failing
from zenthos_core.errors import NotFoundError

PREFIX: Final = "/{tenant}/controller/v1/{controller_id}"
MODULE: Final = "/softwaremodules/{module_id}/artifacts"


class HalResponse(JSONResponse):
    """JSON with links."""

    media_type = "application/hal+json"


router = APIRouter(
    prefix=PREFIX,
    tags=["hawkBit DDI"],
    default_response_class=HalResponse,
)
_OVER: Final[dict[int | str, dict[str, Any]]] = {
    410: {"description": "The action is over.", "content": {MEDIA_TYPE: {}}}
}
_OMIT: Final[dict[str, Any]] = {"response_model_exclude_none": True, "responses": _OVER}
_EMPTY: Final[dict[str, Any]] = {
    "response_class": Response,
    "status_code": 200,
    "responses": _OVER,
}
_BINARY: Final[dict[int | str, dict[str, Any]]] = _OVER | {
    200: {"content": {"application/octet-stream": {}}},
    206: {"content": {"application/octet-stream": {}}, "description": "The range asked for."},
    302: {"description": "It is on S3."},
    304: {"description": "The device has it."},
    416: {"description": "The range lies outside the file.", "content": {MEDIA_TYPE: {}}},
}

ActionId = Annotated[int, Path(ge=1, le=2**63 - 1)]
FileName = Annotated[str, Path(max_length=200)]
Changes = Annotated[str | None, Query(alias="c", max_length=32, description="Ignored.")]
Redirect = Annotated[
    bool, Query(description="False for clients that cannot follow to another server.")
]
Messages = Annotated[
    int, Query(alias="actionHistory", description="Most messages; negative for all there are.")
]


async def _actions(
    device: Controller,
    resources: Opened,
    connection: Transaction,
    tenant: TenantPath,
    controller_id: ControllerPath,
) -> Actions:
    base = f"{resources.settings.ota_url.rstrip('/')}/{tenant}/controller/v1/{controller_id}"
    return Actions(resources, connection, device.subject, base)


DeviceActions = Annotated[Actions, Depends(_actions)]


@router.get("", **_OMIT)
async def poll(actions: DeviceActions) -> ControllerBase:
    """What there is to do, and when to ask again."""
    return await actions.poll()


@router.get("/deploymentBase/{action_id}", **_OMIT)
async def get_deployment(
    actions: DeviceActions, action_id: ActionId, _: Changes = None, messages: Messages = 0
) -> DeploymentBase:
    """What to install."""
    return await actions.deployment(action_id, messages)


@router.post("/deploymentBase/{action_id}/feedback", **_EMPTY)
async def give_feedback(
    actions: DeviceActions,
    action_id: ActionId,
    feedback: Feedback,
    resources: Opened,
    background: BackgroundTasks,
) -> None:
    """How far the device is."""
    failing = await actions.feedback(action_id, feedback)
    if failing is not None:
        background.add_task(halt_if_failing, resources, failing)


@router.get("/installedBase/{action_id}", **_OMIT)
async def get_installed(
    actions: DeviceActions, action_id: ActionId, messages: Messages = 0
) -> DeploymentBase:
    """What was installed last."""
    return await actions.installed(action_id, messages)


@router.get("/cancelAction/{action_id}")
async def get_cancellation(actions: DeviceActions, action_id: ActionId) -> Cancel:
    """What to stop."""
    return await actions.cancellation(action_id)


@router.post("/cancelAction/{action_id}/feedback", **_EMPTY)
async def give_cancel_feedback(
    actions: DeviceActions, action_id: ActionId, feedback: Feedback
) -> None:
    """Whether the device has stopped."""
    await actions.cancel_feedback(action_id, feedback)


@router.put("/configData", **_EMPTY)
async def put_attributes(actions: DeviceActions, sent: ConfigData) -> None:
    """What the device tells of itself."""
    await actions.configure(sent)


@router.get(MODULE, **_OMIT)
async def list_artifacts(actions: DeviceActions, module_id: ActionId) -> list[Artifact]:
    """Files of a software module."""
    return await actions.artifacts(module_id)


@router.head(f"{MODULE}/{{filename}}.MD5SUM", include_in_schema=False)
@router.get(f"{MODULE}/{{filename}}.MD5SUM", response_class=PlainTextResponse, responses=_OVER)
async def get_md5sum(actions: DeviceActions, module_id: ActionId, filename: FileName) -> str:
    """As `md5sum` writes it."""
    action = await actions.artifact(module_id, filename)
    if action.md5 is None:
        raise NotFoundError(
            f"the MD5 of {filename} is not known: go by the SHA-256 of its deployment"
        )
    return f"{action.md5}  {filename}\n"


async def download(
    *,
    request: Request,
    device: Controller,
    actions: DeviceActions,
    resources: Opened,
    module_id: ActionId,
    filename: FileName,
    redirect: Redirect = True,
) -> Response:
    """The file, or the range asked for."""
    action = await actions.artifact(module_id, filename)
    if request.method == "GET":
        await actions.begin_download(action)
    sent = await send_file(
        request, resources.deliveries, file_of(action), device, redirect=redirect
    )
    count_download(request, sent, action.kind, action.device_model)
    return sent


_options: dict[str, Any] = {"response_class": Response, "responses": _BINARY}
router.add_api_route(f"{MODULE}/{{filename}}", download, methods=["GET"], **_options)
router.add_api_route(
    f"{MODULE}/{{filename}}", download, methods=["HEAD"], include_in_schema=False, **_options
)
