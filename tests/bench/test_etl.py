"""The contenders of `etl` do the same work; its day is what its rules say."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bench.etl import differences, summary
from bench.etl_contender import FEATURES, SILVER, Stages, path_of
from bench.etl_day import DAY, Fleet, prepare, receipts
from bench.etl_ours import contend
from tests.conftest import ROOT
from zenthos_assets import parquet

DEVICES = 100


@pytest.fixture(scope="module")
def day() -> pl.DataFrame:
    """Every message, in order of arrival."""
    return pl.concat([frame for _, frame in receipts(Fleet(DEVICES))])


def test_a_day_has_its_messages_and_faults(day: pl.DataFrame) -> None:
    texts = day["payload"].cast(pl.String)
    messages = DEVICES * 24 * 60
    assert texts.n_unique() == messages
    assert len(day) - messages == pytest.approx(0.005 * messages, rel=0.2)
    assert texts.str.contains('"backlog":true').mean() == pytest.approx(0.005, rel=0.2)
    assert texts.str.contains('"soil_moisture":142').mean() == pytest.approx(0.001, rel=0.5)
    assert day["received_at"].is_sorted()
    assert day["received_at"].max().date() > DAY  # type: ignore[union-attr]


def test_the_same_fleet_sends_the_same_bytes(day: pl.DataFrame) -> None:
    assert pl.concat([frame for _, frame in receipts(Fleet(DEVICES))]).equals(day)


def test_a_difference_is_found(tmp_path: Path) -> None:
    prepare(tmp_path, Fleet(10))
    contend(tmp_path, Stages())
    ours = summary(tmp_path)
    assert differences(ours, ours) == []
    path = path_of(tmp_path, FEATURES)
    changed = pl.read_parquet(path).with_columns(pl.col("temp_7d_avg") + 1e-3)
    path.write_bytes(parquet.encode(changed))
    [found] = differences(summary(tmp_path), ours)
    assert found.startswith("features temp_7d_avg: ")
    silver = path_of(tmp_path, SILVER)
    silver.write_bytes(parquet.encode(pl.read_parquet(silver)[1:]))
    assert any(each.startswith("silver rows: ") for each in differences(summary(tmp_path), ours))


@pytest.mark.bench
def test_etl(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "etl", "100", "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["rows"], result["tenth_rows"]) == (144_000, 14_400)
    assert result["seconds"] == pytest.approx(
        sum(result["contenders"]["zenthos"]["stages"].values()), rel=0.1
    )
    for ratio in ("vs_duckdb", "vs_pandas", "vs_duckdb_json", "vs_pandas_json", "growth_10x"):
        assert result[ratio] > 0
    assert 100 < result["peak_rss_mib"] < 2_000
    peers = {"duckdb", "duckdb on JSON", "pandas", "pandas on JSON"}
    assert set(result["tenth"]) == {"zenthos", *peers}
