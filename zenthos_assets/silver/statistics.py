"""What a day of each device looked like: a row small enough to keep, compare and plot.

1. A row says what the readings of one device and UTC day hold, and depends on nothing else.
2. A gap is the time between two readings that follow each other; what lies before the first
   reading of a day and after the last one, who compares knows: `first_time`, `last_time`.
3. `missing_seq` counts the numbers that the device's own counter skipped. A counter that goes back
   has been reset, and skipped nothing.
4. Least and greatest value are those of all readings, the implausible ones included.
"""

from typing import Final

import numpy as np
import polars as pl

from zenthos_assets.silver.transforms import RANGES

_TIME: Final = pl.Datetime("us", "UTC")

SENSORS: Final = tuple(RANGES)
HOURS: Final = 24
DEVICE_DAY: Final = ("day", "device_id")

SCHEMA: Final = pl.Schema(
    {
        "day": pl.Date(),
        "device_id": pl.String(),
        "farm_id": pl.String(),
        "readings": pl.Int64(),
        "first_time": _TIME,
        "last_time": _TIME,
        "interval_s": pl.Float64(),
        "longest_gap_s": pl.Float64(),
        "missing_seq": pl.Int64(),
        "clock_suspect": pl.Int64(),
        "implausible": pl.Int64(),
        "readings_by_hour": pl.List(pl.Int64()),
        **{f"{name}_missing": pl.Int64() for name in SENSORS},
        **{f"{name}_min": pl.Float64() for name in SENSORS},
        **{f"{name}_max": pl.Float64() for name in SENSORS},
    }
)
"""`interval_s` is the median time between two readings; `implausible` counts readings with a value
out of range; `{sensor}_missing` those without a value."""


def describe(cleaned: pl.DataFrame) -> pl.DataFrame:
    """Rules 1 to 4 for cleaned readings in their order: a frame of SCHEMA by day and device."""
    gap_s = pl.col("time").diff().dt.total_microseconds() / 1e6
    dated = _numbered(cleaned)
    return (
        dated.group_by("group", maintain_order=True)
        .agg(
            pl.col(DEVICE_DAY).first(),
            farm_id=pl.col("farm_id").last(),
            readings=pl.len().cast(pl.Int64),
            first_time=pl.col("time").first(),
            last_time=pl.col("time").last(),
            interval_s=gap_s.median(),
            longest_gap_s=gap_s.max(),
            missing_seq=(pl.col("seq").diff() - 1).clip(lower_bound=0).sum(),
            clock_suspect=pl.col("clock_suspect").sum().cast(pl.Int64),
            implausible=pl.col("implausible").sum().cast(pl.Int64),
            **{f"{n}_missing": pl.col(n).null_count().cast(pl.Int64) for n in SENSORS},
            **{f"{name}_min": pl.col(name).min() for name in SENSORS},
            **{f"{name}_max": pl.col(name).max() for name in SENSORS},
        )
        .with_columns(readings_by_hour=_by_hour(dated))
        .select(SCHEMA.names())
        .sort(DEVICE_DAY)
    )


def _numbered(cleaned: pl.DataFrame) -> pl.DataFrame:
    """With `day`, `implausible` and the number of the `group` of each device and day.

    In their order, the readings of a group are a run; numbers cost less than texts as keys.
    """
    columns = ["device_id", "farm_id", "time", "seq", "clock_suspect", *SENSORS]
    implausible = ~pl.col("quality").is_in(["", "time"])
    dated = cleaned.select(*columns, day=pl.col("time").dt.date(), implausible=implausible)
    group = dated.select(pl.struct(DEVICE_DAY).rle_id()).to_series()
    return dated.with_columns(group=group.set_sorted())


def _by_hour(dated: pl.DataFrame) -> pl.Series:
    """The number of readings in each hour, a list for each group."""
    hour = pl.col("group").cast(pl.Int64) * HOURS + pl.col("time").dt.hour()
    found = dated.select(hour.alias("hour"))["hour"].rle().struct.unnest()
    counts = np.zeros((dated["group"].n_unique(), HOURS), np.int64)
    counts.reshape(-1)[found["value"].to_numpy()] = found["len"].to_numpy()
    return pl.Series(counts, dtype=pl.Array(pl.Int64(), HOURS)).arr.to_list()
