"""Labels and splits: the rules of ml.dataset, by number."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from ml.dataset import (
    GROWING_SEASON,
    Split,
    SplitPlan,
    build_dataset,
    plan_split,
    root_zone,
    soil_limits,
    theta_ahead,
    usable_rows,
)
from ml.features import FEATURES
from zenthos_core.errors import TrainingError

START = datetime(2026, 1, 1, tzinfo=UTC)
ALL = tuple(range(1, 13))


def thetas(values: list[float], device: str = "a") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "device_id": [device] * len(values),
            "bucket": [START + timedelta(hours=h) for h in range(len(values))],
            "soil_20cm_avg": [v + 1 for v in values],
            "soil_40cm_avg": [v - 1 for v in values],
        },
        schema_overrides={"bucket": pl.Datetime("us", "UTC")},
    )


def features(days: int, device: str = "a") -> pl.DataFrame:
    frame = {name: [1.0] * days for name in FEATURES}
    dates = [START.date() + timedelta(days=n) for n in range(days)]
    return pl.DataFrame({"device_id": [device] * days, "date": dates, **frame})


def test_rule_1_theta_is_the_mean_of_both_depths() -> None:
    frame = thetas([30.0, 31.0]).with_columns(
        soil_40cm_avg=pl.when(pl.col("bucket") == START).then(pl.col("soil_40cm_avg"))
    )
    assert root_zone(frame)["theta"].to_list() == [30.0]


def test_rule_2_limits_come_from_before_the_held_out_period() -> None:
    values = [float(h % 100) for h in range(240)] + [1000.0] * 240
    plan = SplitPlan(ALL, ALL, ("b",), START.date() + timedelta(days=10))
    limits = soil_limits(root_zone(thetas(values)), plan).row(0, named=True)
    assert 60 < limits["field_capacity"] < 80
    assert 0 <= limits["wilting_point"] < 3


def test_rule_3_and_4_the_label_is_that_of_24_hours_after_the_day() -> None:
    theta = root_zone(thetas([float(h) for h in range(72)]))
    ahead = theta_ahead(theta, features(2))
    assert ahead["theta"].to_list() == [47.0, 71.0]
    gap = theta.filter(~pl.col("theta").is_between(43, 47))
    assert theta_ahead(gap, features(1))["theta"].to_list() == [42.0]
    gap = theta.filter(~pl.col("theta").is_between(42, 47))
    assert theta_ahead(gap, features(1)).is_empty()


def test_rules_5_to_7_splits_do_not_overlap() -> None:
    values = [float(h % 97) for h in range(24 * 32)]
    hourly = pl.concat([thetas(values), thetas(values, "b")])
    rows = pl.concat([features(30), features(30, "b")])
    border = START.date() + timedelta(days=20)
    dataset = build_dataset(rows, hourly, SplitPlan(ALL, ALL, ("b",), border))
    of = {
        (device, split): dates
        for device, split, dates in dataset.group_by("device_id", "split")
        .agg(pl.col("date"))
        .iter_rows()
    }
    assert set(of) == {
        ("a", Split.TRAIN.value),
        ("a", Split.NEW_PERIOD.value),
        ("b", Split.NEW_DEVICE.value),
        ("b", Split.HOLDOUT.value),
    }
    assert max(of["a", "train"]) + timedelta(days=2) == border
    assert min(of["b", "holdout"]) == border
    wet = dataset.filter(pl.col("depletion") <= 0.5)
    assert not wet["irrigate"].any()


def test_rows_without_a_sensor_are_not_usable_and_days_are_capped() -> None:
    frame = features(3).with_columns(
        soil_7d_avg=pl.Series([1.0, None, 1.0]),
        days_since_rain=pl.Series([None, 2.0, 90.0]),
    )
    assert usable_rows(frame)["days_since_rain"].to_list() == [30.0, 30.0]


def daily(device: str, first: date, days: int) -> pl.DataFrame:
    dates = [first + timedelta(days=n) for n in range(days)]
    return pl.DataFrame({"device_id": [device] * days, "date": dates})


def test_a_long_record_holds_out_the_last_device_and_its_last_full_year() -> None:
    rows = pl.concat(
        [daily("a", date(2022, 1, 1), 1400), daily("b", date(2022, 1, 1), 3 * 365 + 150)]
    )
    plan = plan_split(rows)
    assert plan.holdout_devices == ("b",)
    assert plan.season_months == GROWING_SEASON
    assert plan.holdout_from == date(2024, 1, 1)


def test_a_short_record_holds_out_its_last_quarter() -> None:
    rows = pl.concat([daily(f"d{n}", date(2026, 1, 1), 41) for n in range(10)])
    plan = plan_split(rows)
    assert plan.holdout_devices == ("d8", "d9")
    assert plan.season_months == ALL
    assert plan.holdout_from == date(2026, 1, 31)


def test_what_is_asked_for_is_held_out() -> None:
    rows = pl.concat([daily(name, date(2026, 1, 1), 41) for name in "ab"])
    plan = plan_split(
        rows,
        season_months=[1],
        field_capacity_months=[2],
        holdout_devices=["a"],
        holdout_from=date(2026, 2, 1),
    )
    assert plan == SplitPlan((1,), (2,), ("a",), date(2026, 2, 1))


def test_one_device_is_too_few() -> None:
    with pytest.raises(TrainingError, match="at least 2"):
        plan_split(daily("a", date(2026, 1, 1), 10))


def test_a_split_without_rows_says_what_is_missing() -> None:
    plan = SplitPlan(ALL, ALL, ("b",), START.date() + timedelta(days=1))
    with pytest.raises(TrainingError, match="soil_moisture_20cm"):
        build_dataset(features(3), thetas([1.0] * 99), plan)
