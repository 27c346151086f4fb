"""What remains of readings and in which order, against naive implementations."""

from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zenthos_assets.silver.order import IDENTITY, ORDER, arrange, count_repeated, first_received

START = datetime(2026, 11, 20, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "bucket": pl.UInt16(),
    "device_id": pl.String(),
    "message_id": pl.Binary(),
    "time": TIME,
    "received_at": TIME,
    "value": pl.Int64(),
}

DEVICES = st.integers(0, 3)
ROWS = st.lists(
    st.tuples(DEVICES, st.integers(0, 6), st.integers(-2, 3), st.integers(0, 3)), max_size=40
)
"""(device, message, time in half days, received)."""


def frame(rows: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    """Readings; the value is the row's number, so that it says which of equal rows is there."""
    return pl.DataFrame(
        [
            (
                device // 2 * 7,
                f"d{9 - device}",
                sha256(bytes([message])).digest()[:16],
                START + timedelta(hours=12 * half_days),
                START + timedelta(seconds=received),
                number,
            )
            for number, (device, message, half_days, received) in enumerate(rows)
        ],
        schema=SCHEMA,
        orient="row",
    )


def naive(readings: pl.DataFrame, days: list[date]) -> list[int]:
    """Values of what remains, in order."""
    best: dict[tuple[str, bytes, date], dict[str, object]] = {}
    for row in readings.iter_rows(named=True):
        key = (row["device_id"], row["message_id"], row["time"].date())
        if key not in best or row["received_at"] < best[key]["received_at"]:
            best[key] = row
    kept = [row for row in best.values() if row["time"].date() in days]  # type: ignore[attr-defined]
    return [row["value"] for row in sorted(kept, key=lambda r: [r[n] for n in ORDER])]  # type: ignore[type-var,misc]


@settings(deadline=None)
@given(ROWS)
def test_each_message_remains_once_in_order(rows: list[tuple[int, int, int, int]]) -> None:
    readings = frame(rows)
    days = [START.date(), (START + timedelta(days=1)).date()]
    assert arrange(readings, days)["value"].to_list() == naive(readings, days)


@settings(deadline=None)
@given(ROWS)
def test_of_a_day_the_first_received_remains(rows: list[tuple[int, int, int, int]]) -> None:
    readings = frame(rows)
    remaining = readings.filter(first_received(readings))
    expected = (
        readings.with_columns(day=pl.col("time").dt.date())
        .sort("received_at", maintain_order=True)
        .unique([*IDENTITY, "day"], keep="first", maintain_order=True)
        .sort("value")
    )
    assert remaining.equals(expected.drop("day"))


@settings(deadline=None)
@given(ROWS)
def test_repeated_rows_are_counted(rows: list[tuple[int, int, int, int]]) -> None:
    readings = frame(rows)
    distinct = {(device, message, half // 2) for device, message, half, _ in rows}
    assert count_repeated(readings) == len(rows) - len(distinct)


@pytest.mark.parametrize("years", [0, 200_000])
def test_order_holds_over_any_span_of_time(years: int) -> None:
    """Over so many years and devices, device and time do not fit into one number."""
    rows = [(number % 50, number) for number in range(200)]
    far = years * 31_556_952_000_000
    readings = pl.DataFrame(
        {
            "bucket": [device % 3 for device, _ in rows],
            "device_id": [f"d{device}" for device, _ in rows],
            "message_id": [sha256(bytes([n])).digest()[:16] for _, n in rows],
            "time": [far * (number % 2) + number // 100 for _, number in rows],
            "received_at": [number for _, number in rows],
        },
        schema_overrides={"bucket": pl.UInt16(), "time": TIME, "received_at": TIME},
    )
    days = readings["time"].dt.date().unique().to_list() if not years else None
    wanted = days or [date(1970, 1, 1)]
    arranged = arrange(readings, wanted)
    expected = readings.filter(pl.col("time").dt.date().is_in(wanted)).sort(ORDER)
    assert arranged.equals(expected)


def test_no_readings_give_none() -> None:
    assert arrange(frame([]), [START.date()]).is_empty()
