"""Rollups against a naive implementation, whatever the order of the readings."""

import statistics
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenthos_assets.gold.transforms import Period, rollup
from zenthos_assets.silver.transforms import SCHEMA

START = datetime(2026, 11, 20, 22, tzinfo=UTC)
VALUES = st.none() | st.floats(-30, 130)
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 300), VALUES, VALUES), min_size=1, max_size=40
)
"""(device, minute, soil moisture, rain)."""


def readings(rows: list[tuple[int, int, float | None, float | None]]) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "device_id": [f"d{device}" for device, _, _, _ in rows],
            "farm_id": [f"f{device}" for device, _, _, _ in rows],
            "time": [START + timedelta(minutes=minute) for _, minute, _, _ in rows],
            "soil_moisture": [soil for _, _, soil, _ in rows],
            "rainfall_mm": [rain for _, _, _, rain in rows],
        },
        schema_overrides={
            "time": SCHEMA["time"],
            "soil_moisture": pl.Float64(),
            "rainfall_mm": pl.Float64(),
        },
    )
    return pl.concat([SCHEMA.to_frame(), frame], how="diagonal")


@pytest.mark.parametrize("period", ["hour", "day"])
@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_statistics_equal_a_naive_computation(
    period: Period, rows: list[tuple[int, int, float | None, float | None]]
) -> None:
    groups: dict[tuple[str, datetime], list[tuple[float | None, float | None]]] = {}
    for device, minute, soil, rain in rows:
        time = START + timedelta(minutes=minute)
        start = time.replace(minute=0) if period == "hour" else time.replace(minute=0, hour=0)
        groups.setdefault((f"d{device}", start), []).append((soil, rain))
    rolled = rollup(readings(rows), period)
    assert [row[1] for row in rolled.iter_rows()] == [device for device, _ in sorted(groups)]
    for (device, start), row in zip(sorted(groups), rolled.iter_rows(named=True), strict=True):
        values = groups[device, start]
        soil = [s for s, _ in values if s is not None and 0 <= s <= 100]
        rain = [r for _, r in values if r is not None and 0 <= r <= 60]
        assert row["bucket" if period == "hour" else "day"] == (
            start if period == "hour" else start.date()
        )
        assert (row["device_id"], row["farm_id"]) == (device, device.replace("d", "f"))
        assert row["sample_count"] == len(values)
        assert row["soil_avg"] == (pytest.approx(statistics.fmean(soil)) if soil else None)
        assert (row["soil_min"], row["soil_max"]) == (
            min(soil, default=None),
            max(soil, default=None),
        )
        assert row["soil_stddev"] == (
            pytest.approx(statistics.stdev(soil), abs=1e-9) if len(soil) > 1 else None
        )
        assert row["rain_mm"] == (pytest.approx(sum(rain)) if rain else None)
