"""The release workflow: its own shell, as GitHub runs it, against a real server."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ota_api.conftest import DEVICE_MODEL, Ota, make_ota_settings, running_ota
from zenthos_core.tokens import Role

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github/workflows/release.yml"
ENVIRONMENT = {
    "NAME": "sensor",
    "DEVICE_MODEL": DEVICE_MODEL,
    "CHIP": "esp32s3",
    "VERSION": "v1.2.3",
    "GITHUB_SHA": "0a1b2c3",
}


@pytest.fixture
def served(tmp_path: Path, ops_url: str) -> Iterator[Ota]:
    with running_ota(make_ota_settings(tmp_path / "ota", ops_url)) as running:
        yield running


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A checkout after `make setup`."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (".venv", "firmware"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def steps() -> dict[str, dict[str, Any]]:
    """Those with a name."""
    workflow = yaml.safe_load(WORKFLOW.read_text())
    return {s["name"]: s for s in workflow["jobs"]["firmware"]["steps"] if "name" in s}


def run(step: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """With the variables and secrets that the step is given, and no others."""
    found = steps()[step]
    secrets = {name: environment[name] for name in found.get("env", {})}
    variables = {name: environment[name] for name in (*ENVIRONMENT, "ZENTHOS_OTA_URL")}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]]
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.run(
        command,
        cwd=folder,
        env=paths | variables | secrets,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_tag_becomes_a_release_with_its_assets(workplace: Path, served: Ota) -> None:
    environment = {
        **ENVIRONMENT,
        "ZENTHOS_OTA_URL": served.settings.ota_url,
        "ZENTHOS_SIGNING_KEY": (served.keys / "firmware.key").read_text(),
        "ZENTHOS_TOKEN": served.token(Role.OPERATOR),
    }
    for step in ("build", "sign", "publish"):
        done = run(step, workplace, environment)
        assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"
    release = served.send("GET", f"/firmware/{DEVICE_MODEL}/v1.2.3").json()
    assert release["release_notes"] == "v1.2.3 of 0a1b2c3"
    files = {path.name for path in workplace.iterdir() if path.is_file()}
    attached = {f"sensor-v1.2.3{suffix}" for suffix in (".zip", ".manifest.json", ".sig")}
    assert files == attached
    for name in attached:
        asset = name.replace("sensor", "$NAME").replace("v1.2.3", "$VERSION")
        assert asset in steps()["attach"]["run"]


def test_secrets_reach_only_the_steps_that_need_them() -> None:
    given = {name: set(step.get("env", {})) for name, step in steps().items()}
    assert given == {
        "install": set(),
        "build": set(),
        "sign": {"ZENTHOS_SIGNING_KEY", "ZENTHOS_TOKEN"},
        "publish": {"ZENTHOS_TOKEN"},
        "attach": {"GH_TOKEN"},
    }
