"""A good release reaches every device; a bad one stops by itself, and what it reached comes back."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Settings
from tests.ota_api.conftest import DEVICE_MODEL
from tests.rollout_world import GOOD, World, running_world
from tests.servers import MosquittoServer
from zenthos_cli.updating import Faults

pytestmark = pytest.mark.e2e

DEVICES = 40
ROUNDS = 12
BAD = {**GOOD, "temperature": 150.0}


@pytest.fixture
def world(settings: Settings, mosquitto: MosquittoServer, tmp_path: Path) -> Iterator[World]:
    """Forty devices with v1.0.0 on a platform of this test's own."""
    with running_world(settings, mosquitto, tmp_path) as running:
        running.populate(DEVICES, tmp_path / "devices", "v1.0.0")
        yield running


def publish(world: World, version: str, counter: int, **changes: Any) -> str:
    """A release that is offered to nobody yet."""
    body = world.ota.signer.firmware(
        version.encode() * 2000, version=version, release_counter=counter
    )
    answer = world.ota.publish(
        {**body, "rollout_percentage": 0, **changes}, path="/firmware/publish"
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def begin(world: World, release: str, **changes: Any) -> str:
    """A rollout in three phases."""
    body = {
        "release_id": release,
        "device_model": DEVICE_MODEL,
        "phases": [10, 50, 100],
        "success_threshold": 0.9,
        "error_threshold": 0.1,
        "min_devices": 1,
        "timeout_s": 3600,
        **changes,
    }
    rollout = str(world.send("POST", "/rollouts", json=body)["id"])
    world.send("POST", f"/rollouts/{rollout}/start")
    return rollout
