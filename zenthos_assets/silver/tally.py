"""What became of the messages of some days: counted slice by slice, added up to days.

1. received = kept + duplicate + malformed + unregistered, for every day. `bronze_days` says how
   many were received; the others are counted here.
2. A slice holds some devices with all their messages of its days. Slices of different devices and
   groups of different days add up in any order.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Final

import polars as pl

from zenthos_assets.bronze.readings import MALFORMED_SCHEMA
from zenthos_assets.bronze.transforms import reading_day
from zenthos_assets.silver import statistics
from zenthos_assets.silver.order import count_repeated
from zenthos_assets.silver.reference import Reference
from zenthos_assets.silver.transforms import SCHEMA, clean, unregistered

BROKEN_SCHEMA: Final = pl.Schema({"day": pl.Date(), **MALFORMED_SCHEMA, "object_key": pl.String()})
"""Malformed messages with the day that each is about, and where they lie."""
SAMPLE_ROWS: Final = 5_000
"""Readings of a slice that are kept to show distributions."""


@dataclass(frozen=True)
class Counts:
    """Messages of a day by what became of them."""

    kept: int = 0
    duplicate: int = 0
    malformed: int = 0
    unregistered: int = 0

    @property
    def received(self) -> int:
        """Rule 1."""
        return self.kept + self.duplicate + self.malformed + self.unregistered

    @property
    def quarantined(self) -> int:
        """Those that go to etl_errors."""
        return self.malformed + self.unregistered

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Tally:
    """What became of a slice, or of several."""

    counts: dict[date, Counts]
    statistics: pl.DataFrame = field(default_factory=statistics.SCHEMA.to_frame)
    malformed: pl.DataFrame = field(default_factory=BROKEN_SCHEMA.to_frame)
    """Of BROKEN_SCHEMA."""

    strangers: frozenset[str] = frozenset()
    """Devices that were never registered."""

    repeated: int = 0
    """Rows of messages that are there already: none, or duplicates were not found."""

    sample: pl.DataFrame = field(default_factory=SCHEMA.to_frame)


def process(
    readings: pl.DataFrame, malformed: pl.DataFrame, reference: Reference, days: Sequence[date]
) -> tuple[pl.DataFrame, Tally]:
    """Clean a slice of the readings of `days` and count what became of it.

    Args:
        readings: as `clean` takes them.
        malformed: MALFORMED_SCHEMA and `object_key`, of the slice's topics.
        reference: as `clean` takes it.
        days: in order.
    """
    wanted = readings.filter(pl.col("time").dt.date().is_in(list(days)))
    cleaned = clean(wanted, reference, days)
    unplaced = unregistered(wanted, reference.placements)
    about = [reading_day(*pair) for pair in malformed.select("payload", "received_at").iter_rows()]
    broken = malformed.select(pl.Series("day", about, pl.Date), *BROKEN_SCHEMA.names()[1:])
    broken = broken.filter(pl.col("day").is_in(list(days)))
    seen, kept, strange = _by_day(wanted), _by_day(cleaned), _by_day(unplaced)
    bad = Counter(broken["day"])
    counts = {
        day: Counts(kept[day], seen[day] - kept[day] - strange[day], bad[day], strange[day])
        for day in days
    }
    tally = Tally(
        counts,
        statistics.describe(cleaned),
        broken,
        frozenset(unplaced["device_id"]),
        count_repeated(cleaned),
        cleaned.gather_every(max(1, len(cleaned) // SAMPLE_ROWS)),
    )
    return cleaned, tally


def merge(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies (rule 2)."""
    parts = list(tallies)
    counts: dict[date, Counts] = {}
    for part in parts:
        for day, count in part.counts.items():
            counts[day] = counts.get(day, Counts()) + count
    empty = Tally({})
    return Tally(
        counts,
        pl.concat([empty.statistics, *(p.statistics for p in parts)]).sort(statistics.DEVICE_DAY),
        pl.concat([empty.malformed, *(p.malformed for p in parts)]),
        frozenset().union(*(p.strangers for p in parts)),
        sum(p.repeated for p in parts),
        pl.concat([empty.sample, *(p.sample for p in parts)]),
    )


def _by_day(readings: pl.DataFrame) -> Counter[date]:
    days = readings.select(day=pl.col("time").dt.date())["day"]
    if len(days) and days.min() == days.max():  # as large days come, alone
        return Counter({days[0]: len(days)})
    return Counter(dict(days.value_counts().iter_rows()))
