"""Who asks for a release, whether the token still holds, and what is found for whom."""

from collections.abc import Awaitable, Callable

import psycopg
from psycopg import AsyncConnection

from ota_api.releases.check_in import TRIES, Question, answer, read_asker
from ota_api.releases.entitlement import Denied, Entitled, decide_for_user
from ota_api.releases.repository import Slot
from ota_api.resources import Resources
from ota_api.standing import check_device, check_standing
from zenthos_core.errors import BusyError
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
    question = Question(
        identity.subject,
        slot,
        version,
        resources.trusted_keys.load().keys.keys,
        resources.clock(),
    )
    found = await _read(
        resources, lambda connection: _for_device(resources, connection, identity, question)
    )
    resources.seen.note(identity.subject, question.now)
    return found


async def _for_device(
    resources: Resources, connection: AsyncConnection, identity: Identity, question: Question
) -> Entitled | Denied:
    for _ in range(TRIES):
        catalogue = resources.catalogues.current
        rollouts = catalogue.shelf(question.slot).rollout_ids
        asker = await read_asker(connection, question.device_id, rollouts)
        if asker is not None:
            check_device(identity, in_use=asker.in_use, tokens_valid_from=asker.tokens_valid_from)
        decided = await answer(connection, catalogue, asker, question)
        if decided is not None:
            return decided
        await resources.catalogues.replace(catalogue)
    raise BusyError("releases change faster than they are read: try again in a moment")


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
