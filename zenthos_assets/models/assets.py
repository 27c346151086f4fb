"""Model assets: training set, trained model, INT8 model. What they compute is in ml.

Each hands on its results as objects named after their content; the next asset finds them in the
metadata of the latest materialization.
"""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import dagster as dg
import msgspec
import polars as pl
from pydantic import Field

from ml import registry
from ml.dataset import (
    Split,
    build_dataset,
    plan_split,
    root_zone,
    theta_ahead,
    usable_rows,
)
from ml.evaluation import Score
from ml.features import FEATURES, feature_schema_hash
from ml.features import SCHEMA as FEATURES_SCHEMA
from ml.process import run_module
from ml.reports import ConversionReport, TrainingReport
from zenthos_assets import parquet, plots
from zenthos_assets.gold.checks import FEATURES_KEY, HOURLY_KEY
from zenthos_assets.gold.transforms import HOURLY_SCHEMA
from zenthos_assets.gold.warehouse import FEATURES_TABLE, HOURLY_TABLE
from zenthos_assets.models.checks import (
    BASELINE_SPEC,
    DATASET_SPEC,
    MODEL_KEY,
    QUANTISATION_SPEC,
    TFLITE_KEY,
    TRAINING_SET_KEY,
    baseline_gate,
    both_classes,
    quantisation_gate,
)
from zenthos_assets.models.transforms import (
    dataset_key,
    describe_plan,
    digest,
    model_key,
    partitions_in_words,
    split_counts,
)
from zenthos_assets.resources import Platform
from zenthos_core import lake

TIMEOUT_S: Final = 1_800.0


class TrainingSetConfig(dg.Config):
    """What is set aside; empty means: decided from the devices and days there are."""

    season_months: list[int] = Field([])
    field_capacity_months: list[int] = Field([])
    holdout_devices: list[str] = Field([])
    holdout_from: str = ""


class TrainingConfig(dg.Config):
    """How the model is trained."""

    seed: int = 7


def latest_metadata(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[str, Any]:
    """Metadata values of an asset's latest materialization.

    Raises:
        dg.Failure: where it has never been materialized.
    """
    event = context.instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        raise dg.Failure(f"{key.to_user_string()} was never materialized: materialize it first")
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@dg.asset(
    key=TRAINING_SET_KEY,
    deps=[FEATURES_KEY, HOURLY_KEY],
    group_name="ml",
    kinds={"parquet", "polars"},
    owners=["team:data"],
    description="Features labelled by root-zone depletion 24 h later, split by device and period.",
    metadata={"object_path": f"{lake.GOLD}/training_set/<sha256>.parquet"},
    check_specs=[DATASET_SPEC],
)
def training_set(
    context: dg.AssetExecutionContext, config: TrainingSetConfig, platform: Platform
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    store = platform.store()
    days = parquet.built_days(store, lake.GOLD, FEATURES_TABLE.name)
    features = parquet.read_days(store, lake.GOLD, FEATURES_TABLE.name, days, FEATURES_SCHEMA)
    hourly_days = parquet.built_days(store, lake.GOLD, HOURLY_TABLE.name)
    columns = ["device_id", "bucket", "soil_20cm_avg", "soil_40cm_avg"]
    hourly = parquet.read_days(
        store, lake.GOLD, HOURLY_TABLE.name, hourly_days, HOURLY_SCHEMA
    ).select(columns)
    plan = plan_split(
        theta_ahead(root_zone(hourly), usable_rows(features)),
        season_months=config.season_months,
        field_capacity_months=config.field_capacity_months,
        holdout_devices=config.holdout_devices,
        holdout_from=date.fromisoformat(config.holdout_from) if config.holdout_from else None,
    )
    dataset = build_dataset(features, hourly, plan)
    data = parquet.encode(dataset)
    sha256 = digest(data)
    store.put(lake.GOLD, dataset_key(sha256), data)
    shares = dict(dataset.group_by("split").agg(pl.col("irrigate").mean()).iter_rows())
    with_rows = sorted(features["date"].unique().to_list())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(dataset),
            "object_key": dataset_key(sha256),
            "sha256": sha256,
            "partitions": partitions_in_words(with_rows),
            "rows_by_split": split_counts(dataset),
            "depletion": plots.lines_by_device(
                dataset, "date", "depletion", title="root-zone depletion 24 h ahead", unit="-"
            ),
            **describe_plan(plan),
        },
        check_results=[both_classes(shares)],
    )


