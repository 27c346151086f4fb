"""Which days of data touch which days of the training set.

1. A bronze hour touches the days of the readings in it, as the table bronze_days has them. A day
   of silver or gold is a day of readings.
2. The inputs of day D are read from the hourly rollups of D-6 to D and from the rain of D-30 to D;
   its label from the hourly rollups up to 24 h later. So a day d of readings touches the training
   days d-1 to d+30, of hourly rollups d-1 to d+6, of daily rollups d to d+30, of features d alone.
3. Weather, status reports, logs and predictions touch none.
4. A release is concerned where its signed training days and the touched ones overlap. That is
   certain where no training set of so many days in so long a span could have left all of them out.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from ota_api.moments import FIRST, LAST, days_between, start_of
from zenthos_core.errors import InvalidInputError

BRONZE: Final = "bronze/telemetry"
LABEL_DAYS: Final = 1
WINDOW_DAYS: Final = 7
RAIN_DAYS: Final = 30
TOUCHES: Final[dict[str, tuple[int, int] | None]] = {
    BRONZE: (LABEL_DAYS, RAIN_DAYS),
    "bronze/status": None,
    "bronze/inference": None,
    "bronze/logs": None,
    "silver/telemetry_cleaned": (LABEL_DAYS, RAIN_DAYS),
    "silver/weather_hourly": None,
    "gold/telemetry_historical": (LABEL_DAYS, RAIN_DAYS),
    "gold/telemetry_hourly": (LABEL_DAYS, WINDOW_DAYS - 1),
    "gold/telemetry_daily": (0, RAIN_DAYS),
    "gold/ml_features": (0, 0),
    "gold/weather_daily": None,
}
"""Rules 2 and 3: training days before and after a day of the asset, None where there are none.

On TimescaleDB the rollups are computed of telemetry_historical.
"""
_PARTITION: Final = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[-T ](\d{2})(?::00)?)?")
_TRAINING: Final = re.compile(
    r"gold/ml_features\[(\d{4}-\d{2}-\d{2})\.\.\.(\d{4}-\d{2}-\d{2})\] \((\d{1,6}) days\)"
)


@dataclass(frozen=True)
class Period:
    """From `start` up to and without `end`."""

    start: datetime
    end: datetime

    @property
    def days(self) -> list[date]:
        """That it has a part of."""
        return days_between(self.start.date(), (self.end - timedelta(microseconds=1)).date())


@dataclass(frozen=True)
class TrainingDays:
    """What a manifest says of a training set."""

    first: date
    last: date
    count: int

    @classmethod
    def parse(cls, text: str | None) -> "TrainingDays | None":
        """None where a manifest says nothing, or says it otherwise."""
        match = _TRAINING.fullmatch(text or "")
        if match is None:
            return None
        try:
            return cls(date.fromisoformat(match[1]), date.fromisoformat(match[2]), int(match[3]))
        except ValueError:
            return None

    def overlap(self, touched: Iterable[date]) -> list[date]:
        """Rule 4."""
        return sorted(day for day in set(touched) if self.first <= day <= self.last)

    def certainly_hold_one_of(self, overlap: list[date]) -> bool:
        """Rule 4."""
        return len(overlap) + self.count > (self.last - self.first).days + 1


def check_asset(asset: str) -> None:
    """InvalidInputError for one there is not."""
    if asset not in TOUCHES:
        raise InvalidInputError(f"there is no such asset: choose from {', '.join(TOUCHES)}")


def parse_partition(asset: str, partition: str) -> Period:
    """An hour or a day of bronze, a day of anything else.

    Raises:
        InvalidInputError: where it is neither.
    """
    match = _PARTITION.fullmatch(partition)
    start = match and _begin(match[1], match[2])
    if match is None or start is None:
        raise InvalidInputError(
            "partition is a day such as 2026-11-23, or an hour of bronze such as 2026-11-23-05:00"
        )
    if match[2] is None:
        return Period(start, start + timedelta(days=1))
    if not asset.startswith("bronze/"):
        raise InvalidInputError(f"partitions of {asset} are days, such as {match[1]}")
    return Period(start, start + timedelta(hours=1))


def _begin(day: str, hour: str | None) -> datetime | None:
    """None where there is no such day or hour, or one that nothing of ours can be of."""
    try:
        begin = datetime.fromisoformat(f"{day}T{hour or '00'}:00:00+00:00")
    except ValueError:
        return None
    return begin if FIRST <= begin.date() <= LAST else None


def period_of(first: date, last: date) -> Period:
    """Whole days, both included."""
    return Period(start_of(first), start_of(last + timedelta(days=1)))


def touched_by(asset: str, days: Iterable[date]) -> set[date]:
    """Rules 2 and 3: training days that some days of the asset touch."""
    reach = TOUCHES[asset]
    if reach is None:
        return set()
    before, after = (timedelta(days=n) for n in reach)
    return {near for day in set(days) for near in days_between(day - before, day + after)}


def readings_behind(training: TrainingDays) -> tuple[date, date]:
    """Rule 2 backwards: first and last day of readings that a training set can have seen."""
    return training.first - timedelta(days=RAIN_DAYS), training.last + timedelta(days=LABEL_DAYS)
