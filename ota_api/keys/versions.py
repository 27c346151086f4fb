"""Which keys.json is the newest ever accepted, by all servers on one database.

1. A list of a lower version than one that was accepted is not accepted: a revoked key stays so.
2. Nor is another list of the same version.
3. What is not accepted changes nothing: the last good list holds on, and /health/ready says why.
4. Each list accepted is recorded; each server learns of the others' every LEARN_S.
"""

import asyncio
import hashlib
import logging
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from ota_api.keys.service import SignedKeys, check_version
from ota_api.resources import Resources
from zenthos_core.errors import ConfigurationError

LEARN_S: Final = 10.0
RETRY_S: Final = 1.0
_logger = logging.getLogger(__name__)


async def check_key_version(connection: AsyncConnection, keys: SignedKeys) -> tuple[int, bytes]:
    """Rules 1, 2 and 4 in the database; ConfigurationError for a list to refuse."""
    sha256 = hashlib.sha256(keys.document).digest()
    await connection.execute(
        "INSERT INTO trusted_key_versions (version, sha256) SELECT %s, %s"
        " WHERE %s > (SELECT coalesce(max(version), 0) FROM trusted_key_versions)"
        " ON CONFLICT DO NOTHING",
        (keys.keys.version, sha256, keys.keys.version),
    )
    cursor = await connection.execute(
        "SELECT version, sha256 FROM trusted_key_versions ORDER BY version DESC LIMIT 1"
    )
    newest = await cursor.fetchone()
    assert newest is not None, "there is a row, or one was inserted"  # noqa: S101
    check_version(keys, newest)
    return newest[0], newest[1]


async def newest_version(connection: AsyncConnection) -> tuple[int, bytes] | None:
    """The newest list that any server accepted."""
    cursor = await connection.execute(
        "SELECT version, sha256 FROM trusted_key_versions ORDER BY version DESC LIMIT 1"
    )
    return await cursor.fetchone()


async def learn_versions(resources: Resources) -> None:
    """Rule 4, once."""
    async with resources.pool.connection() as connection:
        resources.trusted_keys.learn(await newest_version(connection))
        keys = resources.trusted_keys.load()
        resources.trusted_keys.learn(await check_key_version(connection, keys))


async def keep_key_versions(resources: Resources) -> None:
    """Rule 4, until cancelled."""
    while True:
        wait = LEARN_S
        try:
            await learn_versions(resources)
        except (psycopg.Error, PoolTimeout):
            wait = RETRY_S  # the database is away: readiness tells
        except ConfigurationError as error:
            _logger.warning("%s", error)
        await asyncio.sleep(wait)
