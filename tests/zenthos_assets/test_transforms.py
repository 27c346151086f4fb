"""The pure functions, against naive ones."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zenthos_assets.conftest import RECEIVED
from zenthos_assets.automation import days_to_build
from zenthos_assets.bronze import transforms as bronze
from zenthos_assets.gold.transforms import rollup
from zenthos_assets.models import transforms as models
from zenthos_assets.partitions import ranges_of
from zenthos_assets.release.transforms import rounded
from zenthos_assets.silver import transforms as silver
from zenthos_assets.storage import with_driver

DAYS = st.dates(date(2026, 1, 1), date(2026, 3, 1))


def archive(*payloads: bytes, at: datetime = RECEIVED) -> pl.DataFrame:
    return bronze.to_frame([("t", p, at, at, 1, False, False) for p in payloads])


@given(st.lists(DAYS, unique=True))
def test_ranges_cover_exactly_the_days(days: list[date]) -> None:
    ranges = ranges_of(days)
    covered = [a + timedelta(n) for a, b in ranges for n in range((b - a).days + 1)]
    assert covered == sorted(days)
    assert all((b[0] - a[1]).days > 1 for a, b in pairwise(ranges))


@given(st.lists(st.tuples(DAYS, st.sampled_from("abc"), st.integers(1, 9)), max_size=20))
def test_groups_hold_every_day_once_and_all_its_objects(
    contents: list[tuple[date, str, int]],
) -> None:
    days = sorted({day for day, _, _ in contents} | {date(2026, 2, 1)})
    groups = silver.group_days(contents, days, max_rows=12)
    assert [day for group, _ in groups for day in group] == days
    for group, keys in groups:
        assert keys == sorted({key for day, key, _ in contents if day in group})
        rows = [sum(n for d, _, n in contents if d == day) for day in group]
        assert sum(rows) <= 12 or len(group) == 1 or sum(rows[:-1]) == 0 or max(rows) > 12


def test_no_days_make_no_groups() -> None:
    assert silver.group_days([], [], 5) == []
    assert ranges_of([]) == []


def test_reading_day_is_the_devices_unless_its_clock_cannot_be() -> None:
    assert bronze.reading_day(b'{"timestamp": 1700000000}', RECEIVED) == date(2023, 11, 14)
    for payload in (b"{}", b'{"timestamp": 1}', b"{", b'{"timestamp": "x"}', b'"\xff"'):
        assert bronze.reading_day(payload, RECEIVED) == RECEIVED.date()


def test_content_hash_knows_every_byte_and_the_order() -> None:
    base = bronze.content_hash(archive(b"ab", b"c"))
    later = archive(b"ab", b"c", at=RECEIVED + timedelta(microseconds=1))
    for other in (archive(b"a", b"bc"), archive(b"c", b"ab"), archive(b"ab"), later):
        assert bronze.content_hash(other) != base
    assert bronze.content_hash(archive(b"ab", b"c")) == base


@given(st.lists(st.floats(-50, 150), min_size=1, max_size=20))
def test_rollup_ignores_the_implausible(values: list[float]) -> None:
    start = datetime(2026, 11, 19, 7, tzinfo=UTC)
    frame = silver.SCHEMA.to_frame()
    rows = pl.DataFrame(
        {
            "device_id": ["d"] * len(values),
            "farm_id": ["f"] * len(values),
            "time": [start + timedelta(seconds=n) for n in range(len(values))],
            "soil_moisture": values,
            "rainfall_mm": values,
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )
    hour = rollup(pl.concat([frame, rows], how="diagonal"), "hour").row(0, named=True)
    soil = [v for v in values if 0 <= v <= 100]
    rain = [v for v in values if 0 <= v <= 60]
    assert hour["sample_count"] == len(values)
    assert hour["soil_avg"] == (pytest.approx(sum(soil) / len(soil)) if soil else None)
    assert hour["soil_max"] == max(soil, default=None)
    assert hour["rain_mm"] == (pytest.approx(sum(rain)) if rain else None)


def test_late_days_rebuild_what_their_windows_see() -> None:
    yesterday = date(2026, 11, 22)
    assert days_to_build([], yesterday) == [(yesterday, yesterday)]
    assert days_to_build([date(2026, 9, 1)], yesterday) == [
        (date(2026, 9, 1), date(2026, 10, 1)),
        (yesterday, yesterday),
    ]
    assert days_to_build([date(2026, 11, 20)], yesterday) == [(date(2026, 11, 20), yesterday)]
    assert days_to_build([date(2026, 11, 23)], yesterday) == [(yesterday, yesterday)]
    scattered = [date(2021, 1, 1) + timedelta(days=60 * n) for n in range(20)]
    assert days_to_build(scattered, yesterday) == [(date(2021, 1, 1), yesterday)]


def test_names_of_model_artefacts() -> None:
    assert models.release_version("0a1b2c3d" * 8, date(2026, 11, 23)) == "m-20261123-0a1b2c3"
    assert models.partitions_in_words([]) == "none"
    days = [date(2026, 1, 2), date(2026, 1, 5)]
    assert models.partitions_in_words(days) == "gold/ml_features[2026-01-02...2026-01-05] (2 days)"
    assert rounded({"a": [1.23456789012], "b": 3, "c": "int8"}) == {
        "a": [1.23456789],
        "b": 3,
        "c": "int8",
    }


def test_a_driver_is_named_for_dagster() -> None:
    assert with_driver("postgresql://u@h/d") == "postgresql+psycopg2://u@h/d"
    assert with_driver("postgresql+psycopg2://u@h/d") == "postgresql+psycopg2://u@h/d"
