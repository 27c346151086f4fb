"""What the messages of a batch change of a device's current state. Pure.

Rules:

1. Whatever arrives moves `seen`.
2. The newest live reading moves the current state; a late one, or one marked `backlog`, never does.
3. A status report says what the device is, in order of arrival, since a last will carries the time
   at which the device connected. A live message says that a device called offline is online; one
   in maintenance stays so.
4. `seq` is the device's own counter of its readings. The newest reading's is kept, with how many
   readings have come: what lies between them and the last newest one is missing until it comes.
"""

from typing import Final

import msgspec

from zenthos_core.messages import DeviceStatus, Status, Telemetry

ALIVE: Final = "alive"
"""Online, if it was called offline or has never been heard of."""

REPORTED: Final = (
    *("uptime_seconds", "free_heap_bytes", "boot_count", "reset_reason"),
    *("firmware_version", "model_version"),
)
"""What a status report says beside the status; what it leaves out stays as it was."""


class DeviceChange(msgspec.Struct):
    """One device's part of a batch; times are epoch seconds."""

    seen: float
    presence: str | None = None
    reading: Telemetry | None = None
    reading_at: float = 0.0
    readings: int = 0
    """Live readings, by which the time since the last one is divided."""

    seq: int | None = None
    seq_at: float = 0.0
    seqs: int = 0
    report: dict[str, object] | None = None

    def hear(self, *, live: bool) -> None:
        """A prediction or a log line (rule 3)."""
        if live and self.presence is None:
            self.presence = ALIVE
        elif live and self.presence == DeviceStatus.OFFLINE:
            self.presence = DeviceStatus.ONLINE

    def read(self, message: Telemetry, time: float, *, live: bool) -> None:
        """A reading (rules 2 to 4)."""
        if live:
            self.readings += 1
            if self.reading is None or time > self.reading_at:
                self.reading, self.reading_at = message, time
            if self.presence != ALIVE:
                self.hear(live=True)
        if message.seq is not None:
            self.count(message.seq, time)

    def count(self, seq: int, time: float) -> None:
        """A reading's place in the device's own count (rule 4)."""
        if seq == self.seq and time == self.seq_at:
            return  # the same reading under another message_id
        self.seqs += 1
        if self.seq is None or (time, seq) > (self.seq_at, self.seq):
            self.seq, self.seq_at = seq, time

    def tell(self, status: Status) -> None:
        """A status report (rule 3)."""
        self.presence = status.status
        told = {name: getattr(status, name) for name in REPORTED}
        merged = self.report or {}
        self.report = merged | {name: value for name, value in told.items() if value is not None}
