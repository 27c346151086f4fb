"""Features and labels on real measurements; skips where they are not beside the checkout."""

from datetime import date

import polars as pl
import pytest

from ml.dataset import Split, build_dataset, plan_split, root_zone, theta_ahead, usable_rows
from ml.evaluation import score
from ml.features import compute_features
from tests.conftest import ROOT

FOLDER = ROOT.parent / "shared/data/kings_creek"
STATIONS = ("03", "05", "06", "10")
NO_EVENTS = pl.DataFrame(schema={"device_id": pl.String, "day": pl.Date})

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the Kings Creek measurements are not in ../shared/data"
)


@pytest.fixture(scope="module")
def hourly() -> pl.DataFrame:
    """Four stations as hourly rollups."""

    def read(kind: str, station: str) -> pl.DataFrame:
        return pl.read_csv(
            FOLDER / kind / f"station_{station}_{kind}.csv.gz",
            try_parse_dates=True,
            infer_schema_length=None,
        )

    stations = [
        read("soil", s)
        .join(read("atm", s), on="timestamp_utc", how="left")
        .select(
            device_id=pl.lit(f"station-{s}"),
            bucket=pl.col("timestamp_utc").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            soil_avg=100 * pl.col("vwc_5cm"),
            temp_avg=pl.col("temp_air"),
            rain_mm=pl.when(pl.col("precip_total") <= 60).then(pl.col("precip_total")),
            soil_20cm_avg=100 * pl.col("vwc_20cm"),
            soil_40cm_avg=100 * pl.col("vwc_40cm"),
        )
        for s in STATIONS
    ]
    return pl.concat(stations)


@pytest.fixture(scope="module")
def dataset(hourly: pl.DataFrame) -> pl.DataFrame:
    """Labelled rows with what is held out by default."""
    daily = hourly.group_by("device_id", day=pl.col("bucket").dt.date()).agg(
        pl.col("rain_mm").sum()
    )
    first, last = date(2021, 6, 30), date(2026, 3, 26)
    features = compute_features(hourly, daily, NO_EVENTS, first, last)
    plan = plan_split(theta_ahead(root_zone(hourly), usable_rows(features)))
    assert plan.holdout_devices == ("station-10",)
    assert plan.holdout_from == date(2025, 1, 1)
    return build_dataset(features, hourly, plan)


def test_rows_and_labels_of_each_split(dataset: pl.DataFrame) -> None:
    counts = dict(dataset.group_by("split").len().iter_rows())
    assert counts == {"train": 2016, "new_device": 672, "new_period": 368, "holdout": 184}
    shares = dict(dataset.group_by("split").agg(pl.col("irrigate").mean()).iter_rows())
    assert all(0.3 < share < 0.8 for share in shares.values())


def test_the_label_is_no_restated_input(dataset: pl.DataFrame) -> None:
    held_out = dataset.filter(pl.col("split") == Split.HOLDOUT.value)
    soil = held_out["soil_7d_avg"].to_numpy()
    found = score(held_out["irrigate"].to_numpy(), 1 - soil / 100, soil)
    assert found.baseline_auc is not None
    assert 0.84 < found.baseline_auc < 0.96
