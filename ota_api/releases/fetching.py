"""Who asks for a release, whether the token still holds, and what is found for whom."""

from psycopg import AsyncConnection

from ota_api.releases.askers import InTransaction
from ota_api.releases.check_in import Question, find_offer
from ota_api.releases.entitlement import Denied, Entitled, decide_for_user
from ota_api.releases.repository import FIRMWARE_KINDS, MODEL_KINDS, Slot
from ota_api.resources import Resources
from ota_api.standing import check_standing
from zenthos_core.tokens import Identity, Role


async def fetch(
    resources: Resources, identity: Identity, slot: Slot, version: str | None
) -> Entitled | Denied:
    """A release of the slot, the latest where `version` is None.

    Raises:
        AuthenticationError: for a token that is void.
        PermissionDeniedError: for a device that is not in use, or of another model.
    """
    if identity.role is not Role.DEVICE:
        return await _for_user(resources, identity, slot, version)
    question = _question(resources, identity.subject, slot, version, identity)
    found = await find_offer(resources.askers, resources.catalogues, question)
    if version is None:
        model = slot.kinds == MODEL_KINDS
        resources.seen.note(identity.subject, question.now, model=model)
    return found


async def offer_firmware(
    resources: Resources, connection: AsyncConnection, device_id: str, device_model: str
) -> Entitled | Denied:
    """For protocols whose devices do not name their model; within the caller's transaction.

    Raises:
        PermissionDeniedError: for a device that is not in use.
    """
    question = _question(resources, device_id, Slot(device_model, FIRMWARE_KINDS))
    return await find_offer(InTransaction(connection), resources.catalogues, question)


def _question(
    resources: Resources,
    device_id: str,
    slot: Slot,
    version: str | None = None,
    identity: Identity | None = None,
) -> Question:
    now = resources.clock()
    return Question(device_id, slot, version, resources.release_keys(), now, identity)


async def _for_user(
    resources: Resources, identity: Identity, slot: Slot, version: str | None
) -> Entitled | Denied:
    async with resources.pool.connection() as connection:
        await check_standing(connection, identity)
        catalogue = await resources.catalogues.as_of(connection)
    return decide_for_user(catalogue.shelf(slot), slot, version, resources.clock())
