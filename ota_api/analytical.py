"""The analytical database, as the routes that show history read it.

It is opened with the first question. Where it is away, those routes alone say so: devices get
their updates all the same, and /health/ready does not ask it. Whoever asks holds a connection to
the operational database meanwhile, so few may wait: the others are told to ask again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from zenthos_core.errors import BusyError, UnavailableError

POOL_MAX: Final = 4
WAITING_MAX: Final = 8
"""Some of them until the first connections are open."""
POOL_WAIT_S: Final = 3.0
STATEMENT_TIMEOUT_MS: Final = 15_000


class AnalyticalDatabase:
    """A pool of read-only connections; none is open until one is asked for."""

    def __init__(self, url: str) -> None:
        self._pool = AsyncConnectionPool(
            url,
            kwargs={
                "application_name": "zenthos-ota-api",
                "connect_timeout": 3,
                "options": f"-c timezone=UTC -c statement_timeout={STATEMENT_TIMEOUT_MS}"
                " -c default_transaction_read_only=on",
            },
            min_size=0,
            max_size=POOL_MAX,
            max_waiting=WAITING_MAX,
            timeout=POOL_WAIT_S,
            check=AsyncConnectionPool.check_connection,
            open=False,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One snapshot for all that is asked within.

        Raises:
            UnavailableError: where it cannot be reached, is not migrated or takes too long.
            BusyError: where too many ask.
        """
        try:
            async with self._pool.connection() as connection:
                await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
                yield connection
        except psycopg.errors.QueryCanceled as error:
            raise UnavailableError(
                "the analytical database took too long: ask for fewer days, or use /export"
            ) from error
        except psycopg.errors.UndefinedTable as error:
            raise UnavailableError(
                "the analytical database is not migrated: `zenthos up` does it"
            ) from error
        except TooManyRequests as error:
            raise BusyError(
                "too many wait for the history already: ask again in a moment"
            ) from error
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise UnavailableError(
                "the analytical database cannot be reached: start it, or correct"
                " ZENTHOS_ANALYTICS_DATABASE_URL"
            ) from error
