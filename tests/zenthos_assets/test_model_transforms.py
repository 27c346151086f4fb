"""Names, digests and manifests of models, from values alone."""

from datetime import UTC, date, datetime, timedelta
from hashlib import sha256

import polars as pl

from ml.dataset import SplitPlan
from ml.features import feature_schema_hash
from zenthos_assets.models import transforms as models
from zenthos_assets.release.transforms import build_manifest
from zenthos_assets.silver.tally import Counts

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DIGEST = sha256(b"model").hexdigest()


def test_artefacts_are_named_after_their_content() -> None:
    assert models.digest(b"model") == DIGEST
    assert models.dataset_key(DIGEST) == f"training_set/{DIGEST}.parquet"
    assert models.model_key(DIGEST, ".keras") == f"irrigation_model/{DIGEST}.keras"


def test_a_split_in_numbers_and_in_words() -> None:
    dataset = pl.DataFrame({"split": ["train", "holdout", "train"]})
    assert models.split_counts(dataset) == {"holdout": 1, "train": 2}
    plan = SplitPlan((5, 6), (3,), ("soil-3", "soil-4"), date(2026, 1, 1))
    assert models.describe_plan(plan) == {
        "held_out_devices": "soil-3, soil-4",
        "held_out_from": "2026-01-01",
        "growing_season_months": "5, 6",
        "field_capacity_months": "3",
    }


def test_a_manifest_says_what_the_model_is_and_what_it_was_made_of() -> None:
    tflite = {
        "sha256": DIGEST,
        "size_bytes": 3_504,
        "quantization": {"input_scale": [0.123456789123], "input_zero_point": 3},
        "partitions": "gold/ml_features[2026-01-02...2026-01-05] (2 days)",
        "dataset_sha256": "d" * 64,
        "mlflow_model": "models:/irrigation/7",
        "auc": 0.87654321,
        "baseline_auc": 0.8,
        "max_probability_difference": 0.01,
    }
    manifest = build_manifest(
        tflite,
        device_models=["esp32-s3"],
        chip="esp32s3",
        release_counter=4,
        now=NOW,
        key_id="k",
        run_id="run",
        commit=None,
    )
    assert (manifest.version, manifest.release_counter) == (f"m-20261123-{DIGEST[:7]}", 4)
    assert (manifest.sha256, manifest.size, manifest.input_shape) == (DIGEST, 3_504, [1, 7])
    lasts = timedelta(seconds=manifest.expires - manifest.created)
    assert (manifest.created, lasts.days) == (int(NOW.timestamp()), 365)
    assert manifest.quantization == {"input_scale": [0.123456789], "input_zero_point": 3}
    assert manifest.lineage is not None
    assert manifest.lineage.feature_schema == feature_schema_hash()
    assert manifest.lineage.dataset_partitions == tflite["partitions"]
    assert manifest.lineage.metrics["auc"] == 0.8765


def test_every_message_received_is_kept_doubled_or_unusable() -> None:
    counts = Counts(5, 2, 1, 0) + Counts(1, 0, 0, 3)
    assert (counts.received, counts.quarantined) == (12, 4)
