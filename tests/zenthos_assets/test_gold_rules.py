"""The rules of weather, irrigation and trends, and the checks, against naive ones."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from statistics import fmean

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.features import SCHEMA as FEATURES_SCHEMA
from zenthos_assets.gold import checks
from zenthos_assets.gold.build import Upstream, batches
from zenthos_assets.gold.history import oldest_kept, partition_name
from zenthos_assets.gold.irrigation import (
    AFTER_HOURS,
    BEFORE_HOURS,
    EVENTS_SCHEMA,
    RESPONSE_SCHEMA,
    curve,
    responses,
)
from zenthos_assets.gold.reference import digests_by_day
from zenthos_assets.gold.trends import TRENDS_SCHEMA, WINDOWS, monday_of, trends, weeks_between
from zenthos_assets.gold.weather import WEATHER_SCHEMA, weather_by_day
from zenthos_assets.silver.reference import WEATHER_SCHEMA as HOURLY_WEATHER_SCHEMA

START = datetime(2026, 5, 4, tzinfo=UTC)  # a Monday
VALUES = st.one_of(st.none(), st.floats(0, 60))

# weather


@given(
    st.lists(
        st.tuples(VALUES, VALUES, st.sampled_from(["dry", "rain", None])), min_size=1, max_size=24
    )
)
def test_weather_of_a_day_is_that_of_its_hours(
    hours: list[tuple[float | None, float | None, str | None]],
) -> None:
    frame = pl.DataFrame(
        [
            {
                "farm_id": "f",
                "hour": START + timedelta(hours=n),
                "rain_mm": rain,
                "temp_avg": temperature,
                "weather_condition": condition,
            }
            for n, (rain, temperature, condition) in enumerate(hours)
        ],
        schema=HOURLY_WEATHER_SCHEMA,
    )
    found = weather_by_day(frame)
    assert found.schema == WEATHER_SCHEMA
    day = found.row(0, named=True)
    rains = [rain for rain, _, _ in hours if rain is not None]
    temperatures = [t for _, t, _ in hours if t is not None]
    conditions = Counter(c for _, _, c in hours if c)
    most = [c for c in sorted(conditions) if conditions[c] == max(conditions.values())]
    assert day["hour_count"] == len(hours)
    assert day["rain_mm"] == (pytest.approx(sum(rains)) if rains else None)
    assert day["temp_min"] == min(temperatures, default=None)
    assert day["temp_max"] == max(temperatures, default=None)
    assert day["temp_avg"] == (pytest.approx(fmean(temperatures)) if temperatures else None)
    assert day["weather_condition"] == (most[0] if most else None)


def test_weather_of_no_hours_is_no_day() -> None:
    assert weather_by_day(HOURLY_WEATHER_SCHEMA.to_frame()).is_empty()


# irrigation

SOIL = st.lists(VALUES, min_size=1, max_size=60)


def soil_hours(values: list[float | None], device: str = "d", farm: str = "f") -> pl.DataFrame:
    return pl.DataFrame(
        [(device, farm, START + timedelta(hours=n), v) for n, v in enumerate(values)],
        schema={
            "device_id": pl.String,
            "farm_id": pl.String,
            "bucket": pl.Datetime("us", "UTC"),
            "soil_avg": pl.Float64,
        },
        orient="row",
    )


def event(at_hour: float, farm: str = "f") -> pl.DataFrame:
    start = START + timedelta(hours=at_hour)
    return pl.DataFrame([("e", farm, start, 30, 900.0)], schema=EVENTS_SCHEMA, orient="row")


@settings(max_examples=60)
@given(SOIL, st.floats(0, 40).map(lambda hour: round(hour, 3)))
def test_a_response_equals_a_naive_one(values: list[float | None], at_hour: float) -> None:
    found = responses(event(at_hour), soil_hours(values))
    assert found.schema == RESPONSE_SCHEMA
    starts_in, first_full = int(at_hour), int(-(-at_hour // 1))
    known = {hour: value for hour, value in enumerate(values) if value is not None}
    before = [known[h] for h in range(starts_in - BEFORE_HOURS, starts_in) if h in known]
    after = [known[h] for h in range(first_full, first_full + AFTER_HOURS) if h in known]
    if not before and not after:
        assert found.is_empty()
        return
    row = found.row(0, named=True)
    mean = fmean(before) if before else None
    assert (row["hours_before"], row["hours_after"]) == (len(before), len(after))
    assert row["soil_before"] == (pytest.approx(mean) if before else None)
    assert row["soil_after_avg"] == (pytest.approx(fmean(after)) if after else None)
    assert row["soil_after_max"] == max(after, default=None)
    if mean is None or not after:
        assert row["soil_change"] is None
        assert row["dry_again_hours"] is None
        return
    assert row["soil_change"] == pytest.approx(max(after) - mean)


def test_soil_is_dry_again_when_it_is_back_after_its_highest() -> None:
    values = [20.0] * 6 + [19.0, 25.0, 30.0, 28.0, 24.0, 20.0, 19.0]
    row = responses(event(6), soil_hours(values)).row(0, named=True)
    assert (row["soil_before"], row["soil_change"], row["dry_again_hours"]) == (20.0, 10.0, 5)
    never = responses(event(6), soil_hours(values[:-2])).row(0, named=True)
    assert never["dry_again_hours"] is None


def test_soil_that_did_not_rise_is_not_dry_again() -> None:
    row = responses(event(6), soil_hours([20.0] * 20)).row(0, named=True)
    assert (row["soil_change"], row["dry_again_hours"]) == (0.0, None)


def test_only_devices_of_the_farm_respond() -> None:
    hours = pl.concat([soil_hours([20.0] * 9, "d"), soil_hours([20.0] * 9, "other", "g")])
    assert responses(event(6), hours)["device_id"].to_list() == ["d"]
    assert responses(event(6, "h"), hours).is_empty()


def test_the_curve_is_the_change_from_before() -> None:
    found = curve(event(6), soil_hours([20.0] * 6 + [26.0, 24.0]), 72)
    assert found["offset"].to_list() == [*range(-6, 0), 0, 1]
    assert found["change"].to_list() == [0.0] * 6 + [6.0, 4.0]


# trends


def days(values: list[float | None], device: str = "d") -> pl.DataFrame:
    """Daily rollups that end with the Sunday of START's week; temperature is double the soil."""
    sunday = START.date() + timedelta(days=6)
    first = sunday - timedelta(days=len(values) - 1)
    return pl.DataFrame(
        [
            (device, "f", first + timedelta(days=n), v, None if v is None else 2 * v)
            for n, v in enumerate(values)
        ],
        schema={
            "device_id": pl.String,
            "farm_id": pl.String,
            "day": pl.Date,
            "soil_avg": pl.Float64,
            "temp_avg": pl.Float64,
        },
        orient="row",
    )


