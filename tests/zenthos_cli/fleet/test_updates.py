"""A simulated farm takes updates while it runs, and goes on as the version that it has then."""

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console

from tests.ota_api.releases import Signer
from tests.zenthos_cli.fleet.conftest import Subscriber
from zenthos_cli.fleet import jobs
from zenthos_cli.updating import Faults, updates_fail_at
from zenthos_core.errors import InvalidInputError
from zenthos_core.settings import Settings

OPTIONS = jobs.SimulateOptions(devices=2, interval_s=1, duration_s=15.0, update_every_s=1.0)


def simulate(settings: Settings, options: jobs.SimulateOptions) -> dict[str, int]:
    return jobs.simulate(settings, options, Console(file=StringIO())).updates


def publish(settings: Settings, version: str) -> None:
    token = settings.admin_token.get_secret_value()
    release = Signer(settings.trusted_keys_file.parent).firmware(version=version)
    httpx.post(
        f"{settings.ota_url}/firmware/publish",
        json=release,
        headers={"Authorization": f"Bearer {token}"},
        trust_env=False,
    ).raise_for_status()


def versions(subscriber: Subscriber) -> list[str]:
    """Of each message, in their order."""
    decoded: list[dict[str, Any]] = [json.loads(m.payload) for m in subscriber.received]
    return [message["firmware_version"] for message in decoded]


def test_devices_go_on_as_what_they_have_installed(
    fleet_settings: Settings, subscriber: Subscriber
) -> None:
    publish(fleet_settings, "v0.2.0")
    outcomes = simulate(fleet_settings, OPTIONS)
    assert outcomes["success"] == 2
    assert outcomes["idle"] > 0
    assert set(outcomes) == {"success", "idle"}
    told = versions(subscriber)
    assert "v0.1.0" in told
    assert set(told[-4:]) == {"v0.2.0"}, "the last words too"
    again = simulate(fleet_settings, replace(OPTIONS, duration_s=8.0))
    assert set(again) == {"idle"}, "what they run is kept"
    assert versions(subscriber)[-1] == "v0.2.0"


def test_devices_that_fail(fleet_settings: Settings, subscriber: Subscriber) -> None:
    publish(fleet_settings, "v0.2.0")
    options = replace(OPTIONS, duration_s=15.0, update_faults=Faults(fails_at="install"))
    assert simulate(fleet_settings, options)["failure"] >= 1
    assert set(versions(subscriber)) == {"v0.1.0"}


def test_a_stage_that_does_not_exist() -> None:
    assert updates_fail_at("reboot") == Faults(fails_at="reboot")
    with pytest.raises(InvalidInputError, match="download, install, reboot"):
        updates_fail_at("lunch")
