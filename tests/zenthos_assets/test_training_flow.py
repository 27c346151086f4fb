"""From readings to a release that verifies, and the gates that stop it."""

import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import sin
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from ml.evaluation import Score
from ml.registry import EXPERIMENT
from tests.ota_api.conftest import Ota, make_ota_settings, running_ota
from tests.zenthos_assets.conftest import HOUR_KEY, Farmyard, reading
from zenthos_assets.models.checks import (
    MODEL_KEY,
    TFLITE_KEY,
    TRAINING_SET_KEY,
    baseline_gate,
    both_classes,
    quantisation_gate,
)
from zenthos_assets.release.checks import RELEASE_KEY, fetch_and_verify
from zenthos_core.manifest import Manifest
from zenthos_core.signing import TrustedKeys, read_key, read_trusted_keys
from zenthos_core.tokens import Role

START = datetime(2026, 9, 1, tzinfo=UTC)
DAYS = 60


def weather() -> list[int]:
    """Days since rain, for each day: dry spells of uneven length."""
    spells = (13, 8, 16, 5, 14)
    return [day for spell in spells for day in range(spell)] + list(range(DAYS - sum(spells)))


def fleet_readings() -> Iterator[bytes]:
    """Six devices whose topsoil says little of the root zone, and days without rain much."""
    since = weather()
    for number in range(6):
        for hour in range(24 * DAYS):
            dry = since[hour // 24] + hour % 24 / 24
            sensors = {
                "soil_moisture": 20 + number + 5 * sin(hour / 70) + 3 * 0.7**dry,
                "temperature": 20 + number % 3 + hour % 24 / 4,
                "rainfall_mm": 5.0 if since[hour // 24] == 0 and hour % 24 == 0 else 0.0,
                "soil_moisture_20cm": 35 - min(dry, 16),
                "soil_moisture_40cm": 36 - min(dry, 16),
            }
            yield reading(f"soil-{number + 1}", START + timedelta(hours=hour), sensors=sensors)


@pytest.fixture
def ota(farmyard: Farmyard, tmp_path: Path) -> Iterator[Ota]:
    """A real OTA server on the farmyard's database, whose address and token the assets know."""
    settings = make_ota_settings(tmp_path, farmyard.ops_url)
    with running_ota(settings) as server:
        values = {
            "OTA_URL": settings.ota_url,
            "SERVICE_TOKEN": server.token(Role.OPERATOR, "lineage"),
            "MODEL_SIGNING_KEY_FILE": str(settings.model_signing_key_file),
            "TRUSTED_KEYS_FILE": str(settings.trusted_keys_file),
            "ROOT_PUBLIC_KEY_FILE": str(settings.root_public_key_file),
        }
        with (tmp_path / ".env").open("a") as file:
            file.writelines(f"ZENTHOS_{name}={value}\n" for name, value in values.items())
        yield server


@pytest.fixture(autouse=True)
def _artifacts(farmyard: Farmyard, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """MLflow without a server would put its artifacts into the working directory."""
    if request.node.get_closest_marker("e2e"):
        folder = (tmp_path / "artifacts").as_uri()
        farmyard.platform.mlflow().create_experiment(EXPERIMENT, artifact_location=folder)


def metadata(yard: Farmyard, key: dg.AssetKey) -> dict[str, object]:
    event = yard.instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: entry.value for name, entry in event.asset_materialization.metadata.items()}


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_readings_become_a_release_that_verifies(farmyard: Farmyard, ota: Ota) -> None:
    farmyard.register(*(f"soil-{n}" for n in range(3, 7)))
    farmyard.receive(fleet_readings())
    assert farmyard.run("archive", HOUR_KEY).success
    assert farmyard.run("daily", "2026-09-01", "2026-10-30").success
    config = {"ops": {"ml__training_set": {"config": {"holdout_devices": ["soil-5", "soil-6"]}}}}
    assert farmyard.run("train_and_release", run_config=config).success
    trained, converted = metadata(farmyard, MODEL_KEY), metadata(farmyard, TFLITE_KEY)
    assert float(str(trained["auc"])) > float(str(trained["baseline_auc"]))
    assert float(str(converted["max_probability_difference"])) < 0.1
    release = metadata(farmyard, RELEASE_KEY)
    assert release["release_counter"] == 1
    version = release["version"]
    body = ota.send("GET", f"/models/esp32-s3/irrigation/{version}", Role.VIEWER).json()
    assert body["sha256"] == converted["sha256"]
    versions = farmyard.platform.mlflow().search_model_versions("name = 'irrigation'")
    assert [v.tags["release"] for v in versions] == [version]

    again = farmyard.run("train_and_release", run_config=config)
    assert again.success, "the same data give the same model, which is published already"
    assert metadata(farmyard, TFLITE_KEY)["sha256"] == converted["sha256"]
    assert metadata(farmyard, RELEASE_KEY)["release_counter"] == 1


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_a_model_no_better_than_the_baseline_is_not_converted(farmyard: Farmyard) -> None:
    farmyard.register(*(f"soil-{n}" for n in range(3, 7)))
    since = weather()
    dry = [since[hour // 24] + hour % 24 / 24 for hour in range(24 * DAYS)]
    farmyard.receive(
        reading(
            f"soil-{number}",
            START + timedelta(hours=hour),
            sensors={
                "soil_moisture": 35 - sum(dry[max(0, hour - 24) : hour + 1]) / 25,
                "temperature": 20.0,
                "soil_moisture_20cm": 35 - sum(dry[max(0, hour - 191) : hour - 23] or [0]) / 168,
                "soil_moisture_40cm": 35 - sum(dry[max(0, hour - 191) : hour - 23] or [0]) / 168,
            },
        )
        for number in (1, 2, 3)
        for hour in range(24 * DAYS)
    )
    farmyard.run("archive", HOUR_KEY)
    farmyard.run("daily", "2026-09-01", "2026-10-30")
    result = farmyard.run("train_and_release")
    assert not result.success
    failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
    assert failed == {"beats_baseline"}
    assert farmyard.instance.get_latest_materialization_event(TFLITE_KEY) is None


def test_training_without_data_says_what_to_build(farmyard: Farmyard) -> None:
    result = farmyard.run("train_and_release")
    assert not result.success
    assert farmyard.instance.get_latest_materialization_event(TRAINING_SET_KEY) is None
    failures = [str(e.event_specific_data.error) for e in result.get_step_failure_events()]
    assert "build ml_features for more devices or days" in failures[0]


def test_check_release_that_cannot_be_fetched_or_is_another(ota: Ota) -> None:
    body = ota.signer.model()
    assert ota.publish(body).is_success
    manifest = msgspec.json.decode(b64decode(body["manifest"]), type=Manifest)
    settings = ota.settings
    trusted = read_trusted_keys(settings.trusted_keys_file, read_key(settings.root_public_key_file))
    ota.http.headers.update(ota.headers(Role.VIEWER))

    def passes(published: Manifest, keys: TrustedKeys = trusted) -> bool:
        return fetch_and_verify(ota.http, published, keys, now=time.time()).passed

    assert passes(manifest)
    assert not passes(msgspec.structs.replace(manifest, release_counter=2)), "another manifest"
    assert not passes(msgspec.structs.replace(manifest, version="m-20261123-ffffff0")), "missing"
    assert not passes(manifest, TrustedKeys(1, [])), "signed by a key nobody trusts"


def scored(auc: float | None, baseline: float | None) -> Score:
    return Score(100, 50, auc, baseline, 0.9, 0.1, 40, 10, 10, 40)


def test_check_gates_of_the_models() -> None:
    assert both_classes({"train": 0.4, "holdout": 0.5}).passed
    assert not both_classes({"train": 0.4, "holdout": 1.0}).passed
    assert not both_classes({"train": 0.4}).passed
    refused = both_classes({"train": 0.4, "holdout": 1.0}).description or ""
    assert refused.startswith("irrigate is 40% of train, 100% of holdout")
    assert baseline_gate(scored(0.9, 0.8)).passed
    assert not baseline_gate(scored(0.8, 0.9)).passed
    assert quantisation_gate(scored(0.9, 0.8), scored(0.9, 0.8), 0.01).passed
    assert not quantisation_gate(scored(0.9, 0.8), scored(0.85, 0.8), 0.01).passed
