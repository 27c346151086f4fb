"""Who asks for a release, whether the token still holds, and what is found for whom."""

from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection

from ota_api.releases.check_in import Question, find_offer
from ota_api.releases.entitlement import Denied, Entitled, decide_for_user
from ota_api.releases.repository import FIRMWARE_KINDS, Slot
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
        return await _read(
            resources, lambda connection: _for_user(resources, connection, identity, slot, version)
        )
    question = _question(resources, identity.subject, slot, version, identity)
    found = await _read(
        resources, lambda connection: find_offer(connection, resources.catalogues, question)
    )
    resources.seen.note(identity.subject, question.now)
    return found


async def offer_firmware(
    resources: Resources, connection: AsyncConnection, device_id: str
) -> Entitled | Denied:
    """For protocols whose devices do not name their model; within the caller's transaction.

    Raises:
        PermissionDeniedError: for a device that is not in use.
    """
    cursor = await connection.execute(
        "SELECT device_model FROM devices WHERE id = %s", (device_id,)
    )
    row = await cursor.fetchone()
    slot = Slot(row[0] if row else "", FIRMWARE_KINDS)
    question = _question(resources, device_id, slot)
    resources.seen.note(device_id, question.now)
    return await find_offer(connection, resources.catalogues, question)


def _question(
    resources: Resources,
    device_id: str,
    slot: Slot,
    version: str | None = None,
    identity: Identity | None = None,
) -> Question:
    keys = resources.trusted_keys.load().keys.keys
    return Question(device_id, slot, version, keys, resources.clock(), identity)


async def _for_user(
    resources: Resources,
    connection: AsyncConnection,
    identity: Identity,
    slot: Slot,
    version: str | None,
) -> Entitled | Denied:
    await check_standing(connection, identity)
    catalogue = await resources.catalogues.as_of(connection)
    return decide_for_user(catalogue.shelf(slot), slot, version, resources.clock())


async def _read(
    resources: Resources, work: Callable[[AsyncConnection], Awaitable[Entitled | Denied]]
) -> Entitled | Denied:
    """Work on a connection; once more where it turns out to be dead, as after a restart."""
    connection: AsyncConnection | None = None
    try:
        async with resources.reads.connection() as connection:
            return await work(connection)
    except psycopg.OperationalError:
        if connection is None or not connection.broken:
            raise
    await resources.reads.check()
    async with resources.reads.connection() as connection:
        return await work(connection)
