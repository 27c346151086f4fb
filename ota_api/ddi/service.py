"""The DDI view of a device's deployments. What it means is in ota_api.ddi.mapping."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from psycopg import AsyncConnection

from ota_api.ddi.mapping import (
    PART,
    VERSION_ATTRIBUTE,
    Action,
    Told,
    change_attributes,
    claim_of,
    errors_in,
    is_failure,
    is_over,
    links,
    polling_sleep,
    reason_of,
    repeats,
)
from ota_api.ddi.repository import CANCEL_CONFIRMED, CANCEL_REJECTED, LOGGED, DdiRepository
from ota_api.ddi.schemas import (
    MAX_ATTRIBUTES,
    ActionHistory,
    Artifact,
    Cancel,
    Chunk,
    Config,
    ConfigData,
    ControllerBase,
    Deployment,
    DeploymentBase,
    Feedback,
    Hashes,
    Link,
    Polling,
    StopId,
)
from ota_api.delivery.blocks import StoredFile
from ota_api.releases.entitlement import Denied
from ota_api.releases.fetching import offer_firmware
from ota_api.resources import Resources
from ota_api.rollouts import reports
from ota_api.rollouts.transitions import DONE, OPEN, Claim, State
from zenthos_core import lake
from zenthos_core.errors import GoneError, InvalidInputError, NotFoundError
from zenthos_core.manifest import FIRMWARE_VERSION

MOST_MESSAGES: Final = 100

_STATUS: Final = {
    **dict.fromkeys(OPEN, "RUNNING"),
    **dict.fromkeys(DONE, "FINISHED"),
    State.ABORTED: "CANCELED",
}
"""hawkBit's words; the others are errors."""


def file_of(action: Action) -> StoredFile:
    """Where the store has it."""
    return StoredFile(lake.FIRMWARE, action.object_key, action.size_bytes, action.sha256, True)


