"""What a device is to do next, and what its feedback means for its deployment.

1. A device hears of one action at a time: first of one that was taken back after it had begun,
   until it answers to that; else of the one it is offered, until it closes it.
2. Feedback on an action that is over changes nothing: the same outcome again is accepted, since its
   answer may have been lost; anything else is refused. One that was taken back may still be closed
   by a device that would not stop, and its progress is passed over.
3. `closed` ends the action: `failure` is a failure, anything else means that the device has
   installed the release and says it runs it. DDI has no hash of what runs; the signed one counts.
4. `rejected` is a failure, `canceled` an abort by the device.
5. `download` and `downloaded` are downloading; `proceeding` takes a pending deployment to
   downloading and a downloading one to installing. Whatever else comes while it is open is a sign
   of life.
6. A failure's stage is what the deployment was at; its reason is what the device says, on one line
   of at most 500 characters. SWUpdate says why beforehand: lines of its progress that begin with
   ERROR are kept, and the last of them lead the reason.
7. A device that sends no telemetry proves what it runs by `firmware_version` in configData that it
   has sent since the offer, and is asked for that until it names the version of the deployment that
   it has closed. It proves what was given up after the closing, too.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from ota_api.ddi.schemas import ConfigData, Feedback, HandlingType, Status
from ota_api.rollouts.transitions import DONE, FAILED, FINAL, OPEN, Claim, State

VERSION_ATTRIBUTE: Final = "firmware_version"
PART: Final = "bApp"
"""Of every chunk: Zephyr's client takes no other, SWUpdate and RAUC's updater take any."""
MAX_REASON: Final = 500

_STAGE: Final = {
    State.PENDING: "download",
    State.DOWNLOADING: "download",
    State.INSTALLING: "install",
    State.REBOOTING: "boot",
}
_FOLLOWING: Final = {
    (State.PENDING, "download"): State.DOWNLOADING,
    (State.PENDING, "downloaded"): State.DOWNLOADING,
    (State.PENDING, "proceeding"): State.DOWNLOADING,
    (State.DOWNLOADING, "proceeding"): State.INSTALLING,
}
"""Rule 5."""
_SUFFIX: Final = {b"07070": ".swu", b"hsqs": ".raucb", b"PK": ".zip"}
"""By magic: cpio, squashfs, zip."""
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\s]+")


@dataclass(frozen=True)
class Action:
    """A deployment of the device, and the release it is about."""

    id: int
    rollout_id: UUID
    state: State
    offered_at: datetime
    confirmed_at: datetime | None
    device_model: str
    kind: str
    name: str
    version: str
    sha256: str
    sha1: str | None
    md5: str | None
    size_bytes: int
    required: bool
    object_key: str
    begun: bool
    """Whether the device has reported anything."""
    cancel_answered: bool
    cancel_rejected: bool

    def __post_init__(self) -> None:
        """The database gives words."""
        object.__setattr__(self, "state", State(self.state))

    @property
    def to_do(self) -> bool:
        """Whether the device has not closed it."""
        return self.state in OPEN and not self.unproven

    @property
    def to_cancel(self) -> bool:
        """Rule 1."""
        unanswered = self.begun and not self.cancel_answered
        return self.state is State.ABORTED and self.confirmed_at is None and unanswered

    @property
    def unproven(self) -> bool:
        """Whether the device has closed it and nothing has proven it yet."""
        return self.state is State.REBOOTING and self.confirmed_at is not None

    @property
    def provable(self) -> bool:
        """Whether it was closed, and proof of it still counts."""
        given_up = {State.REBOOTING, State.TIMED_OUT, State.ABORTED}
        return self.state in given_up and self.confirmed_at is not None

    @property
    def installed(self) -> bool:
        """Whether the device has closed it with success."""
        return self.state in DONE or self.unproven

    def filename(self, head: bytes) -> str:
        """Such as `gateway-v1.2.0.swu`, by the first bytes: SWUpdate goes by the ending."""
        suffix = next((s for magic, s in _SUFFIX.items() if head.startswith(magic)), ".bin")
        return f"{self.name}-{self.version}{suffix}"

    @property
    def handling(self) -> HandlingType:
        """`attempt` leaves it to the device when."""
        return "forced" if self.required else "attempt"

    @property
    def fingerprint(self) -> int:
        """The `c` of a link: another number where the action has changed."""
        return zlib.crc32(f"{self.sha256} {self.handling}".encode())


@dataclass(frozen=True)
class Told:
    """What is known of the device, by its own word and by its telemetry."""

    device_model: str
    attributes: dict[str, str] | None
    sends_telemetry: bool
    told_at: datetime | None = None
    """When the attributes came."""

    def proves(self, action: Action) -> bool:
        """Rule 7."""
        since = self.told_at is not None and self.told_at >= action.offered_at
        named = (self.attributes or {}).get(VERSION_ATTRIBUTE) == action.version
        return since and named and not self.sends_telemetry


def links(actions: Sequence[Action], offered: int | None, told: Told) -> dict[str, Action | None]:
    """Rules 1 and 7: what to link, and to which action; `actions` begin with the newest."""
    wanted: dict[str, Action | None] = {}
    if cancelled := [a for a in actions if a.to_cancel]:
        wanted["cancelAction"] = cancelled[-1]
    elif open_ := [a for a in actions if a.id == offered and a.to_do]:
        wanted["deploymentBase"] = open_[0]
    unproven = any(a.unproven and not told.proves(a) for a in actions)
    if told.attributes is None or (unproven and not told.sends_telemetry):
        wanted["configData"] = None
    if installed := [a for a in actions if a.installed]:
        wanted["installedBase"] = installed[0]
    return wanted


def claim_of(action: Action, feedback: Feedback, logged: str | None = None) -> Claim | None:
    """Rules 3 to 6, of an action that is not over; None where nothing is to be recorded.

    `logged` are the last errors that were kept.
    """
    status, stage = feedback.status, _STAGE.get(action.state, "unknown")
    if is_failure(status):
        return Claim(State.FAILURE, stage, reason_of(status, logged))
    if status.execution == "closed":
        booted = Claim(State.SUCCESS, version=action.version, sha256=action.sha256)
        return None if action.unproven else booted
    if status.execution == "canceled":
        return Claim(State.ABORTED, stage, reason_of(status))
    if action.state not in OPEN or action.unproven:
        return None
    return Claim(_FOLLOWING.get((action.state, status.execution), action.state))


def is_over(action: Action, feedback: Feedback) -> bool:
    """Rule 2: whether it is too late for this."""
    outcome = feedback.status.execution in {"closed", "rejected"}
    stopped = action.state is State.ABORTED and not action.cancel_rejected
    return action.state in FINAL or (stopped and not outcome)


def repeats(state: State, feedback: Feedback) -> bool:
    """Rule 2: whether an action is reported to have ended as it has."""
    status = feedback.status
    if state in DONE:
        return status.execution == "closed" and not is_failure(status)
    if state in FAILED:
        return is_failure(status)
    return status.execution == "canceled"


def is_failure(status: Status) -> bool:
    """Rules 3 and 4."""
    failed = status.execution == "closed" and status.result.finished == "failure"
    return failed or status.execution == "rejected"


def errors_in(status: Status) -> str | None:
    """Rule 6, of progress: what is to be kept."""
    return _on_one_line([d for d in status.details or [] if d.startswith("ERROR")]) or None


def reason_of(status: Status, logged: str | None = None) -> str:
    """Rule 6."""
    text = _on_one_line([*([logged] if logged else []), *(status.details or [])])
    return text or f"the device reported {status.execution} without details"


def _on_one_line(lines: Sequence[str]) -> str:
    cleaned = (_UNPRINTABLE.sub(" ", line).strip() for line in lines)
    return "; ".join(line for line in cleaned if line)[:MAX_REASON]


def change_attributes(known: dict[str, str], sent: ConfigData) -> dict[str, str]:
    """By the mode that was sent; without one they are merged."""
    if sent.mode == "replace":
        return sent.data
    if sent.mode == "remove":
        return {name: value for name, value in known.items() if name not in sent.data}
    return known | sent.data


def polling_sleep(seconds: int) -> str:
    """HH:MM:SS."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
