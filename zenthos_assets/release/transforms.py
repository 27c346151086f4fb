"""What a model's manifest says; values in, values out."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from ml.features import FEATURES, feature_schema_hash
from ml.registry import MODEL_NAME
from zenthos_assets.models.transforms import release_version
from zenthos_core.manifest import SPEC_VERSION, Lineage, Manifest

KIND: Final = "model"
OUTPUT_CLASSES: Final = ["irrigate", "skip"]
VALID_FOR: Final = timedelta(days=365)
MANIFEST_METRICS: Final = ("auc", "baseline_auc", "max_probability_difference")


def build_manifest(
    tflite: Mapping[str, Any],
    *,
    device_models: Sequence[str],
    chip: str,
    release_counter: int,
    now: datetime,
    key_id: str,
    run_id: str,
    commit: str | None,
) -> Manifest:
    """The manifest of a converted model.

    Args:
        tflite: metadata of ml/irrigation_model_tflite.
        device_models: which may install it.
        chip: that those models have.
        release_counter: one more than the newest for these models.
        now: the moment of signing.
        key_id: of the signing key.
        run_id: the Dagster run that signs.
        commit: of the code, where it is known.
    """
    created = int(now.timestamp())
    return Manifest(
        spec_version=SPEC_VERSION,
        kind=KIND,
        name=MODEL_NAME,
        version=release_version(tflite["sha256"], now.date()),
        device_models=list(device_models),
        chip=chip,
        release_counter=release_counter,
        size=int(tflite["size_bytes"]),
        sha256=tflite["sha256"],
        created=created,
        expires=created + int(VALID_FOR.total_seconds()),
        key_id=key_id,
        input_shape=[1, len(FEATURES)],
        output_classes=OUTPUT_CLASSES,
        quantization=rounded(tflite["quantization"]),
        lineage=Lineage(
            code_commit=commit,
            run_id=run_id,
            dataset_partitions=tflite["partitions"],
            dataset_sha256=tflite["dataset_sha256"],
            feature_schema=feature_schema_hash(),
            mlflow_model=tflite["mlflow_model"],
            metrics={name: round(float(tflite[name]), 4) for name in MANIFEST_METRICS},
        ),
    )


def rounded(quantization: Mapping[str, Any]) -> dict[str, Any]:
    """Nine significant digits: all that a device's float32 can tell apart."""
    return {name: _rounded(value) for name, value in quantization.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value