@dg.asset(
    key=MODEL_KEY,
    deps=[TRAINING_SET_KEY],
    group_name="ml",
    kinds={"tensorflow", "mlflow"},
    owners=["team:data"],
    description="A dense net 7-16-8-2, scored on held-out devices in a held-out period.",
    metadata={"object_path": f"{lake.GOLD}/irrigation_model/<sha256>.keras"},
    check_specs=[BASELINE_SPEC],
)
def irrigation_model(
    context: dg.AssetExecutionContext, config: TrainingConfig, platform: Platform
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    store = platform.store()
    source = latest_metadata(context, TRAINING_SET_KEY)
    with TemporaryDirectory(prefix="zenthos-train-") as folder:
        dataset, out = Path(folder, "dataset.parquet"), Path(folder, "out")
        dataset.write_bytes(store.get(lake.GOLD, source["object_key"]))
        out.mkdir()
        run_module(
            "ml.train",
            ["--dataset", str(dataset), "--out", str(out), "--seed", str(config.seed)],
            timeout_s=TIMEOUT_S,
            on_line=context.log.info,
        )
        report = msgspec.json.decode((out / "report.json").read_bytes(), type=TrainingReport)
        data = (out / "model.keras").read_bytes()
        key = model_key(digest(data), ".keras")
        store.put(lake.GOLD, key, data)
        registered = registry.register(
            platform.mlflow(),
            out,
            parameters={"seed": report.seed, "l2": report.l2, "epochs": report.epochs},
            metrics=flat_metrics(report.scores),
            tags={
                "dagster_run_id": context.run.run_id,
                "dataset_sha256": source["sha256"],
                "dataset_partitions": source["partitions"],
                "feature_schema": feature_schema_hash(),
            },
        )
        pictures = {
            plot.stem: plots.picture(plot.read_bytes(), plot.stem) for plot in out.glob("*.png")
        }
    holdout = report.scores[Split.HOLDOUT]
    return dg.MaterializeResult(
        metadata={
            "auc": holdout.auc if holdout.auc is not None else "undefined",
            "baseline_auc": holdout.baseline_auc if holdout.auc is not None else "undefined",
            "scores": {name: score.as_dict() for name, score in report.scores.items()},
            "object_key": key,
            "dataset_key": source["object_key"],
            "dataset_sha256": source["sha256"],
            "partitions": source["partitions"],
            "mlflow_run_id": registered.run_id,
            "mlflow_model": registered.uri,
            "mlflow_version": registered.version,
            "inputs": ", ".join(FEATURES),
            **pictures,
        },
        check_results=[baseline_gate(holdout)],
    )


@dg.asset(
    key=TFLITE_KEY,
    deps=[MODEL_KEY],
    group_name="ml",
    kinds={"tensorflow", "mlflow"},
    owners=["team:data"],
    description="The model as full INT8 TFLite, compared with the float model on held-out rows.",
    metadata={"object_path": f"{lake.GOLD}/irrigation_model/<sha256>.tflite"},
    check_specs=[QUANTISATION_SPEC],
)
def irrigation_model_tflite(
    context: dg.AssetExecutionContext, platform: Platform
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    store = platform.store()
    source = latest_metadata(context, MODEL_KEY)
    with TemporaryDirectory(prefix="zenthos-convert-") as folder:
        model, dataset = Path(folder, "model.keras"), Path(folder, "dataset.parquet")
        out = Path(folder, "out")
        out.mkdir()
        model.write_bytes(store.get(lake.GOLD, source["object_key"]))
        dataset.write_bytes(store.get(lake.GOLD, source["dataset_key"]))
        run_module(
            "ml.convert",
            ["--model", str(model), "--dataset", str(dataset), "--out", str(out)],
            timeout_s=TIMEOUT_S,
            on_line=context.log.debug,
        )
        report = msgspec.json.decode((out / "report.json").read_bytes(), type=ConversionReport)
        data = (out / "model.tflite").read_bytes()
        registered = registry.RegisteredModel(source["mlflow_run_id"], source["mlflow_version"])
        metrics = {"int8_max_probability_difference": report.max_probability_difference}
        metrics |= flat_metrics({"int8_holdout": report.int8_score})
        registry.record_conversion(platform.mlflow(), registered, out, metrics)
    sha256 = digest(data)
    store.put(lake.GOLD, model_key(sha256, ".tflite"), data)
    kept = ("dataset_sha256", "partitions", "mlflow_run_id", "mlflow_model", "mlflow_version")
    return dg.MaterializeResult(
        metadata={
            "auc": report.int8_score.auc or 0.5,
            "float_auc": report.float_score.auc or 0.5,
            "baseline_auc": report.int8_score.baseline_auc or 0.5,
            "max_probability_difference": report.max_probability_difference,
            "size_bytes": report.size_bytes,
            "quantization": report.quantisation.as_dict(),
            "object_key": model_key(sha256, ".tflite"),
            "sha256": sha256,
            **{name: source[name] for name in kept},
        },
        check_results=[
            quantisation_gate(
                report.float_score, report.int8_score, report.max_probability_difference
            )
        ],
    )


def flat_metrics(scores: dict[str, Score]) -> dict[str, float]:
    """`holdout_auc` and so on, without the undefined ones."""
    return {
        f"{split}_{name}": float(value)
        for split, score in scores.items()
        for name, value in score.as_dict().items()
        if value is not None
    }
