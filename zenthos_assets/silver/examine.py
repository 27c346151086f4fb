"""Is a day like the days before it? Findings from the statistics of devices; values in, values out.

1. A day is compared with the seven days before it, as far as there are any.
2. `odd_counts`: days with less than half or more than twice the median of the readings of those
   days, of which at least four had readings. The running day is not yet expected to be whole.
3. `missing_values`: sensors of which the share of readings without a value has risen by more than
   20 percentage points.
4. `implausible`: days on which more than 20 % of the readings have a value out of range.
5. `gappy`: devices that sent less than 80 % of what their interval asks for. The interval is that
   of their registration, or the median one of the day. A device is expected from the day's
   beginning, or from its first reading where it was not there in those seven days.
6. `stuck`: sensors with one and the same value in all readings of a day, over twelve hours at
   least, that had changed on one of those seven days. Soil may rest for a day (at steps of 0.1 %
   it did on 2 % of the days of the Kings Creek stations): it counts from the third such day on.
   At its limit a value may rest: 100 %RH, or no light.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Final

import polars as pl

from zenthos_assets.silver.statistics import DEVICE_DAY, SENSORS
from zenthos_assets.silver.transforms import RANGES

DAYS_BEFORE: Final = 7
FEWEST_DAYS: Final = 4
ODD_RATIOS: Final = (0.5, 2.0)
MISSING_RISE: Final = 0.2
BAD_SHARE: Final = 0.2
COVERAGE: Final = 0.8
STUCK_FOR: Final = timedelta(hours=12)
STUCK_READINGS: Final = 12
STILL_DAYS: Final = {"temperature": 1, "humidity": 1, "light_level": 1, "soil_moisture": 3}
"""From how many days on a sensor that stands still is stuck."""

_BEFORE: Final = f"{DAYS_BEFORE}d"


@dataclass(frozen=True)
class Findings:
    """What is odd about some days; each frame has a row for each oddity, and `day` in it."""

    device_days: int
    odd_counts: pl.DataFrame
    missing_values: pl.DataFrame
    implausible: pl.DataFrame
    gappy: pl.DataFrame
    stuck: pl.DataFrame

    def __add__(self, other: "Findings") -> "Findings":
        frames = [f.name for f in fields(self) if f.name != "device_days"]
        both = {n: pl.concat([getattr(self, n), getattr(other, n)]) for n in frames}
        return Findings(self.device_days + other.device_days, **both)


def examine(
    statistics: pl.DataFrame,
    days: Sequence[date],
    *,
    now: datetime,
    intervals_s: Mapping[str, float | None],
) -> Findings:
    """Rules 1 to 6 for those days.

    Args:
        statistics: of those days and of the seven before the first.
        days: the days in question.
        now: until when readings may have come.
        intervals_s: seconds between reports by device, where it was registered with them.
    """
    asked = pl.col("day").is_in(list(days))
    totals = _totals(statistics)
    return Findings(
        statistics.filter(asked).height,
        odd_counts(totals, now.date()).filter(asked),
        missing_values(totals).filter(asked),
        implausible(totals).filter(asked),
        gappy(statistics, now=now, intervals_s=intervals_s).filter(asked),
        stuck(statistics).filter(asked),
    )


def _totals(statistics: pl.DataFrame) -> pl.DataFrame:
    """Sums of all devices by day, in order."""
    sums = ["readings", "implausible", *(f"{name}_missing" for name in SENSORS)]
    return statistics.group_by("day").agg(pl.col(sums).sum()).sort("day")


def odd_counts(totals: pl.DataFrame, today: date) -> pl.DataFrame:
    """Rule 2: `day`, `readings`, `usual`."""
    usual = pl.col("readings").rolling_median_by("day", _BEFORE, closed="left")
    counted = pl.col("readings").is_not_null().cast(pl.Int64)
    known = counted.rolling_sum_by("day", _BEFORE, closed="left")
    ratio = pl.col("readings") / pl.col("usual")
    low, high = ODD_RATIOS
    return (
        totals.with_columns(usual=usual, known=known)
        .filter(pl.col("known") >= FEWEST_DAYS)
        .filter((ratio > high) | ((ratio < low) & (pl.col("day") < today)))
        .select("day", "readings", "usual")
    )


def missing_values(totals: pl.DataFrame) -> pl.DataFrame:
    """Rule 3: `day`, `sensor`, `share`, `usual`."""
    days = totals.unpivot(
        [f"{name}_missing" for name in SENSORS],
        index=["day", "readings"],
        variable_name="sensor",
        value_name="missing",
    ).sort("sensor", "day")
    before = [
        pl.col(name).rolling_sum_by("day", _BEFORE, closed="left").over("sensor")
        for name in ("missing", "readings")
    ]
    return (
        days.with_columns(
            pl.col("sensor").str.strip_suffix("_missing"),
            share=pl.col("missing") / pl.col("readings"),
            usual=before[0] / before[1],
        )
        .filter(pl.col("share") > pl.col("usual") + MISSING_RISE)
        .select("day", "sensor", "share", "usual")
    )


def implausible(totals: pl.DataFrame) -> pl.DataFrame:
    """Rule 4: `day`, `share`."""
    share = (pl.col("implausible") / pl.col("readings")).alias("share")
    return totals.select("day", share).filter(pl.col("share") > BAD_SHARE)


def gappy(
    statistics: pl.DataFrame, *, now: datetime, intervals_s: Mapping[str, float | None]
) -> pl.DataFrame:
    """Rule 5: `day`, `device_id`, `coverage`, `longest_gap_s`, `missing_seq`."""
    registered = pl.DataFrame(
        {"device_id": list(intervals_s), "registered_s": list(intervals_s.values())},
        schema={"device_id": pl.String, "registered_s": pl.Float64},
    )
    midnight = pl.col("day").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    seen = pl.col("day").diff().over("device_id") <= timedelta(days=DAYS_BEFORE)
    begins = pl.when(seen.fill_null(value=False)).then(midnight).otherwise("first_time")
    ends = pl.min_horizontal(midnight + timedelta(days=1), pl.lit(now))
    interval = pl.coalesce("registered_s", "interval_s")
    expected = (ends - begins).dt.total_microseconds() / 1e6 / interval
    return (
        statistics.sort("device_id", "day")
        .join(registered, on="device_id", how="left", maintain_order="left")
        .with_columns(coverage=pl.col("readings") / expected)
        .filter(pl.col("coverage") < COVERAGE)
        .select(*DEVICE_DAY, "coverage", "longest_gap_s", "missing_seq")
    )


def stuck(statistics: pl.DataFrame) -> pl.DataFrame:
    """Rule 6: `day`, `device_id`, `sensor`, `value`."""
    ordered = statistics.sort("device_id", "day")
    return pl.concat([_stuck(ordered, name, days) for name, days in STILL_DAYS.items()])


def _stuck(ordered: pl.DataFrame, name: str, days: int) -> pl.DataFrame:
    least, greatest = pl.col(f"{name}_min"), pl.col(f"{name}_max")
    moved = (least < greatest) & (pl.col("readings") >= STUCK_READINGS)
    lately = (
        moved.cast(pl.Int8).rolling_max_by("day", _BEFORE, closed="left").over("device_id") == 1
    )
    long = pl.col("last_time") - pl.col("first_time") >= STUCK_FOR
    rests = (least == greatest) & ~least.is_in([float(limit) for limit in RANGES[name]])
    for before in range(1, days):
        for bound in (least, greatest):
            rests &= bound.shift(before).over("device_id") == least
    return (
        ordered.with_columns(lately=lately)
        .filter("lately", rests & long & (pl.col("readings") >= STUCK_READINGS))
        .select(*DEVICE_DAY, sensor=pl.lit(name), value=least)
    )
