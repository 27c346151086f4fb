"""Which devices are there: silence makes one offline, by the interval that is its own.

A device is silent when it has missed three reports: three of the intervals it was registered with,
or of those at which it has been seen to report. Silence counts only while every message has been
taken in as it came: after an outage of ours, all devices look as if they had not spoken.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import psycopg

from zenthos_core.ledger import Ledger, read_ledger

MISSED_REPORTS: Final = 3
SHORTEST_SILENCE_S: Final = 60
USUAL_INTERVAL_S: Final = 300
"""Of a device that was registered without an interval and has reported only once."""

_SILENCE: Final = f"""make_interval(secs => greatest({SHORTEST_SILENCE_S}, {MISSED_REPORTS} *
  coalesce(report_interval_s, observed_interval_s, {USUAL_INTERVAL_S})))"""
_SILENT: Final = f"""
UPDATE devices SET status = 'offline', status_at = %(now)s
WHERE status = 'online' AND greatest(last_seen, %(listening_since)s) + {_SILENCE} < %(now)s
RETURNING id
"""
_FLEET: Final = """
SELECT count(*) FILTER (WHERE status = 'online'), coalesce(sum(missing_readings), 0)::int8
FROM devices
"""


@dataclass(frozen=True)
class Fleet:
    """All devices at a moment, and what became of the messages of this UTC day."""

    online: int
    missing_readings: int
    today: Ledger


def mark_silent(connection: psycopg.Connection, *, now: float, listening_since: float) -> list[str]:
    """Call silent devices offline; returns their ids. Times are in epoch seconds."""
    times = {"now": now, "listening_since": listening_since}
    moments = {name: datetime.fromtimestamp(time, UTC) for name, time in times.items()}
    return [device_id for (device_id,) in connection.execute(_SILENT, moments)]


def read_fleet(connection: psycopg.Connection, now: float) -> Fleet:
    """The fleet as the database has it; `now` is in epoch seconds."""
    online, missing = connection.execute(_FLEET).fetchone() or (0, 0)
    today = datetime.fromtimestamp(now, UTC).date()
    return Fleet(online, missing, read_ledger(connection, since=today))