class Actions:
    """What one device may see and tell, within one transaction."""

    def __init__(
        self, resources: Resources, connection: AsyncConnection, device_id: str, base: str
    ) -> None:
        self._resources = resources
        self._connection = connection
        self._device_id = device_id
        self._repository = DdiRepository(connection, device_id)
        self._base = base

    async def poll(self) -> ControllerBase:
        """Check in: what there is to do, and when to ask again."""
        told = await self._repository.told()
        action_id = await self._check_in(told.device_model)
        for model in (False, True):  # a poll asks for all that DDI can offer
            self._resources.seen.note(self._device_id, self._resources.clock(), model=model)
        actions = await self._repository.actions()
        interval_s = self._resources.settings.ddi_poll_interval_s
        return ControllerBase(
            config=Config(polling=Polling(sleep=polling_sleep(interval_s))),
            links={
                name: Link(href=self._link(name, action))
                for name, action in links(actions, action_id, told).items()
            },
        )

    async def _check_in(self, device_model: str) -> int | None:
        """The deployment of the firmware that the device is entitled to."""
        found = await offer_firmware(
            self._resources, self._connection, self._device_id, device_model
        )
        if isinstance(found, Denied) or found.deployment is None:
            return None
        return found.deployment.id

    async def _check_offered(self, action: Action) -> None:
        if action.to_do and await self._check_in(action.device_model) != action.id:
            raise GoneError(f"action {action.id} is not offered now: ask for what there is to do")

    async def deployment(self, action_id: int, messages: int) -> DeploymentBase:
        """An action in full.

        Raises:
            NotFoundError: where the device has none of that id, or it was taken back.
        GoneError: where it is not offered any more, as when its key is not trusted any more.
        """
        action = await self._find(action_id)
        if action.state is State.ABORTED:
            raise NotFoundError(f"action {action_id} was cancelled: ask for what there is to do")
        await self._check_offered(action)
        return await self._describe(action, messages)

    async def installed(self, action_id: int, messages: int) -> DeploymentBase:
        """The same, of one that the device has closed with success."""
        action = await self._find(action_id)
        if not action.installed:
            raise NotFoundError(f"action {action_id} is not installed: it is {action.state}")
        return await self._describe(action, messages)

    async def cancellation(self, action_id: int) -> Cancel:
        """An action that was taken back."""
        action = await self._find_cancelled(action_id)
        return Cancel(id=str(action.id), cancelAction=StopId(stopId=str(action.id)))

    async def artifacts(self, module_id: int) -> list[Artifact]:
        """Of a software module, which has the id of its action."""
        return [await self._artifact(await self._find(module_id))]

    async def artifact(self, module_id: int, filename: str) -> Action:
        """The action whose artifact it is, if the device may still fetch it.

        Raises:
            NotFoundError: for another name.
            GoneError: once the action has ended without success, or is not offered any more.
        """
        action = await self._find(module_id)
        if filename != await self._filename(action):
            raise NotFoundError(f"no {filename} in software module {module_id}")
        if not (action.to_do or action.installed):
            raise GoneError(f"action {module_id} has ended: it is {action.state}")
        await self._check_offered(action)
        return action

    async def begin_download(self, action: Action) -> None:
        """The device has asked for the artifact itself."""
        if action.state is State.PENDING:
            await self._report(action, Claim(State.DOWNLOADING))

    async def feedback(self, action_id: int, feedback: Feedback) -> UUID | None:
        """How far the device is; the rollout, where the device has failed in it.

        Raises:
            GoneError: for an action that is over.
        """
        action = await self._find(action_id)
        if is_over(action, feedback):
            if repeats(action.state, feedback):
                return None
            raise GoneError(f"action {action_id} has ended: it is {action.state}")
        claim = claim_of(action, feedback, await self._repository.last_logged(action_id))
        if claim is None:
            return None
        booted = claim.state is State.SUCCESS
        told = await self._repository.told(lock=booted)  # devices before deployments
        reported = await self._report(action, claim, errors_in(feedback.status))
        if claim.state is State.ABORTED:
            await self._answer_cancel(action, CANCEL_CONFIRMED, claim.reason or "")
        if booted:
            await self._prove(told)
        return reported.rollout_id if reported.state == State.FAILURE else None

    async def cancel_feedback(self, action_id: int, feedback: Feedback) -> None:
        """Whether the device has stopped; until it says so it is asked again."""
        action = await self._find_cancelled(action_id)
        status = feedback.status
        if action.cancel_answered or status.execution not in {"closed", "canceled", "rejected"}:
            return
        answer = CANCEL_REJECTED if is_failure(status) else CANCEL_CONFIRMED
        await self._answer_cancel(action, answer, reason_of(status))

    async def configure(self, sent: ConfigData) -> None:
        """Keep what the device tells of itself.

        Raises:
            InvalidInputError: where that would be too much.
        """
        known = await self._repository.told(lock=True)
        attributes = change_attributes(known.attributes or {}, sent)
        if len(attributes) > MAX_ATTRIBUTES:
            raise InvalidInputError(
                f"a device has at most {MAX_ATTRIBUTES} attributes: remove some"
            )
        told = replace(known, attributes=attributes, told_at=self._now)
        version = attributes.get(VERSION_ATTRIBUTE, "")
        takes = FIRMWARE_VERSION.fullmatch(version) and not told.sends_telemetry
        await self._repository.keep(attributes, version if takes else None, self._now)
        await self._prove(told)

    async def _prove(self, told: Told) -> None:
        """By the device's own word, where there is no telemetry to prove it."""
        for action in reversed(await self._repository.actions()):  # locked as elsewhere
            if action.provable and told.proves(action):
                await self._repository.prove(action.id, self._now)

    async def _report(
        self, action: Action, claim: Claim, logged: str | None = None
    ) -> reports.Deployment:
        detail: dict[str, object] | None = {LOGGED: logged} if logged else None
        told = reports.Report(action.id, claim, detail=detail)
        return await reports.report(self._connection, self._now, self._device_id, told)

    async def _answer_cancel(self, action: Action, answer: str, reason: str) -> None:
        await self._repository.answer_cancel(action.id, self._now, answer, reason)

    async def _describe(self, action: Action, messages: int) -> DeploymentBase:
        chunk = Chunk(
            part=PART,
            version=action.version,
            name=action.name,
            artifacts=[await self._artifact(action)],
        )
        return DeploymentBase(
            id=str(action.id),
            deployment=Deployment(download=action.handling, update=action.handling, chunks=[chunk]),
            actionHistory=await self._history(action, messages) if messages else None,
        )

    async def _history(self, action: Action, messages: int) -> ActionHistory:
        """hawkBit's rule: less than none is as many as there may be."""
        most = min(messages, MOST_MESSAGES) if messages > 0 else MOST_MESSAGES
        return ActionHistory(
            status=_STATUS.get(action.state, "ERROR"),
            messages=await self._repository.history(action.id, most),
        )

    async def _filename(self, action: Action) -> str:
        return action.filename(await self._resources.deliveries.blocks.get(file_of(action), 0))

    async def _artifact(self, action: Action) -> Artifact:
        filename = await self._filename(action)
        href = f"{self._base}/softwaremodules/{action.id}/artifacts/{filename}"
        md5sum = Link(href=f"{href}.MD5SUM")
        return Artifact(
            filename=filename,
            hashes=Hashes(sha1=action.sha1, md5=action.md5, sha256=action.sha256),
            size=action.size_bytes,
            links={
                "download": Link(href=href),
                "md5sum": md5sum,
                "download-http": Link(href=f"{href}?redirect=false"),
                "md5sum-http": md5sum,
            },
        )

    def _link(self, name: str, action: Action | None) -> str:
        if action is None:
            return f"{self._base}/{name}"
        changes = f"?c={action.fingerprint}" if name == "deploymentBase" else ""
        return f"{self._base}/{name}/{action.id}{changes}"

    async def _find(self, action_id: int) -> Action:
        action = await self._repository.action(action_id)
        if action is None:
            raise NotFoundError(f"device {self._device_id} has no action {action_id}")
        return action

    async def _find_cancelled(self, action_id: int) -> Action:
        action = await self._find(action_id)
        if action.state is not State.ABORTED:
            raise NotFoundError(f"action {action_id} is not cancelled: it is {action.state}")
        return action

    @property
    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._resources.clock(), UTC)
