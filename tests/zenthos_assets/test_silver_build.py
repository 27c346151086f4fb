"""Days are built to the same bytes whatever the slices; a damaged object is named."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bench.etl_day import DAY, Fleet, prepare, read_irrigated_days, read_reference
from ml.features import SCHEMA as FEATURES_SCHEMA
from zenthos_assets import parquet
from zenthos_assets.gold.compute import feature_days, rollup_days
from zenthos_assets.gold.transforms import Period
from zenthos_assets.silver.build import Built, build_days
from zenthos_assets.silver.order import ORDER
from zenthos_core import lake
from zenthos_core.blobs import FolderStore
from zenthos_core.errors import ArchiveError

DEVICES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake of a small fleet."""
    folder = tmp_path_factory.mktemp("lake")
    prepare(folder, Fleet(DEVICES))
    return folder


def key_of(day: date) -> str:
    return lake.day_key("telemetry_cleaned", day)


def build(folder: Path, slice_rows: int, buckets: parquet.Buckets | None = None) -> Built:
    store = FolderStore(folder)
    keys = list(store.keys(lake.BRONZE, "telemetry/"))
    return build_days(
        store,
        [DAY],
        keys,
        read_reference(folder),
        key_of=key_of,
        buckets=buckets,
        slice_rows=slice_rows,
    )


def cleaned(folder: Path) -> pl.DataFrame:
    return parquet.decode(FolderStore(folder).get(lake.SILVER, key_of(DAY)))


def test_slices_do_not_show(folder: Path) -> None:
    whole = build(folder, 10**9)
    assert cleaned(folder).equals(cleaned(folder).sort(ORDER))
    for slice_rows in (1_000, 7_777):
        sliced = build(folder, slice_rows)
        assert sliced.checksums == whole.checksums
        assert sliced.tally.counts == whole.tally.counts
        assert_frame_equal(sliced.tally.statistics, whole.tally.statistics)


def test_shards_follow_each_other_to_the_whole(folder: Path) -> None:
    shards = []
    for buckets in ((0, 30_000), (30_000, 65_536)):
        build(folder, 5_000, buckets)
        shards.append(cleaned(folder))
    build(folder, 10**9)
    assert pl.concat(shards).equals(cleaned(folder))


def test_every_message_is_accounted_for(folder: Path) -> None:
    counts = build(folder, 10_000).tally.counts[DAY]
    assert counts.kept == DEVICES * 24 * 60
    assert 0 < counts.duplicate < 0.02 * counts.kept
    assert (counts.malformed, counts.unregistered) == (0, 0)


@pytest.mark.parametrize("period", ["hour", "day"])
def test_rollups_of_slices_are_those_of_the_whole(folder: Path, period: Period) -> None:
    build(folder, 10**9)
    store, rows = FolderStore(folder), DEVICES * 24 * 60
    whole = rollup_days(store, [DAY], {DAY: rows}, period)
    sliced = rollup_days(store, [DAY], {DAY: 3_000_000}, period)
    assert sliced.equals(whole)
    assert whole["sample_count"].sum() == rows


def test_features_need_the_days_before(folder: Path) -> None:
    build(folder, 10**9)
    store = FolderStore(folder)
    rolled = rollup_days(store, [DAY], {DAY: 1}, "hour")
    store.put(lake.GOLD, lake.day_key("telemetry_hourly", DAY), parquet.encode(rolled))
    features = feature_days(store, DAY, DAY, read_irrigated_days(folder))
    assert features.schema == FEATURES_SCHEMA
    assert len(features) == DEVICES
    assert features["temp_7d_avg"].null_count() == 0


def test_a_damaged_object_is_named(folder: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    source = FolderStore(folder)
    keys = list(source.keys(lake.BRONZE, "telemetry/"))
    for key in keys:
        data = source.get(lake.BRONZE, key)
        store.put(lake.BRONZE, key, data[:-9] if key == keys[3] else data)
    with pytest.raises(ArchiveError, match=f"{keys[3]} is damaged"):
        build_days(store, [DAY], keys, read_reference(folder), key_of=key_of)


def test_a_day_without_readings_gets_an_object_without_rows(folder: Path) -> None:
    day = DAY - timedelta(days=1)
    store = FolderStore(folder)
    built = build_days(store, [day], [], read_reference(folder), key_of=key_of)
    assert parquet.decode(store.get(lake.SILVER, key_of(day))).is_empty()
    assert built.tally.counts[day].received == 0
