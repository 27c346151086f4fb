"""Features against naive implementations."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.features import FEATURES, MIN_HOURS, SCHEMA, compute_features, feature_schema_hash

START = datetime(2026, 5, 1, tzinfo=UTC)
NO_EVENTS = pl.DataFrame(schema={"device_id": pl.String, "day": pl.Date})
NO_RAIN = pl.DataFrame(schema={"device_id": pl.String, "day": pl.Date, "rain_mm": pl.Float64})


def hourly(values: list[tuple[int, float | None, float | None]], device: str = "d") -> pl.DataFrame:
    """(hour since START, soil, temperature) as rollups."""
    return pl.DataFrame(
        [(device, START + timedelta(hours=h), soil, temp) for h, soil, temp in values],
        schema={
            "device_id": pl.String,
            "bucket": pl.Datetime("us", "UTC"),
            "soil_avg": pl.Float64,
            "temp_avg": pl.Float64,
        },
        orient="row",
    )


def on(day: date, frame: pl.DataFrame, **others: pl.DataFrame) -> dict[str, float | None]:
    features = compute_features(
        frame, others.get("rain", NO_RAIN), others.get("irrigation", NO_EVENTS), day, day
    )
    assert features.schema == SCHEMA
    return features.row(0, named=True)


SERIES = st.lists(
    st.tuples(st.floats(0, 60), st.floats(-20, 45)), min_size=MIN_HOURS, max_size=24 * 9
)


@settings(max_examples=40, deadline=None)
@given(SERIES)
def test_windows_equal_a_naive_computation(series: list[tuple[float, float]]) -> None:
    rows = [(hour, soil, temp) for hour, (soil, temp) in enumerate(series)]
    day = (START + timedelta(hours=len(rows) - 1)).date()
    found = on(day, hourly(rows))
    first = max(0, ((day - START.date()).days - 6) * 24)
    window = rows[first:]
    soil = np.array([s for _, s, _ in window])
    temp = np.array([t for _, _, t in window])
    if len(window) < MIN_HOURS:
        assert found["soil_7d_avg"] is None
        assert found["temp_variability"] is None
        return
    days = np.array([h for h, _, _ in window]) / 24
    assert found["soil_7d_avg"] == pytest.approx(soil.mean(), abs=1e-9)
    assert found["soil_7d_stddev"] == pytest.approx(soil.std(ddof=1), abs=1e-7)
    assert found["soil_trend_slope"] == pytest.approx(np.polyfit(days, soil, 1)[0], abs=1e-6)
    assert found["temp_7d_avg"] == pytest.approx(temp.mean(), abs=1e-9)
    assert found["temp_variability"] == pytest.approx(
        temp.std(ddof=1) / max(abs(temp.mean()), 5.0), abs=1e-7
    )


def test_half_the_hours_are_enough_and_fewer_are_not() -> None:
    rows = [(2 * n, 30.0, None) for n in range(MIN_HOURS)]
    assert on(date(2026, 5, 7), hourly(rows))["soil_7d_avg"] == 30.0
    assert on(date(2026, 5, 7), hourly(rows[1:]))["soil_7d_avg"] is None
    assert on(date(2026, 5, 7), hourly(rows))["temp_7d_avg"] is None


def test_slope_counts_only_hours_with_soil_moisture() -> None:
    rows = [(h, 50 - h / 24 if h % 3 else None, 10.0) for h in range(168)]
    assert on(date(2026, 5, 7), hourly(rows))["soil_trend_slope"] == pytest.approx(-1.0)


def test_later_readings_change_nothing() -> None:
    rows = [(h, 50 - h / 24, 10.0) for h in range(168)]
    later = [(h, 5.0, 40.0) for h in range(168, 200)]
    day = date(2026, 5, 7)
    assert on(day, hourly(rows)) == on(day, hourly(rows + later))


@given(st.sets(st.integers(0, 60), max_size=8), st.integers(0, 60))
def test_days_since_rain_and_irrigation(wet: set[int], today: int) -> None:
    day = START.date() + timedelta(days=today)
    rows = hourly([(24 * today, 30.0, 20.0)])
    rain = pl.DataFrame(
        [("d", START.date() + timedelta(days=n), 1.0 if n in wet else 0.9) for n in range(61)],
        schema={"device_id": pl.String, "day": pl.Date, "rain_mm": pl.Float64},
        orient="row",
    )
    irrigation = rain.filter(pl.col("rain_mm") >= 1).select("device_id", "day")
    past = [today - n for n in wet if 0 <= today - n <= 30]
    found = on(day, rows, rain=rain, irrigation=irrigation)
    assert found["days_since_rain"] == min(past, default=None)
    assert found["days_since_irrigation"] == min(past, default=None)


def test_devices_do_not_see_each_other() -> None:
    rows = [(h, 50 - h / 24, 10.0) for h in range(168)]
    alone = on(date(2026, 5, 7), hourly(rows))
    both = pl.concat([hourly(rows, "d"), hourly([(h, 9.0, 9.0) for h in range(168)], "e")])
    assert on(date(2026, 5, 7), both) == alone


def test_the_input_contract_is_seven_named_features() -> None:
    assert len(FEATURES) == 7
    assert feature_schema_hash() == feature_schema_hash()
    assert len(feature_schema_hash()) == 16


@settings(max_examples=20, deadline=None)
@given(SERIES, SERIES)
def test_a_day_is_the_same_alone_and_in_a_range(
    one: list[tuple[float, float]], other: list[tuple[float, float]]
) -> None:
    frames = [
        hourly([(hour, soil, temp) for hour, (soil, temp) in enumerate(series)], device)
        for device, series in (("b", one), ("a", other))
    ]
    rows = pl.concat(frames).sample(fraction=1, shuffle=True, seed=1)
    first, last = date(2026, 5, 3), date(2026, 5, 9)
    together = compute_features(rows, NO_RAIN, NO_EVENTS, first, last)
    for day in (first, date(2026, 5, 6), last):
        alone = compute_features(rows, NO_RAIN, NO_EVENTS, day, day)
        assert alone.equals(together.filter(pl.col("date") == day))
        assert alone["device_id"].is_sorted()


def test_no_hours_give_no_features() -> None:
    day = date(2026, 5, 3)
    features = compute_features(hourly([]), NO_RAIN, NO_EVENTS, day, day)
    assert features.is_empty()
    assert features.schema == SCHEMA
