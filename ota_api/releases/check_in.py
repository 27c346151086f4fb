"""A device checks in: one indexed read, a decision in memory, at the first offer one write.

1. Whether the token still holds, the device's state, its deployments and the catalogue's version
   come from one statement, so they belong together; all is read anew at each check-in
   (`ota_api.releases.askers`).
2. Releases and rollouts are those in memory only if they are of that version; else both are read
   again. What was withdrawn, paused or revoked a moment ago counts in every worker.
3. The first offer is recorded before it is told (`ota_api.rollouts.offers`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from ota_api.releases.askers import Asker, Askers
from ota_api.releases.catalogue import Catalogue, CatalogueCache
from ota_api.releases.entitlement import (
    Denied,
    Entitled,
    Shelf,
    decide_latest,
    decide_version,
)
from ota_api.releases.repository import Slot
from ota_api.rollouts.offers import OFFERING, Offer
from ota_api.rollouts.transitions import OPEN
from ota_api.standing import check_device
from zenthos_core.errors import BusyError, PermissionDeniedError
from zenthos_core.signing import ReleaseKey
from zenthos_core.tokens import Identity

TRIES: Final = 5
"""Each takes a change of the catalogue between two statements."""


@dataclass(frozen=True)
class Question:
    """Which device asks for what; `version` None for the latest. Epoch seconds."""

    device_id: str
    slot: Slot
    version: str | None
    keys: Sequence[ReleaseKey]
    now: float
    identity: Identity | None = None
    """Of a token that has been verified and may be void; None where the caller knows better."""


async def find_offer(
    askers: Askers, catalogues: CatalogueCache, question: Question
) -> Entitled | Denied:
    """What the device is offered, with its deployment; recorded where it is new.

    Raises:
        AuthenticationError: for a token that is void.
        PermissionDeniedError: for a device that is not in use, or of another model.
        BusyError: where the catalogue does not hold still.
    """
    for _ in range(TRIES):
        catalogue = catalogues.current
        rollouts = catalogue.shelf(question.slot).rollout_ids
        asker = await askers.read(question.device_id, rollouts)
        _check_device(asker, question)
        decided = await _answer(askers, catalogue, asker, question)
        if decided is not None:
            return decided
        await catalogues.replace(catalogue)
    raise BusyError("releases change faster than they are read: try again in a moment")


async def _answer(
    askers: Askers, catalogue: Catalogue, asker: Asker | None, question: Question
) -> Entitled | Denied | None:
    """Rules 2 and 3; None where the catalogue has changed."""
    if asker is None or asker.catalogue_version != catalogue.version:
        return None
    shelf = catalogue.shelf(question.slot)
    decided = _decide(asker, shelf, question)
    if isinstance(decided, Denied) or not _is_new(asker, shelf, decided, question):
        return decided
    return await _record(askers, asker, shelf, decided, question)


def _check_device(asker: Asker | None, question: Question) -> None:
    name = question.device_id
    if asker is None:
        raise PermissionDeniedError(f"device {name} is not registered any more")
    if question.identity is not None:
        check_device(
            question.identity, in_use=asker.in_use, tokens_valid_from=asker.tokens_valid_from
        )
    if not asker.in_use:
        raise PermissionDeniedError(f"device {name} is decommissioned")
    own, asked = asker.device.device_model, question.slot.device_model
    if own != asked:
        raise PermissionDeniedError(f"device {name} is a {own}: no {asked} release is for it")


def _decide(asker: Asker, shelf: Shelf, question: Question) -> Entitled | Denied:
    evidence = (asker.deployments, question.keys, question.now)
    if question.version is None:
        return decide_latest(asker.device, question.slot, shelf, *evidence)
    return decide_version(asker.device, question.slot, shelf, question.version, *evidence)


def _is_new(asker: Asker, shelf: Shelf, decided: Entitled, question: Question) -> bool:
    """A deployment to make; for who asks what is the latest also one to take up again, or one that
    supersedes what was offered while it was paused."""
    deployment = decided.deployment
    if decided.rollout is None:
        return False
    if deployment is None:
        return True
    if question.version is not None:
        return False
    return deployment.untried or (
        decided.rollout.state in OFFERING
        and len(asker.deployments) > 1
        and any(
            older in asker.deployments and asker.deployments[older].state in OPEN
            for older in shelf.older_rollouts(decided.release.release_counter)
        )
    )


async def _record(
    askers: Askers,
    asker: Asker,
    shelf: Shelf,
    decided: Entitled,
    question: Question,
) -> Entitled | None:
    """Rule 3; None where the rollout was stopped in between."""
    assert decided.rollout is not None, "what is new is of a rollout"  # noqa: S101
    release = decided.release
    offer = Offer(
        decided.rollout.id,
        question.device_id,
        release.version,
        asker.device.running(question.slot),
        shelf.older_rollouts(release.release_counter),
    )
    now = datetime.fromtimestamp(question.now, UTC)
    deployment = await askers.record(now, offer)
    return msgspec.structs.replace(decided, deployment=deployment) if deployment else None
