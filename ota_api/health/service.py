"""Whether the server can do its work."""

from typing import Final

import psycopg
from anyio import to_thread

from ota_api.resources import STORE_MARKER, Resources
from zenthos_core import lake
from zenthos_core.errors import BlobStoreError, ConfigurationError

OK: Final = "ok"


async def check_readiness(resources: Resources) -> dict[str, str]:
    """`ok`, or what to do, for the database, the blob store and the keys."""
    return {
        "database": await _check_database(resources),
        "blob_store": await to_thread.run_sync(_check_store, resources),
        "keys": _check_keys(resources),
    }


async def _check_database(resources: Resources) -> str:
    try:
        async with resources.pool.connection(timeout=2) as connection:
            await connection.execute("SELECT FROM releases LIMIT 0")
    except psycopg.errors.UndefinedTable:
        return "not migrated: `zenthos up` does it"
    except psycopg.OperationalError:
        return "cannot be reached: start Postgres, or correct ZENTHOS_DATABASE_URL"
    return OK


def _check_store(resources: Resources) -> str:
    try:
        found = resources.store.exists(lake.FIRMWARE, STORE_MARKER)
    except (OSError, BlobStoreError) as error:
        return f"cannot be read: {error}"
    return OK if found else "is not the one this server started with: is it mounted?"


def _check_keys(resources: Resources) -> str:
    try:
        resources.trusted_keys.load()
    except ConfigurationError as error:
        return str(error)
    return resources.trusted_keys.problem or OK
