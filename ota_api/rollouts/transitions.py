"""What a report makes of a deployment.

1. The states while a device is at work are pending, downloading, installing and rebooting; a
   device may go from any to any: one that lost power begins again.
2. success, failure and already-installed are final: no report changes them.
3. aborted and timed_out are the server's words for what it had given up. A device that reports an
   outcome all the same is heard: the record shows what is true. Progress after an abort is not.
4. A failure names its stage; what the device does not say is `unknown`.
5. `success` says that the new version has booted. It and `already-installed` name version and
   SHA-256: others than the release's are a failure at the stage `confirm`.
6. After a success that rule 5 accepts the deployment stays rebooting, confirmed; it becomes a
   success when ingest has stored three readings (ota_api.rollouts.evaluation).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Of a deployment; Mender's words, and timed_out."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    SUCCESS = "success"
    FAILURE = "failure"
    ALREADY_INSTALLED = "already-installed"
    ABORTED = "aborted"
    TIMED_OUT = "timed_out"


OPEN: Final = (State.PENDING, State.DOWNLOADING, State.INSTALLING, State.REBOOTING)
UNDER_WAY: Final = (State.DOWNLOADING, State.INSTALLING, State.REBOOTING)
DONE: Final = (State.SUCCESS, State.ALREADY_INSTALLED)
FAILED: Final = (State.FAILURE, State.TIMED_OUT)
FINAL: Final = (State.SUCCESS, State.FAILURE, State.ALREADY_INSTALLED)
"""By rule 2; timed_out and aborted may still be corrected."""
OUTCOMES: Final = (*FINAL, State.ABORTED)

SUPERSEDED: Final = "superseded"
NEVER_ASKED: Final = "never_asked"
NOT_BEGUN: Final = "not_begun"
LEFT: Final = "left"
UNTRIED: Final = (SUPERSEDED, NEVER_ASKED, NOT_BEGUN, LEFT)
"""Reasons of the server, which ended what the device had not tried: it may be offered again. From
a device the same words mean nothing of the kind."""


@dataclass(frozen=True)
class Claim:
    """What a device says, and of which binary."""

    state: State
    stage: str | None = None
    reason: str | None = None
    version: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What the deployment is from now on."""

    state: State
    stage: str | None = None
    reason: str | None = None
    confirmed: bool = False


def apply(current: State, claim: Claim, *, version: str, sha256: str) -> Outcome | None:
    """The outcome of a claim about a release of that version and SHA-256; None for no change."""
    if current in FINAL or (current is State.ABORTED and claim.state not in OUTCOMES):
        return None
    if claim.state in DONE:
        return _confirm(claim, version, sha256)
    stage = claim.stage or ("unknown" if claim.state is State.FAILURE else None)
    reason = f"device: {claim.reason}" if claim.reason in UNTRIED else claim.reason
    return Outcome(claim.state, stage, reason)


def _confirm(claim: Claim, version: str, sha256: str) -> Outcome:
    """Rules 5 and 6."""
    if claim.version != version:
        return Outcome(State.FAILURE, "confirm", "version_mismatch")
    if claim.sha256 != sha256:
        return Outcome(State.FAILURE, "confirm", "hash_mismatch")
    if claim.state is State.ALREADY_INSTALLED:
        return Outcome(State.ALREADY_INSTALLED)
    return Outcome(State.REBOOTING, confirmed=True)
