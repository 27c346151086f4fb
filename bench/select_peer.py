"""The peer of `bench.ota`: a FastAPI route that does one indexed SELECT, and one that does nothing.

The same uvicorn and the same kind of pool as the OTA server's check-in: connections that commit
each statement by themselves, prepared statements, nothing tried beforehand. No token, no release.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from ota_api.resources import READS_MAX

SELECT = "SELECT id, device_model, firmware_version, model_version FROM devices WHERE id = %s"


def create_app(database_url: str) -> FastAPI:
    """Both routes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncConnectionPool[AsyncConnection](
            database_url, kwargs={"autocommit": True}, min_size=1, max_size=READS_MAX, open=False
        ) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/select/{device_id}")
    async def select(request: Request, device_id: str) -> dict[str, str | None]:
        async with request.app.state.pool.connection() as connection:
            cursor = await connection.execute(SELECT, (device_id,), prepare=True)
            row = await cursor.fetchone()
        return dict(zip(("id", "device_model", "firmware", "model"), row, strict=True))

    @app.get("/bare")
    async def bare() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    """`python -m bench.select_peer PORT DATABASE_URL`."""
    uvicorn.run(
        create_app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_config=None,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main()
