"""What silver reads for a day: archived objects and reference data, and a checksum of all that.

1. A day is made of the bronze objects that hold readings of it (`bronze_days`), whenever those
   arrived, and of the reference that can matter for it.
2. The placements of a device that was registered after everything of the day had arrived cannot
   matter for it, unless messages of it were refused as a stranger's.
3. The checksum of a day tells whether its input is what it was; see runs.py.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    strangers: Mapping[date, Collection[str]],
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
    facts = Facts.of(reference)
    checksums = {}
    for day in days:
        objects = [f"{share.object_key} {share.sha256}" for share in of_day[day]]
        known = facts.that_matter(day, of_day[day], strangers.get(day, frozenset()))
        checksums[str(day)] = runs.checksum(code_version, [*objects, *known])
    return checksums


@dataclass(frozen=True)
class Facts:
    """The rows of a reference as texts, made once for all days."""

    placements: list[tuple[datetime, str, bool, str]]
    """Since when, device, whether it is its first, and the row."""

    weather: dict[date, list[str]]
    irrigation: list[tuple[datetime, datetime, str]]

    @classmethod
    def of(cls, reference: Reference) -> "Facts":
        """The texts of each frame."""
        placements = reference.placements.sort("device_id", "valid_from")
        firsts = placements.select(pl.col("device_id").is_first_distinct()).to_series()
        rows = placements.rows(named=True)
        weather: dict[date, list[str]] = {}
        for hour in reference.weather.rows(named=True):
            weather.setdefault(hour["hour"].date(), []).append(f"weather {hour}")
        return cls(
            [
                (row["valid_from"], row["device_id"], first, f"placement {row}")
                for row, first in zip(rows, firsts, strict=True)
            ],
            weather,
            [
                (event["begins"], event["ends"], f"irrigation {event}")
                for event in reference.irrigation.rows(named=True)
            ],
        )

    def that_matter(
        self, day: date, shares: Sequence[Share], strangers: Collection[str]
    ) -> list[str]:
        """The texts that can matter for a day (rule 2)."""
        start, end = moments([day])
        known_before = max((share.received_before for share in shares), default=start)
        return [
            *(
                text
                for since, device, first, text in self.placements
                if since < end or (first and (since < known_before or device in strangers))
            ),
            *self.weather.get(day, []),
            *(text for begins, ends, text in self.irrigation if begins < end and ends > start),
        ]
