"""MLflow: each training is a run, each model that was trained a version of `irrigation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_NAME: Final = "irrigation"
EXPERIMENT: Final = "irrigation"
CANDIDATE: Final = "candidate"
"""Alias of the newest trained version."""
RELEASED: Final = "released"
"""Alias of the version whose release was published."""


@dataclass(frozen=True)
class RegisteredModel:
    """Where a model stands in MLflow."""

    run_id: str
    version: str

    @property
    def uri(self) -> str:
        """`models:/irrigation/3`."""
        return f"models:/{MODEL_NAME}/{self.version}"


def register(
    client: MlflowClient,
    files: Path,
    *,
    parameters: Mapping[str, object],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> RegisteredModel:
    """Log a training with all files of a folder and register its model as the candidate."""
    _ensure_model(client)
    run_id = client.create_run(_experiment_id(client), tags=dict(tags)).info.run_id
    for name, value in parameters.items():
        client.log_param(run_id, name, value)
    for name, number in metrics.items():
        client.log_metric(run_id, name, number)
    client.log_artifacts(run_id, str(files))
    client.set_terminated(run_id)
    source = f"{client.get_run(run_id).info.artifact_uri}/model.keras"
    version = client.create_model_version(MODEL_NAME, source, run_id=run_id, tags=dict(tags))
    client.set_registered_model_alias(MODEL_NAME, CANDIDATE, version.version)
    return RegisteredModel(run_id, str(version.version))


def record_conversion(
    client: MlflowClient, model: RegisteredModel, files: Path, metrics: Mapping[str, float]
) -> None:
    """Add the converted model and its scores to the training's run."""
    client.log_artifacts(model.run_id, str(files), "tflite")
    for name, number in metrics.items():
        client.log_metric(model.run_id, name, number)


def mark_released(client: MlflowClient, model: RegisteredModel, release_version: str) -> None:
    """Name the registered version after its release."""
    client.set_model_version_tag(MODEL_NAME, model.version, "release", release_version)
    client.set_registered_model_alias(MODEL_NAME, RELEASED, model.version)


def _experiment_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return str(experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT))


def _ensure_model(client: MlflowClient) -> None:
    if not client.search_registered_models(f"name = '{MODEL_NAME}'", max_results=1):
        client.create_registered_model(MODEL_NAME, description="Irrigate or skip, 24 h ahead.")
