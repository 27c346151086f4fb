"""Names and digests of model artefacts; values in, values out."""

import hashlib
from datetime import date
from typing import Final

import polars as pl

from ml.dataset import SplitPlan

VERSION_DIGITS: Final = 7


def dataset_key(sha256: str) -> str:
    """Where a training set lies in gold, named after its content."""
    return f"training_set/{sha256}.parquet"


def model_key(sha256: str, suffix: str) -> str:
    """Where a trained (`.keras`) or converted (`.tflite`) model lies in gold."""
    return f"irrigation_model/{sha256}{suffix}"


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def release_version(tflite_sha256: str, day: date) -> str:
    """`m-20261123-0a1b2c3`."""
    return f"m-{day:%Y%m%d}-{tflite_sha256[:VERSION_DIGITS]}"


def split_counts(dataset: pl.DataFrame) -> dict[str, int]:
    """Rows in each split."""
    return dict(dataset.group_by("split").len().sort("split").iter_rows())


def describe_plan(plan: SplitPlan) -> dict[str, str]:
    """A split in words, for metadata."""
    return {
        "held_out_devices": ", ".join(plan.holdout_devices),
        "held_out_from": plan.holdout_from.isoformat(),
        "growing_season_months": ", ".join(map(str, plan.season_months)),
        "field_capacity_months": ", ".join(map(str, plan.field_capacity_months)),
    }


def partitions_in_words(days: list[date]) -> str:
    """The partitions a training set was built from, for the manifest: first, last and how many."""
    return f"gold/ml_features[{min(days)}...{max(days)}] ({len(days)} days)" if days else "none"
