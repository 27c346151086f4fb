"""Takes deliveries of GitHub's webhook.

1. The HMAC was verified over the exact body before anything of it is read (ota_api.hooks.routes).
2. The event `release` with the action `published` counts; all others are answered and forgotten.
3. A body is known by its hash: sent again, under whatever id, it is answered with what has become
   of it, and nothing is done twice; what has failed is begun anew. An id that comes with another
   body is refused.
4. What is to be done is on record when GitHub is answered; it is done by ota_api.hooks.worker.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from ota_api.hooks.bundles import MANIFEST_SUFFIX
from ota_api.hooks.repository import DeliveryRepository
from ota_api.hooks.schemas import Delivery, HookAnswer, ReleaseEvent
from ota_api.resources import Resources
from zenthos_core.errors import ConflictError, InvalidInputError

RELEASE_EVENT: Final = "release"
PUBLISHED: Final = "published"


@dataclass(frozen=True)
class Incoming:
    """A request that GitHub has signed."""

    event: str
    delivery_id: str
    body: bytes


async def receive(
    resources: Resources, deliveries: DeliveryRepository, incoming: Incoming
) -> HookAnswer:
    """What becomes of it, by rules 1 to 4.

    Raises:
        InvalidInputError: for a body that is not as GitHub's are.
        ConflictError: by rule 3.
    """
    if incoming.event != RELEASE_EVENT:
        return _ignored(f"the event {incoming.event[:40]!r} is not {RELEASE_EVENT}")
    event = _parse(incoming.body)
    if event.action != PUBLISHED:
        return _ignored(f"the action {event.action[:40]!r} is not {PUBLISHED}")
    if not any(asset.name.endswith(MANIFEST_SUFFIX) for asset in event.release.assets):
        return _ignored(f"no asset of the release ends in {MANIFEST_SUFFIX}")
    return _answer(await _record(resources, deliveries, incoming, event))


async def _record(
    resources: Resources,
    deliveries: DeliveryRepository,
    incoming: Incoming,
    event: ReleaseEvent,
) -> Delivery:
    """Rules 3 and 4."""
    delivery_id, digest = _parse_id(incoming.delivery_id), hashlib.sha256(incoming.body).digest()
    now = datetime.fromtimestamp(resources.clock(), UTC)
    await deliveries.insert(delivery_id, digest, event, now)
    known = await deliveries.find_body(digest)
    if known is None:
        raise ConflictError(f"delivery {delivery_id} came before, with another body")
    if known.state == "failed":
        return await deliveries.begin_anew(known.id)
    return known


def _parse(body: bytes) -> ReleaseEvent:
    try:
        return msgspec.json.decode(body, type=ReleaseEvent)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"not GitHub's event release as JSON ({error}): set the webhook's content type to"
            " application/json"
        ) from None


def _parse_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInputError("X-GitHub-Delivery is not a UUID, as GitHub sends it") from None


def _ignored(detail: str) -> HookAnswer:
    return HookAnswer(status="ignored", detail=detail, delivery_id=None)


def _answer(delivery: Delivery) -> HookAnswer:
    where = f"{delivery.repository} {delivery.tag}"
    return HookAnswer(
        status=delivery.state,
        detail=delivery.detail or f"{where} is fetched and verified: see GET /hooks/deliveries",
        delivery_id=delivery.id,
    )