@settings(max_examples=40)
@given(st.lists(VALUES, min_size=1, max_size=400))
def test_trends_equal_a_naive_computation(values: list[float | None]) -> None:
    found = trends(days(values), [START.date()])
    assert found.schema == TRENDS_SCHEMA
    for length in WINDOWS:
        window = values[-7 * length :]
        known = [(n / 7, v) for n, v in enumerate(window) if v is not None]
        row = found.row(by_predicate=pl.col("weeks") == length, named=True)
        assert row["soil_days"] == row["temp_days"] == len(known)
        if len(known) < 7 * length / 2:
            assert row["soil_avg"] is row["soil_slope"] is row["temp_slope"] is None
            continue
        ages, soil = np.array(known).T
        slope = np.polyfit(ages, soil, 1)[0]
        assert row["soil_avg"] == pytest.approx(soil.mean())
        assert row["soil_slope"] == pytest.approx(slope, abs=1e-6)
        assert row["temp_slope"] == pytest.approx(2 * slope, abs=1e-6)


def test_a_trend_knows_nothing_later_than_its_week() -> None:
    series = [float(n % 9) for n in range(400)]
    week = START.date() - timedelta(days=7)
    assert trends(days(series), [week]).equals(trends(days(series).head(393), [week]))


def test_devices_and_weeks_do_not_see_each_other() -> None:
    both = pl.concat([days([1.0, 2.0] * 200), days([5.0] * 400, "e")])
    weeks = [START.date() - timedelta(days=7), START.date()]
    alone = pl.concat([trends(days([1.0, 2.0] * 200), [week]) for week in weeks])
    assert trends(both, weeks).filter(pl.col("device_id") == "d").equals(alone)


def test_weeks_are_those_that_are_over() -> None:
    assert monday_of(date(2026, 5, 10)) == date(2026, 5, 4)
    assert weeks_between(date(2026, 5, 6), date(2026, 5, 16)) == [date(2026, 5, 4)]
    assert weeks_between(date(2026, 5, 6), date(2026, 5, 17)) == [
        date(2026, 5, 4),
        date(2026, 5, 11),
    ]
    assert weeks_between(date(2026, 5, 6), date(2026, 5, 9)) == []


