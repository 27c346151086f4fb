"""What silver reads for a day: archived objects and reference data, and a checksum of all that.

1. A day is made of the bronze objects that hold readings of it (`bronze_days`), whenever those
   arrived, and of the reference that can matter for it.
2. The placements of a device that was registered after everything of the day had arrived cannot
   matter for it, unless messages of it were refused as a stranger's.
3. The checksum of a day tells whether its input is what it was; see runs.py.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

import polars as pl
import psycopg

from zenthos_assets import runs
from zenthos_assets.silver.reference import Reference
from zenthos_assets.silver.transforms import moments
from zenthos_core.topics import MessageType

_SHARES = """
SELECT d.day, d.object_key, d.row_count, o.sha256, o.hour + INTERVAL '1 hour'
FROM bronze_days d JOIN bronze_objects o USING (object_key)
WHERE o.table_name = %s AND d.day = ANY(%s) ORDER BY d.day, d.object_key"""


class Share(NamedTuple):
    """What an archived object holds of a day."""

    day: date
    object_key: str
    row_count: int
    sha256: str
    received_before: datetime


def archived_shares(connection: psycopg.Connection, days: Sequence[date]) -> list[Share]:
    """The telemetry archives that hold readings of those days, by day and key."""
    found = connection.execute(_SHARES, [MessageType.TELEMETRY, list(days)]).fetchall()
    return [Share(*row) for row in found]


def input_checksums(
    code_version: str,
    days: Sequence[date],
    shares: Iterable[Share],
    reference: Reference,
    strangers: Mapping[date, set[str]],
) -> dict[str, str]:
    """A checksum for each day (rule 3).

    Args:
        code_version: of the transforms.
        days: the days wanted.
        shares: of those days.
        reference: of at least those days.
        strangers: devices whose messages were refused, by day.
    """
    of_day: dict[date, list[Share]] = {day: [] for day in days}
    for share in shares:
        of_day[share.day].append(share)
    return {
        str(day): runs.checksum(
            code_version,
            [
                *(f"{share.object_key} {share.sha256}" for share in of_day[day]),
                *reference_digests(reference, day, of_day[day], strangers.get(day, set())),
            ],
        )
        for day in days
    }


def reference_digests(
    reference: Reference, day: date, shares: Sequence[Share], strangers: set[str]
) -> list[str]:
    """Digests of the rows of each frame that can matter for a day (rule 2)."""
    start, end = moments([day])
    known_before = max((share.received_before for share in shares), default=start)
    first = pl.col("valid_from") == pl.col("valid_from").min().over("device_id")
    matters = (
        (pl.col("valid_from") < end)
        | (first & (pl.col("valid_from") < known_before))
        | (first & pl.col("device_id").is_in(sorted(strangers)))
    )
    hours = pl.col("hour").is_between(start, end, closed="left")
    irrigating = (pl.col("begins") < end) & (pl.col("ends") > start)
    return [
        f"placements {digest(reference.placements.filter(matters))}",
        f"weather {digest(reference.weather.filter(hours))}",
        f"irrigation {digest(reference.irrigation.filter(irrigating))}",
    ]


def digest(frame: pl.DataFrame) -> str:
    """SHA-256 of the rows, whatever their order."""
    return hashlib.sha256(frame.sort(frame.columns).write_ndjson().encode()).hexdigest()
