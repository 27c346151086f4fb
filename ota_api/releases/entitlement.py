"""Which release a device is entitled to. Values in, a decision out that a person can act on.

Releases of the slot are looked at from the newest counter down; the first that passes all of these
is the one. Where none does, the newest one's first failing rule is the reason.

1. It is not withdrawn.
2. It has not expired.
3. A key that keys.json lists now, unexpired and for this kind and these models, signed it.
4. Its counter is not below that of the release the device runs. A version that was issued again
   has several counters: then the one that a deployment proves, else the lowest.
5. The device runs the firmware that it requires; else an older one that it can take comes first.
6. A rollout offers it, by the first of these that applies:
   a. created or aborted offers it to nobody;
   b. a device that failed in the rollout, or timed out at it, is not offered it again by it;
   c. a device that has it, or has begun to, goes on, also while the rollout is paused;
   d. paused offers it to nobody else;
   e. running and finished offer it to members (`ota_api.rollouts.membership`).
   The newest rollout that offers it counts. One that has begun and stopped for the device, by a, b
   or d and whatever its phase, leaves it to no older one, but to those that have it by that.

A device that asks for one version gets it by the same rules, and the version that it runs in any
case. Users, who install nothing, get the newest by rules 1 and 2.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec

from ota_api.releases.repository import MODEL_KINDS, Release, Slot
from ota_api.rollouts.membership import BUCKETS, bucket_of, is_in
from ota_api.rollouts.offers import Deployment
from ota_api.rollouts.transitions import DONE, FAILED, UNDER_WAY, State
from zenthos_core.manifest import FIRMWARE_VERSION
from zenthos_core.signing import ReleaseKey, is_trusted


class DeviceState(msgspec.Struct, frozen=True):
    """What is known of the device that asks."""

    device_id: str
    device_model: str
    farm_id: UUID | None = None
    tags: Sequence[str] = ()
    firmware_version: str | None = None
    model_version: str | None = None

    def running(self, slot: Slot) -> str | None:
        """The version that it reports to run in the slot."""
        return self.model_version if slot.kinds == MODEL_KINDS else self.firmware_version


class Rollout(msgspec.Struct, frozen=True):
    """Who is offered a release; `percentage` is that of the phase it is in."""

    id: UUID
    state: str
    phase: int
    percentage: float
    control_percentage: float = 0.0
    farm_id: UUID | None = None
    tag: str | None = None
    paused_reason: str | None = None
    begun: bool = True
    """Whether it was ever started."""


class Candidate(msgspec.Struct, frozen=True):
    """A release, as it may be offered to one device model."""

    release: Release
    device_models: tuple[str, ...]
    """All that were signed for."""
    min_firmware: str | None = None
    withdrawn: bool = False
    withdrawal_reason: str | None = None
    rollouts: tuple[Rollout, ...] = ()
    """The newest first."""
    metadata: bytes = b""
    """What is told of it, by `ota_api.releases.metadata`."""


class Shelf:
    """All releases of a slot."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.newest_first = tuple(
            sorted(candidates, key=lambda c: c.release.release_counter, reverse=True)
        )
        self.by_version: dict[str, tuple[Candidate, ...]] = {}
        for candidate in self.newest_first:
            version = candidate.release.version
            self.by_version[version] = (*self.by_version.get(version, ()), candidate)
        self.rollout_ids = [r.id for c in self.newest_first for r in c.rollouts]

    def older_rollouts(self, counter: int) -> list[UUID]:
        """Those of the releases below a counter."""
        older = (c for c in self.newest_first if c.release.release_counter < counter)
        return [r.id for c in older for r in c.rollouts]


class Entitled(msgspec.Struct, frozen=True):
    """The release, who offers it, and the device's part in that; a user has neither."""

    candidate: Candidate
    rollout: Rollout | None = None
    deployment: Deployment | None = None

    @property
    def release(self) -> Release:
        """What is offered."""
        return self.candidate.release


class Denied(msgspec.Struct, frozen=True):
    """`reason` is a stable word; the text says what stands in the way."""

    reason: str
    text: str


Deployments = Mapping[UUID, Deployment]
"""Of the device, by rollout."""

NOTHING_PUBLISHED: Final = "nothing_published"
_STOPPED: Final = {"rollout_aborted", "rollout_paused", "failed_before"}
TEXTS: Final = 3
"""Releases passed over that a refusal explains."""


