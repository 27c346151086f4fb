"""Labelled rows for the irrigation model, split by device and by year.

Label rules:

1. θ is the mean of soil moisture at 20 and 40 cm: the root zone, which no input measures.
2. Field capacity is the 75th percentile of θ in the wet months and wilting point the 1st percentile
   in the growing season, per device, from readings before the held-out period only.
3. A row of day D is decided at t, the end of D, and labelled `irrigate` where the depletion
   (FC - θ) / (FC - WP) exceeds 0.5 at t + 24 h.
4. θ at t + 24 h is that of the hour which ends then, or of one up to five hours before it.

Split rules:

5. Held-out devices and the held-out period are set aside whole; rows are never shuffled.
6. Only rows of other devices whose label lies before the held-out period are trained on.
7. The score that counts is on held-out devices in the held-out period.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

import polars as pl

from ml.features import FEATURES, MAX_DAYS_SINCE
from zenthos_core.errors import TrainingError

ALL_MONTHS: Final = tuple(range(1, 13))
GROWING_SEASON: Final = (5, 6, 7, 8, 9, 10)
WET_MONTHS: Final = (3, 4, 5)
SEASONAL_SPAN_DAYS: Final = 540
"""From a year and a half on, months are told apart; below it every month counts."""
MIN_HOLDOUT_ROWS: Final = 60
DEPLETION_LIMIT: Final = 0.5
LABEL_TOLERANCE: Final = timedelta(hours=5)


class Split(StrEnum):
    """Which rows a device and a day belong to."""

    TRAIN = "train"
    NEW_DEVICE = "new_device"
    NEW_PERIOD = "new_period"
    HOLDOUT = "holdout"


@dataclass(frozen=True)
class SplitPlan:
    """What is set aside, and which months count."""

    season_months: tuple[int, ...]
    field_capacity_months: tuple[int, ...]
    holdout_devices: tuple[str, ...]
    holdout_from: date


def plan_split(
    rows: pl.DataFrame,
    *,
    season_months: Sequence[int] = (),
    field_capacity_months: Sequence[int] = (),
    holdout_devices: Sequence[str] = (),
    holdout_from: date | None = None,
) -> SplitPlan:
    """Decide what is left open, from which devices report when and never from their labels.

    The last fifth of the device ids (at least one) is held out. The held-out period is the last
    calendar year in which those have 60 rows, or the last quarter of a record too short for that.

    Args:
        rows: `device_id`, `date` of the rows that could be labelled.

    Raises:
        TrainingError: where fewer than two devices report.
    """
    devices = sorted(rows["device_id"].unique())
    if len(devices) < 2:
        raise TrainingError(
            f"{len(devices)} devices with features and soil moisture at 20 and 40 cm; at least 2 "
            "are needed, to hold one out: build ml_features for more devices or days"
        )
    held = tuple(holdout_devices) or tuple(devices[-max(1, len(devices) // 5) :])
    first, last = min(rows["date"]), max(rows["date"])
    seasonal = (last - first).days >= SEASONAL_SPAN_DAYS
    season = tuple(season_months) or (GROWING_SEASON if seasonal else ALL_MONTHS)
    wet = tuple(field_capacity_months) or (WET_MONTHS if seasonal else ALL_MONTHS)
    start = holdout_from or (_last_full_year(rows, held, season) if seasonal else None)
    return SplitPlan(season, wet, held, start or last - (last - first) // 4)


def _last_full_year(rows: pl.DataFrame, held: Sequence[str], season: Sequence[int]) -> date | None:
    day = pl.col("date")
    years = (
        rows.filter(pl.col("device_id").is_in(held), day.dt.month().is_in(season))
        .group_by(day.dt.year().alias("year"))
        .len()
        .filter(pl.col("len") >= MIN_HOLDOUT_ROWS)
    )
    return date(max(years["year"]), 1, 1) if len(years) else None


def root_zone(hourly: pl.DataFrame) -> pl.DataFrame:
    """θ in % per device and hour (rule 1), where both depths report."""
    theta = (pl.col("soil_20cm_avg") + pl.col("soil_40cm_avg")) / 2
    return hourly.select("device_id", "bucket", theta=theta).drop_nulls()


def theta_ahead(theta: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """Feature rows with `theta` at t + 24 h (rule 4); rows without it are left out."""
    hour = pl.col("date").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=47)
    return (
        features.with_columns(bucket=hour)
        .sort("bucket")
        .join_asof(
            theta.sort("bucket"),
            on="bucket",
            by="device_id",
            tolerance=LABEL_TOLERANCE,
            check_sortedness=False,
        )
        .drop("bucket")
        .drop_nulls("theta")
    )


def soil_limits(theta: pl.DataFrame, plan: SplitPlan) -> pl.DataFrame:
    """`field_capacity` and `wilting_point` in % per device (rule 2)."""
    bucket, value = pl.col("bucket"), pl.col("theta")
    month = bucket.dt.month()
    return (
        theta.filter(bucket.dt.date() < plan.holdout_from)
        .group_by("device_id")
        .agg(
            field_capacity=value.filter(month.is_in(plan.field_capacity_months)).quantile(0.75),
            wilting_point=value.filter(month.is_in(plan.season_months)).quantile(0.01),
        )
        .filter(pl.col("field_capacity") > pl.col("wilting_point"))
        .sort("device_id")
    )


def usable_rows(features: pl.DataFrame) -> pl.DataFrame:
    """Rows a device could predict from: no sensor statistic missing, days capped at 30."""
    since = ("days_since_irrigation", "days_since_rain")
    return (
        features.select("device_id", "date", *FEATURES)
        .with_columns(pl.col(since).fill_null(MAX_DAYS_SINCE).clip(0, MAX_DAYS_SINCE))
        .drop_nulls()
    )


def build_dataset(features: pl.DataFrame, hourly: pl.DataFrame, plan: SplitPlan) -> pl.DataFrame:
    """`device_id`, `date`, the inputs, `depletion`, `irrigate` and `split`, by device and date.

    Raises:
        TrainingError: where the split to train on or the held-out one has no rows.
    """
    theta = root_zone(hourly)
    fc, wp = pl.col("field_capacity"), pl.col("wilting_point")
    dataset = (
        theta_ahead(theta, usable_rows(features))
        .join(soil_limits(theta, plan), on="device_id")
        .filter(pl.col("date").dt.month().is_in(plan.season_months))
        .with_columns(depletion=(fc - pl.col("theta")) / (fc - wp), split=_split_of(plan))
        .drop_nulls("split")
        .with_columns(irrigate=pl.col("depletion") > DEPLETION_LIMIT)
        .select("device_id", "date", *FEATURES, "depletion", "irrigate", "split")
        .sort("device_id", "date")
    )
    for split in (Split.TRAIN, Split.HOLDOUT):
        if dataset.filter(pl.col("split") == split).is_empty():
            raise TrainingError(
                f"no labelled rows to {split} with: devices need soil_moisture_20cm and _40cm "
                f"before and after {plan.holdout_from}; held out are {list(plan.holdout_devices)}"
            )
    return dataset


def _split_of(plan: SplitPlan) -> pl.Expr:
    """Rules 5 and 6: a row labelled across the border belongs to no split."""
    held_device = pl.col("device_id").is_in(plan.holdout_devices)
    held_period = pl.col("date") >= plan.holdout_from
    before = pl.col("date") <= plan.holdout_from - timedelta(days=2)
    return (
        pl.when(held_device & held_period)
        .then(pl.lit(Split.HOLDOUT.value))
        .when(held_period)
        .then(pl.lit(Split.NEW_PERIOD.value))
        .when(held_device & before)
        .then(pl.lit(Split.NEW_DEVICE.value))
        .when(before)
        .then(pl.lit(Split.TRAIN.value))
    )
