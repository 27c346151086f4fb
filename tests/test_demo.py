"""The main job as a new user runs it, with ports and state of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import find_free_port

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(1800)]

PORTS = (
    *("POSTGRES_PORT", "MQTT_PORT", "MQTT_TLS_PORT"),
    *("INGEST_METRICS_PORT", "OTA_PORT", "DAGSTER_CODE_PORT"),
)
RECORDINGS = Path(__file__).parents[2] / "shared/data/kings_creek"
MAPPING = Path(__file__).parents[1] / "examples/kings_creek/mapping.toml"
FIELDS = {
    *("sent", "stored", "duplicate", "quarantined", "lost", "partitions"),
    *("model_auc", "baseline_auc", "release_verified", "seconds"),
}


@pytest.fixture
def environment() -> dict[str, str]:
    """Free ports; nothing of the developer's own settings."""
    ports = {f"ZENTHOS_{name}": str(find_free_port()) for name in PORTS}
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("ZENTHOS_")},
        **ports,
        "ZENTHOS_MQTT_PUBLIC_ADDRESS": f"127.0.0.1:{ports['ZENTHOS_MQTT_PORT']}",
        "ZENTHOS_OTA_URL": f"http://127.0.0.1:{ports['ZENTHOS_OTA_PORT']}",
        "ZENTHOS_DAGSTER_URL": f"http://127.0.0.1:{find_free_port()}",
        "ZENTHOS_MLFLOW_URL": f"http://127.0.0.1:{find_free_port()}",
    }


@pytest.fixture
def home(tmp_path: Path, environment: dict[str, str]) -> Iterator[Path]:
    """An empty folder; whatever is started in it is stopped."""
    yield tmp_path
    run(tmp_path, environment, "down")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from zenthos_cli.main import app; app()", *arguments]


def run(
    home: Path, environment: dict[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=home, env=environment, text=True, capture_output=True, check=False
    )


def demo(home: Path, environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = run(home, environment, "demo", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((home / ".zenthos/demo.json").read_text())
    assert set(summary) >= FIELDS
    assert summary["lost"] == 0
    assert summary["sent"] == sum(summary[k] for k in ("stored", "duplicate", "quarantined"))
    assert summary["release_verified"] is True
    assert summary["model_auc"] > summary["baseline_auc"]
    return summary


def test_twice(home: Path, environment: dict[str, str]) -> None:
    first = demo(home, environment)
    assert first["partitions"] >= 365
    assert first["quarantined"] > 0
    assert first["duplicate"] > 0
    second = demo(home, environment)
    assert second["release_counter"] >= first["release_counter"]


@pytest.mark.skipif(not RECORDINGS.exists(), reason=f"no recordings at {RECORDINGS}")
def test_real_measurements(home: Path, environment: dict[str, str]) -> None:
    summary = demo(home, environment, "--replay", str(RECORDINGS), "--mapping", str(MAPPING))
    assert summary["sent"] > 160_000
    assert summary["quarantined"] == 0


def test_interrupted(home: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        command("demo"), cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 240
    while not (home / ".zenthos/fleet").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 130, output.decode()
    assert b"Traceback" not in output
    assert run(home, environment, "status").returncode == 1
