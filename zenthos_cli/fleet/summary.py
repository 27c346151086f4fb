"""What a run of the fleet sent, counted by acknowledgements of the broker."""

from datetime import UTC, datetime
from typing import Any

import msgspec


class Summary(msgspec.Struct):
    """Counts of messages; times are event times in UTC epoch seconds."""

    device_model: str
    device_ids: list[str] = []
    farm_id: str = ""
    distinct: int = 0
    """Telemetry messages with different ids: what silver must hold."""
    duplicates_sent: int = 0
    malformed_sent: int = 0
    status_sent: int = 0
    """`online` and `offline`; they are stored too."""
    resent: int = 0
    """Sent again after a lost connection: the broker may have taken them twice."""
    irrigation_events: int = 0
    first_event: int | None = None
    last_event: int | None = None
    seconds: float = 0.0
    updates: dict[str, int] = {}
    """What came of asking for updates, by state."""
    interrupted: bool = False
    """Stopped by a person before all was sent."""

    @property
    def telemetry_sent(self) -> int:
        """All on telemetry topics."""
        return self.distinct + self.duplicates_sent + self.malformed_sent

    @property
    def sent(self) -> int:
        """All that the broker acknowledged."""
        return self.telemetry_sent + self.status_sent

    def saw(self, event_time: int) -> None:
        """Widen first_event … last_event."""
        first, last = self.first_event, self.last_event
        self.first_event = event_time if first is None else min(first, event_time)
        self.last_event = event_time if last is None else max(last, event_time)

    def as_json(self) -> str:
        """One line; devices by their number, times in ISO 8601."""
        fields: dict[str, Any] = {
            "sent": self.sent,
            "telemetry_sent": self.telemetry_sent,
            **msgspec.structs.asdict(self),
            "devices": len(self.device_ids),
            "first_event": _iso(self.first_event),
            "last_event": _iso(self.last_event),
            "seconds": round(self.seconds, 3),
            "msg_per_s": round(self.sent / self.seconds) if self.seconds else 0,
        }
        del fields["device_ids"]
        return msgspec.json.encode(fields).decode()

    def _updates_text(self) -> str:
        counts = ", ".join(f"{state} {count:,}" for state, count in sorted(self.updates.items()))
        return f"updates asked for: {counts}\n" if counts else ""

    def as_text(self) -> str:
        """For people."""
        rate = f", {self.sent / self.seconds:,.0f} a second" if self.seconds else ""
        return (
            f"{self.sent:,} messages acknowledged in {self.seconds:.1f} s{rate}: "
            f"{self.distinct:,} readings of {len(self.device_ids):,} devices, "
            f"{self.duplicates_sent:,} duplicates, {self.malformed_sent:,} malformed, "
            f"{self.status_sent:,} status; {self.resent:,} sent again after a lost connection\n"
            f"{self._updates_text()}"
            f"readings from {_iso(self.first_event)} to {_iso(self.last_event)}"
        )


def _iso(epoch_s: int | None) -> str | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC).isoformat()
