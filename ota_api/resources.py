"""What requests work with, opened once when the server starts and handed in."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Final
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ota_api.analytical import AnalyticalDatabase
from ota_api.delivery.service import Deliveries
from ota_api.devices.accounts import BrokerAccounts
from ota_api.export.service import ExportSlots
from ota_api.keys.service import OnlineKey, TrustedKeyFile
from ota_api.limits.counters import Counter, SharedStorage
from ota_api.limits.rates import RateLimits
from ota_api.releases.askers import Together
from ota_api.releases.catalogue import CatalogueCache
from ota_api.releases.seen import SeenDevices, flushing
from ota_api.throttle import Throttle
from zenthos_core import lake, tokens
from zenthos_core.blobs import BlobStore, store_of
from zenthos_core.errors import BlobStoreError, ConfigurationError
from zenthos_core.settings import Settings
from zenthos_core.signing import ReleaseKey
from zenthos_core.tokens import Identity

POOL_MAX: Final = 16
READS_MAX: Final = 8
"""Connections for check-ins: each statement commits by itself, and none is tried beforehand."""
POOL_WAIT_S: Final = 5.0
STATEMENT_TIMEOUT_MS: Final = 15_000
HASHES_AT_A_TIME: Final = 2
"""Of passwords: each takes 64 MiB and a core."""
STORE_MARKER: Final = "health/writable"
"""Written at start: a store that cannot be written is found out before the first publish."""

Pool = AsyncConnectionPool[AsyncConnection]


@dataclass(frozen=True)
class TokenKeys:
    """ES256, PEM: the private key issues tokens, the public ones verify them.

    After a rotation the previous public key verifies what it signed until that has expired.
    """

    private_pem: bytes
    public_pem: bytes
    previous_pem: bytes | None = None

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
        previous = settings.token_previous_public_key_file
        return cls(private, public, tokens.read_pem(previous) if previous else None)

    def jwks(self) -> list[dict[str, str]]:
        """The public keys, the one in use first."""
        return [tokens.public_jwk(pem) for pem in (self.public_pem, self.previous_pem) if pem]

    def verify(self, token: str) -> Identity:
        """The token's owner; AuthenticationError where neither key verifies it."""
        pem = self.public_pem
        if self.previous_pem is not None:
            previous = tokens.public_jwk(self.previous_pem)["kid"]
            pem = self.previous_pem if tokens.named_key(token) == previous else pem
        return tokens.verify(pem, token)


@dataclass(frozen=True)
class Throttles:
    """Failed attempts, counted for all requests; farms may have one address for many devices."""

    login_by_account: Throttle
    login_by_address: Throttle
    claim_by_device: Throttle
    claim_by_address: Throttle

    @classmethod
    def of(cls, clock: Callable[[], float], shared: SharedStorage | None) -> "Throttles":
        """Counted with other workers where they share a storage."""

        def throttle(what: str, by: str, most: int, window_s: int) -> Throttle:
            return Throttle(what, most, Counter(f"failed-{what}-{by}", window_s, clock, shared))

        return cls(
            login_by_account=throttle("logins", "account", 10, 900),
            login_by_address=throttle("logins", "address", 50, 900),
            claim_by_device=throttle("claims", "device", 10, 3600),
            claim_by_address=throttle("claims", "address", 50, 3600),
        )


@dataclass(frozen=True)
class Resources:
    """Everything outside the process, and the clock (UTC epoch seconds)."""

    settings: Settings
    pool: Pool
    askers: Together
    store: BlobStore
    token_keys: TokenKeys
    trusted_keys: TrustedKeyFile
    online_key: OnlineKey
    catalogues: CatalogueCache
    seen: SeenDevices
    accounts: BrokerAccounts
    exports: ExportSlots
    deliveries: Deliveries
    clock: Callable[[], float]
    limits: RateLimits
    throttles: Throttles
    analytical: AnalyticalDatabase
    hook_calls: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when GitHub has told of a release."""
    hashing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(HASHES_AT_A_TIME))
    halting: set[UUID] = field(default_factory=set)
    """Rollouts that a failure is about to have judged; see ota_api.rollouts.halting."""

    def release_keys(self) -> list[ReleaseKey]:
        """Those that keys.json trusts now; ConfigurationError where there never were any."""
        return self.trusted_keys.load().keys.keys


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
    limits_url = settings.limits_url.get_secret_value()
    shared = SharedStorage(limits_url) if limits_url else None
    online = OnlineKey.read(settings.online_private_key_file)
    url = settings.database_url.get_secret_value()
    async with (
        _new_pool(url, POOL_MAX, check=AsyncConnectionPool.check_connection) as pool,
        _new_pool(url, READS_MAX, autocommit=True) as reads,
        _new_pool(url, 1, check=AsyncConnectionPool.check_connection) as catalogue_reads,
        AnalyticalDatabase(settings.analytics_database_url.get_secret_value()) as analytical,
    ):
        seen = SeenDevices(pool)
        try:
            async with flushing(seen):
                yield Resources(
                    settings=settings,
                    pool=pool,
                    askers=Together(reads),
                    store=store,
                    token_keys=token_keys,
                    trusted_keys=trusted,
                    online_key=online,
                    catalogues=CatalogueCache(catalogue_reads, settings.ota_url),
                    seen=seen,
                    accounts=accounts,
                    exports=ExportSlots(),
                    deliveries=Deliveries.of(settings, store),
                    clock=clock,
                    limits=RateLimits.of(settings, clock, shared),
                    throttles=Throttles.of(clock, shared),
                    analytical=analytical,
                )
        finally:
            await accounts.close()
            if shared is not None:
                await shared.close()


def _new_pool(
    url: str,
    max_size: int,
    *,
    autocommit: bool = False,
    check: Callable[[AsyncConnection], Awaitable[None]] | None = None,
) -> Pool:
    return AsyncConnectionPool(
        url,
        kwargs={
            "application_name": "zenthos-ota-api",
            "connect_timeout": 5,
            "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS}",
            "autocommit": autocommit,
        },
        min_size=1,
        max_size=max_size,
        timeout=POOL_WAIT_S,
        check=check,
        open=False,
    )


def _prove_writable(store: BlobStore, url: str) -> None:
    try:
        store.put(lake.FIRMWARE, STORE_MARKER, b"written when the OTA server started\n")
    except (OSError, BlobStoreError) as error:
        raise ConfigurationError(f"cannot write to the blob store {url}: {error}") from error


def client_address(request: Request) -> str:
    """Of the client, or of the proxy's client where uvicorn trusts the proxy."""
    return request.client.host if request.client else ""


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
