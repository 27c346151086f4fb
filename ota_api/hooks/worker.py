"""Does what deliveries ask for, beside the requests.

1. A delivery is worked on by one server at a time; where that one stops, another takes it up, or
   it does itself when it is back.
2. What may go well later is tried again, after growing pauses, ATTEMPTS times in all, those that a
   stop of the server ended included.
3. What it ends in is on record with the release itself, or with an alert: published or failed.
"""

import asyncio
import logging
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from ota_api.hooks.bundles import AssetError, Bundle, find_bundles
from ota_api.hooks.fetching import AssetUnavailableError, Fetcher, opened_fetcher
from ota_api.hooks.publishing import MOST_BYTES, FetchedBundle, publish_staged, stage_bundle
from ota_api.hooks.repository import DeliveryRepository
from ota_api.hooks.schemas import Asset, Delivery
from ota_api.resources import Resources
from zenthos_core.alerts import Alert
from zenthos_core.errors import BlobStoreError, ZenthosError

ATTEMPTS: Final = 5
MAX_PAUSE_S: Final = 300.0
POLL_S: Final = 30.0
ALERT_TYPE: Final = "github_release_failed"
_PASSING: Final = (AssetUnavailableError, BlobStoreError, OSError, psycopg.errors.QueryCanceled)
"""Errors after which it may go well; the last is a wait for locks that took too long."""

_logger = logging.getLogger(__name__)


async def keep_working(resources: Resources) -> None:
    """Until cancelled; what was left undone is taken up first."""
    while True:
        resources.hook_calls.clear()
        try:
            await work_off(resources)
        except Exception:
            _logger.exception("deliveries of GitHub wait, as after an error of the database")
        with suppress(TimeoutError):  # another server may have left something
            async with asyncio.timeout(POLL_S):
                await resources.hook_calls.wait()


async def work_off(resources: Resources) -> None:
    """All that is to be done now."""
    async with resources.pool.connection() as connection:
        pending = await DeliveryRepository(connection).pending()
    for delivery_id in pending:
        async with resources.pool.connection() as connection:
            deliveries = DeliveryRepository(connection)
            if await deliveries.claim(delivery_id):
                delivery = await deliveries.find(delivery_id)
                if delivery is not None and delivery.state == "pending":
                    await _process(resources, connection, delivery)


async def _process(resources: Resources, connection: AsyncConnection, delivery: Delivery) -> None:
    """Rule 3; in the transaction that holds the claim."""
    deliveries = DeliveryRepository(connection)
    try:
        detail = await _try(resources, connection, delivery)
        state = "published"
    except (ZenthosError, OSError) as error:
        state, detail = "failed", str(error)
    except psycopg.errors.QueryCanceled:
        state, detail = "failed", "the database was busy each time: send it again"
    except psycopg.OperationalError:
        raise  # it stays as it is, for when the database is back
    except Exception:
        _logger.exception("delivery %s", delivery.id)
        state, detail = "failed", "unexpected error: the server's log holds the cause"
    now = datetime.fromtimestamp(resources.clock(), UTC)
    await deliveries.finish(delivery.id, state, detail, now)
    if state == "failed":
        _logger.error("%s %s: %s", delivery.repository, delivery.tag, detail)
        ended = await deliveries.find(delivery.id) or delivery
        await deliveries.raise_alert(_alert(ended, detail), now)
    else:
        await deliveries.resolve_alert(ALERT_TYPE, _subject(delivery), now)


async def _try(resources: Resources, connection: AsyncConnection, delivery: Delivery) -> str:
    """Rule 2."""
    left = ATTEMPTS - delivery.attempts
    if left <= 0:
        raise AssetError(
            f"given up: {delivery.attempts} attempts were cut off, by a stop"
            " of the server or of its database: send it again"
        )
    retrying = AsyncRetrying(
        stop=stop_after_attempt(left),
        wait=wait_exponential(resources.settings.github_retry_s, max=MAX_PAUSE_S),
        retry=retry_if_exception_type(_PASSING),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            await _count_attempt(resources, delivery.id)
            async with connection.transaction():
                return await _fetch_and_publish(resources, connection, delivery)
    raise AssertionError("the last attempt returns or raises")


async def _fetch_and_publish(
    resources: Resources, connection: AsyncConnection, delivery: Delivery
) -> str:
    """Everything or nothing of it is published; says what."""
    bundles = find_bundles(await DeliveryRepository(connection).assets(delivery.id))
    with tempfile.TemporaryDirectory(prefix="zenthos-hook-") as folder:
        async with opened_fetcher(resources.settings) as fetcher:
            fetched = [
                await _fetch(fetcher, bundle, Path(folder) / str(number))
                for number, bundle in enumerate(bundles)
            ]
        staged = [await stage_bundle(resources, one) for one in fetched]
    done = [await publish_staged(resources, connection, delivery.repository, one) for one in staged]
    return "published " + ", ".join(done)


async def _count_attempt(resources: Resources, delivery_id: UUID) -> None:
    """On record before it begins, whatever becomes of this server."""
    async with resources.pool.connection() as connection:
        await DeliveryRepository(connection).count_attempt(delivery_id)


async def _fetch(fetcher: Fetcher, bundle: Bundle, place: Path) -> FetchedBundle:
    """Into files named by us: an asset's name may be anything."""

    async def fetch(asset: Asset, part: str, most_bytes: int) -> Path:
        return await fetcher.fetch(asset, place.with_name(f"{place.name}.{part}"), most_bytes)

    return FetchedBundle(
        bundle,
        await fetch(bundle.manifest, "manifest.json", MOST_BYTES[0]),
        await fetch(bundle.signature, "sig", MOST_BYTES[1]),
        await fetch(bundle.binary, "binary", MOST_BYTES[2]),
    )


def _subject(delivery: Delivery) -> str:
    return f"github {delivery.repository} {delivery.tag}"


def _alert(delivery: Delivery, detail: str) -> Alert:
    return Alert(
        alert_type=ALERT_TYPE,
        severity="warning",
        subject=_subject(delivery),
        message=f"{delivery.repository} {delivery.tag} was not published: {detail}",
        evidence={"delivery_id": str(delivery.id), "attempts": delivery.attempts},
    )