# what is built together, and when


@given(
    st.sets(st.integers(0, 40)),
    st.dictionaries(st.integers(0, 40), st.integers(0, 9)),
    st.integers(1, 20),
)
def test_batches_are_consecutive_days_of_bounded_weight(
    numbers: set[int], weights: dict[int, int], limit: int
) -> None:
    wanted = [START.date() + timedelta(days=n) for n in sorted(numbers)]
    weight = {START.date() + timedelta(days=n): w for n, w in weights.items()}
    groups = batches(wanted, weight, limit)
    assert [day for group in groups for day in group] == wanted
    for group in groups:
        assert (group[-1] - group[0]).days == len(group) - 1
        assert sum(weight.get(day, 0) for day in group) <= max(limit, weight.get(group[0], 0))


def test_weeks_are_batched_by_seven_days() -> None:
    weeks = [date(2026, 5, 4), date(2026, 5, 11), date(2026, 5, 25)]
    assert batches(weeks, {}, 5, step_days=7) == [weeks[:2], weeks[2:]]


def test_windows_and_retention() -> None:
    window = Upstream(checks.HOURLY_KEY, before=1, after=2).window(date(2026, 5, 4))
    assert window == [date(2026, 5, n) for n in (3, 4, 5, 6)]
    assert oldest_kept(date(2026, 5, 4), 3) == date(2026, 5, 1)
    assert partition_name(date(2026, 5, 4)) == "telemetry_historical_20260504"


def test_digests_change_with_the_rows_of_their_day_alone() -> None:
    frame = event(6).vstack(event(30))
    both = [START.date(), START.date() + timedelta(days=1)]
    before = digests_by_day(frame, "started_at", both)
    other = frame.with_columns(water_volume_liters=pl.Series([900.0, 901.0], dtype=pl.Float64()))
    after = digests_by_day(other, "started_at", both)
    assert before[0] == after[0]
    assert before[1] != after[1]


# checks


def test_check_sums_that_differ_by_more_than_rounding() -> None:
    assert checks.reconciles(5, 5).passed
    assert checks.reconciles(0.1 + 0.2, 0.3).passed
    assert not checks.reconciles(4, 5).passed
    assert "force" in str(checks.reconciles(4, 5).description)


def test_check_rows_that_repeat_or_leave_their_range() -> None:
    row = {"device_id": "d", "date": date(2026, 1, 1), "soil_7d_avg": 30.0}
    good = pl.concat([FEATURES_SCHEMA.to_frame(), pl.DataFrame([row])], how="diagonal")
    key, ranges = ("device_id", "date"), checks.FEATURE_RANGES

    def passes(frame: pl.DataFrame) -> bool:
        return checks.valid(checks.problems(frame, key, ranges), "features_valid").passed

    assert passes(good)
    assert passes(good.clear())
    assert not passes(pl.concat([good, good]))
    assert not passes(good.with_columns(soil_7d_avg=pl.lit(101.0)))


def test_check_windows_that_are_not_full() -> None:
    full = {
        "device_id": "d",
        "date": date(2026, 1, 1),
        **dict.fromkeys(["soil_7d_avg", "soil_7d_stddev", "temp_7d_avg"], 1.0),
        **dict.fromkeys(["soil_trend_slope", "temp_variability"], 1.0),
    }
    empty = {"device_id": "e", "date": date(2026, 1, 1)}
    half = pl.concat([FEATURES_SCHEMA.to_frame(), pl.DataFrame([full, empty])], how="diagonal")
    windows = checks.full_windows(half)
    assert windows == {"rows": 2, "full": 1}
    assert checks.coverage(windows).passed
    assert not checks.coverage(windows + checks.full_windows(half.tail(1))).passed
    assert checks.coverage(Counter()).passed


def test_check_days_with_unusually_many_rows() -> None:
    first = START.date()
    counts = {first + timedelta(days=n): 100 for n in range(10)}
    last = first + timedelta(days=9)
    assert checks.unusual_days(counts, counts) == {}
    assert checks.unusual_days(counts | {last: 40}, [last]) == {last: 0.4}
    assert checks.unusual_days(counts | {last: 201}, [last]) == {last: 2.01}
    assert checks.unusual_days(counts | {first: 9}, [first]) == {}
    assert not checks.usual({last: 2.01}).passed