def decide_latest(  # noqa: PLR0917 - the evidence, each piece of another source
    device: DeviceState,
    slot: Slot,
    shelf: Shelf,
    deployments: Deployments,
    keys: Sequence[ReleaseKey],
    now: float,
) -> Entitled | Denied:
    """The release that the device should run; `now` in epoch seconds."""
    running = device.running(slot)
    floor = _floor(shelf, running, deployments)
    passed_over: list[Denied] = []
    for candidate in _of_kinds(shelf.newest_first, slot):
        judged = _judge(candidate, device, running, floor, deployments, keys, now)
        if isinstance(judged, Entitled):
            return judged
        passed_over.append(judged)
        if candidate.release.release_counter < floor:
            break
    if not passed_over:
        return Denied(NOTHING_PUBLISHED, f"nothing is published for {slot.describe()}: publish one")
    texts = [denied.text for denied in passed_over if denied.reason != "older_than_running"]
    return Denied(passed_over[0].reason, "; ".join(texts[:TEXTS]) or passed_over[0].text)


def decide_version(  # noqa: PLR0917 - as above
    device: DeviceState,
    slot: Slot,
    shelf: Shelf,
    version: str,
    deployments: Deployments,
    keys: Sequence[ReleaseKey],
    now: float,
) -> Entitled | Denied:
    """One version, for a device that downloads it or must explain what it runs."""
    named = _of_kinds(shelf.by_version.get(version, ()), slot)
    if not named:
        return Denied(NOTHING_PUBLISHED, f"no {version} is published for {slot.describe()}")
    running = device.running(slot)
    floor = _floor(shelf, running, deployments)
    judged = [_judge(c, device, running, floor, deployments, keys, now) for c in named]
    entitled = next((j for j in judged if isinstance(j, Entitled)), None)
    if entitled is not None:
        return entitled
    return Entitled(named[0]) if version == running else judged[0]


def decide_for_user(shelf: Shelf, slot: Slot, version: str | None, now: float) -> Entitled | Denied:
    """Rules 1 and 2 for the newest (None); any version by its name."""
    if version is not None:
        named = _of_kinds(shelf.by_version.get(version, ()), slot)
        if named:
            return Entitled(named[0])
        return Denied(NOTHING_PUBLISHED, f"no {version} is published for {slot.describe()}")
    for candidate in _of_kinds(shelf.newest_first, slot):
        if not candidate.withdrawn and candidate.release.expires_at.timestamp() > now:
            return Entitled(candidate)
    text = f"no release for {slot.describe()} that has not expired: publish one"
    return Denied(NOTHING_PUBLISHED, text)


def _of_kinds(candidates: Sequence[Candidate], slot: Slot) -> list[Candidate]:
    """A shelf has firmware of both kinds: they have one counter, and replace each other."""
    return [candidate for candidate in candidates if candidate.release.kind in slot.kinds]


def _floor(shelf: Shelf, running: str | None, deployments: Deployments) -> int:
    """Rule 4: the counter of what the device runs, 0 where that is not known."""
    known = shelf.by_version.get(running, ()) if running is not None else ()
    if not known:
        return 0
    proven = (c for c in known for r in c.rollouts if _has_it(deployments.get(r.id)))
    return next(proven, known[-1]).release.release_counter


def _ended_without(deployment: Deployment) -> bool:
    """Rule 6b; what was superseded, or ended before it was begun, was not tried."""
    return deployment.state in {*FAILED, State.ABORTED} and not deployment.untried


def _has_begun(deployment: Deployment | None) -> bool:
    """Rule 6c; or has it."""
    return deployment is not None and deployment.state in {*UNDER_WAY, *DONE}


def _has_stopped(refused: Denied, rollout: Rollout) -> bool:
    return rollout.begun and refused.reason in _STOPPED


def _has_it(deployment: Deployment | None) -> bool:
    return deployment is not None and deployment.state in DONE


