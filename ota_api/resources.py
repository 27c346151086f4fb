"""What requests work with, opened once when the server starts and handed in."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from anyio import to_thread
from fastapi import Depends, Request
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ota_api.devices.accounts import BrokerAccounts
from ota_api.export.service import ExportSlots
from ota_api.keys.service import TrustedKeyFile
from zenthos_core import lake, tokens
from zenthos_core.blobs import BlobStore, store_of
from zenthos_core.errors import BlobStoreError, ConfigurationError
from zenthos_core.settings import Settings

POOL_MAX: Final = 16
POOL_WAIT_S: Final = 5.0
STATEMENT_TIMEOUT_MS: Final = 15_000
STORE_MARKER: Final = "health/writable"
"""Written at start: a store that cannot be written is found out before the first publish."""

Pool = AsyncConnectionPool[AsyncConnection]


@dataclass(frozen=True)
class TokenKeys:
    """ES256: the private key issues tokens, the public one verifies them (PEM)."""

    private_pem: bytes
    public_pem: bytes

    @classmethod
    def read(cls, settings: Settings) -> "TokenKeys":
        """From their files; ConfigurationError where one is missing or they are no pair."""
        private = tokens.read_pem(settings.token_private_key_file)
        public = tokens.read_pem(settings.token_public_key_file)
        if tokens.public_pem(private) != public:
            raise ConfigurationError(
                f"{settings.token_public_key_file} is not the public half of "
                f"{settings.token_private_key_file}"
            )
        return cls(private, public)


@dataclass(frozen=True)
class Resources:
    """Everything outside the process, and the clock (UTC epoch seconds)."""

    settings: Settings
    pool: Pool
    store: BlobStore
    token_keys: TokenKeys
    trusted_keys: TrustedKeyFile
    accounts: BrokerAccounts
    exports: ExportSlots
    clock: Callable[[], float]


@asynccontextmanager
async def open_resources(
    settings: Settings, clock: Callable[[], float] = time.time
) -> AsyncIterator[Resources]:
    """Open and, at the end, close. The database may come later; /health/ready tells.

    Raises:
        ConfigurationError: for keys or a store that cannot be used.
    """
    token_keys = TokenKeys.read(settings)
    store = store_of(settings)
    await to_thread.run_sync(_prove_writable, store, settings.blob_url)
    accounts = BrokerAccounts(
        settings.mqtt_password_file, settings.mqtt_pid_file, settings.mqtt_revocations_file
    )
    trusted = TrustedKeyFile(settings.trusted_keys_file, settings.root_public_key_file)
    async with _new_pool(settings.database_url.get_secret_value()) as pool:
        try:
            yield Resources(
                settings, pool, store, token_keys, trusted, accounts, ExportSlots(), clock
            )
        finally:
            await accounts.close()


def _new_pool(url: str) -> Pool:
    return AsyncConnectionPool(
        url,
        kwargs={
            "application_name": "zenthos-ota-api",
            "connect_timeout": 5,
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS}",
        },
        min_size=1,
        max_size=POOL_MAX,
        timeout=POOL_WAIT_S,
        check=AsyncConnectionPool.check_connection,
        open=False,
    )


def _prove_writable(store: BlobStore, url: str) -> None:
    try:
        store.put(lake.FIRMWARE, STORE_MARKER, b"written when the OTA server started\n")
    except (OSError, BlobStoreError) as error:
        raise ConfigurationError(f"cannot write to the blob store {url}: {error}") from error


def get_resources(request: Request) -> Resources:
    """Of the running app."""
    resources: Resources = request.app.state.resources
    return resources


async def _resources(request: Request) -> Resources:
    return get_resources(request)


async def _transaction(resources: "Opened") -> AsyncIterator[AsyncConnection]:
    """One transaction a request: committed when the route returns, before it is answered."""
    async with resources.pool.connection() as connection:
        yield connection


Opened = Annotated[Resources, Depends(_resources)]
Transaction = Annotated[AsyncConnection, Depends(_transaction, scope="function")]
