"""Release asset: signs the INT8 model's manifest and publishes it through the OTA server."""

import subprocess
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import msgspec
from pydantic import Field

from ml import registry
from zenthos_assets.models.assets import latest_metadata
from zenthos_assets.models.checks import TFLITE_KEY
from zenthos_assets.release.checks import RELEASE_KEY, VERIFIES_SPEC, fetch_and_verify
from zenthos_assets.release.transforms import KIND, build_manifest
from zenthos_assets.resources import Platform
from zenthos_core import lake
from zenthos_core.manifest import Manifest, SignedManifest, sign_manifest
from zenthos_core.signing import key_id, public_half, read_key, read_trusted_keys


class ReleaseConfig(dg.Config):
    """Which devices a model is for."""

    device_models: list[str] = Field(["esp32-s3"])
    chip: str = "esp32s3"


@dg.asset(
    key=RELEASE_KEY,
    deps=[TFLITE_KEY],
    group_name="release",
    kinds={"tflite"},
    owners=["team:platform"],
    description="The model under a signed manifest, as devices fetch it from the OTA server.",
    metadata={
        "object_path": f"{lake.FIRMWARE}/models/{{device_model}}/irrigation/<version>.tflite"
    },
    check_specs=[VERIFIES_SPEC],
)
def model_release(
    context: dg.AssetExecutionContext, config: ReleaseConfig, platform: Platform
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    settings = platform.settings
    tflite = latest_metadata(context, TFLITE_KEY)
    binary = platform.store().get(lake.GOLD, tflite["object_key"])
    now = datetime.now(UTC)
    key = read_key(settings.model_signing_key_file)
    with platform.ota() as ota:
        manifest = build_manifest(
            tflite,
            device_models=config.device_models,
            chip=config.chip,
            release_counter=next_counter(ota, config.device_models),
            now=now,
            key_id=key_id(public_half(key)),
            run_id=context.run.run_id,
            commit=code_commit(),
        )
        url, manifest = publish(ota, manifest, key, binary)
        trusted = read_trusted_keys(
            settings.trusted_keys_file, read_key(settings.root_public_key_file)
        )
        verified = fetch_and_verify(ota, manifest, trusted, now=now.timestamp())
    trained = registry.RegisteredModel(tflite["mlflow_run_id"], tflite["mlflow_version"])
    registry.mark_released(platform.mlflow(), trained, manifest.version)
    return dg.MaterializeResult(
        metadata={
            "version": manifest.version,
            "url": dg.MetadataValue.url(url),
            "release_counter": manifest.release_counter,
            "device_models": manifest.device_models,
            "size_bytes": manifest.size,
            "sha256": manifest.sha256,
            "auc": tflite["auc"],
            "baseline_auc": tflite["baseline_auc"],
            "manifest": msgspec.to_builtins(manifest),
        },
        check_results=[verified],
    )


def next_counter(ota: httpx.Client, device_models: Sequence[str]) -> int:
    """One more than the newest release of a model for any of the device models."""
    answers = [ota.get(f"/release-counters/{model}/{KIND}") for model in device_models]
    return max(int(_body(answer)["next"]) for answer in answers)


def publish(
    ota: httpx.Client, manifest: Manifest, key: bytes, binary: bytes
) -> tuple[str, Manifest]:
    """Sign and publish; returns the binary's URL and the manifest that devices are given.

    That is the earlier one where the same binary was published before: releases never change.
    """
    signed = sign_manifest(manifest, key)
    answer = ota.post("/models/publish", json=_publication(signed, binary, manifest))
    url = str(_body(answer)["url"])
    if answer.status_code == httpx.codes.CREATED:
        return url, manifest
    path = f"/models/{manifest.device_models[0]}/{manifest.name}/{manifest.version}"
    document = b64decode(_body(ota.get(path))["manifest"])
    return url, msgspec.json.decode(document, type=Manifest)


def _publication(signed: SignedManifest, binary: bytes, manifest: Manifest) -> dict[str, Any]:
    metrics = manifest.lineage.metrics
    return {
        "manifest": b64encode(signed.manifest).decode(),
        "signature": b64encode(signed.signature).decode(),
        "binary_data": b64encode(binary).decode(),
        "release_notes": (
            f"Held-out AUC {metrics['auc']:.3f}; 7-day soil mean {metrics['baseline_auc']:.3f}."
        ),
        "required": False,
        "rollout_percentage": 100,
    }


def _body(answer: httpx.Response) -> dict[str, Any]:
    """The JSON body; dg.Failure with what the server said where it refused."""
    if answer.is_error:
        raise dg.Failure(
            f"{answer.request.method} {answer.request.url} answers {answer.status_code}: "
            f"{answer.text[:500]}"
        )
    body: dict[str, Any] = answer.json()
    return body


def code_commit() -> str | None:
    """The commit this code is at; None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