def _judge(  # noqa: PLR0917 - one rule after another over all the evidence
    candidate: Candidate,
    device: DeviceState,
    running: str | None,
    floor: int,
    deployments: Deployments,
    keys: Sequence[ReleaseKey],
    now: float,
) -> Entitled | Denied:
    release = candidate.release
    version = release.version
    if candidate.withdrawn:
        why = candidate.withdrawal_reason or "no reason given"
        return Denied("withdrawn", f"{version} was withdrawn: {why}")
    if release.expires_at.timestamp() <= now:
        return Denied("expired", f"{version} expired at {_utc(release.expires_at)}: reissue it")
    models = list(candidate.device_models)
    if not is_trusted(keys, release.key_id, release.kind, models, now=now):
        text = f"{version} is signed by key {release.key_id}, which keys.json does not trust now"
        return Denied("key_not_trusted", text)
    if release.release_counter < floor:
        return Denied("older_than_running", f"{version} is older than {running}, which it runs")
    if candidate.min_firmware is not None:
        needs = _needs(version, candidate.min_firmware, device.firmware_version)
        if needs is not None:
            return needs
    return _find_rollout(candidate, device, deployments)


def _needs(version: str, wanted: str, installed: str | None) -> Denied | None:
    """Rule 5."""
    if not FIRMWARE_VERSION.fullmatch(wanted):
        text = f"{version} needs firmware {wanted!r}, which is no version: publish it anew"
    elif installed is not None and FIRMWARE_VERSION.fullmatch(installed):
        if _numbers(installed) >= _numbers(wanted):
            return None
        text = f"{version} needs firmware {wanted} first; the device runs {installed}"
    else:
        known = f"reports {installed}" if installed else "has not reported its firmware yet"
        text = f"{version} needs firmware {wanted}; the device {known}"
    return Denied("needs_firmware", text)


def _find_rollout(
    candidate: Candidate, device: DeviceState, deployments: Deployments
) -> Entitled | Denied:
    """Rule 6: the rollout that offers it, or why the newest one does not."""
    refusal: Denied | None = None
    version = candidate.release.version
    stopped = False
    for rollout in candidate.rollouts:
        deployment = deployments.get(rollout.id)
        refused = _ask_rollout(version, rollout, device, deployment)
        if refused is None and (not stopped or _has_begun(deployment)):
            return Entitled(candidate, rollout, deployment)
        if refused is None or stopped:
            continue
        if _has_stopped(refused, rollout) and _check_filter(version, rollout, device) is None:
            refusal, stopped = refused, True
        refusal = refusal or refused
    return refusal or Denied("no_rollout", f"{version} is in no rollout: create one")


def _ask_rollout(
    version: str, rollout: Rollout, device: DeviceState, deployment: Deployment | None
) -> Denied | None:
    """Rules 6a to 6e; None where it offers the release."""
    of = f"of rollout {rollout.id}"
    if rollout.state == "created":
        return Denied("rollout_not_started", f"{version} waits for the start {of}")
    if rollout.state == "aborted":
        return Denied("rollout_aborted", f"{version}: the rollout {rollout.id} was aborted")
    if deployment is not None:
        if _ended_without(deployment):
            why = deployment.reason or "no reason given"
            text = f"{version} was tried before: deployment {deployment.id} is {deployment.state}"
            return Denied("failed_before", f"{text} ({why})")
        if _has_begun(deployment):
            return None
    if rollout.state == "paused":
        why = rollout.paused_reason or "no reason given"
        return Denied("rollout_paused", f"{version}: the rollout {rollout.id} is paused ({why})")
    return _check_filter(version, rollout, device) or _check_phase(version, rollout, device)


def _check_filter(version: str, rollout: Rollout, device: DeviceState) -> Denied | None:
    """Rule 6e: farm and tag."""
    if rollout.farm_id is not None and rollout.farm_id != device.farm_id:
        return Denied("other_farm", f"{version} is for another farm by rollout {rollout.id}")
    if rollout.tag is not None and rollout.tag not in device.tags:
        text = f"{version} is for devices tagged {rollout.tag} by rollout {rollout.id}"
        return Denied("other_tag", text)
    return None


def _check_phase(version: str, rollout: Rollout, device: DeviceState) -> Denied | None:
    """Rule 6e: the bucket."""
    bucket = bucket_of(rollout.id, device.device_id)
    finished = rollout.state == "finished"
    if is_in(bucket, rollout.percentage, rollout.control_percentage, finished=finished):
        return None
    if not finished and bucket >= BUCKETS - round(rollout.control_percentage * 100):
        text = f"{version}: the device is held back as control of rollout {rollout.id}"
        return Denied("control", text)
    share = f"the {rollout.percentage:g} % of rollout {rollout.id}"
    return Denied("not_in_phase", f"{version}: the device is not in {share} yet")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version[1:].split("."))


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
