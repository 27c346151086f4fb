"""Where the broker's programs come from, and the files it is given."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from zenthos_cli.stack import mosquitto as stack_mosquitto
from zenthos_cli.stack.mosquitto import Broker, Mosquitto, find_mosquitto
from zenthos_core.errors import ConfigurationError


def test_its_programs_run(mosquitto_programs: Mosquitto) -> None:
    for name, flag in (
        ("mosquitto", "-h"),
        ("mosquitto_sub", "--help"),
        ("mosquitto_pub", "--help"),
    ):
        done = subprocess.run(
            [mosquitto_programs.program(name), flag],
            env=mosquitto_programs.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "version 2" in done.stdout


def test_without_a_package_server_it_says_how_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "mkdir", "mktemp", "rm"):
        (tools / name).symlink_to(Path("/usr/bin", name))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(stack_mosquitto, "SYSTEM_FOLDERS", ())
    with pytest.raises(ConfigurationError, match="sudo apt-get install mosquitto"):
        find_mosquitto(tmp_path / "unpacked")
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "unpacked.lock"}


def test_configuration_keeps_accounts(tmp_path: Path, mosquitto_programs: Mosquitto) -> None:
    broker = Broker(mosquitto_programs, tmp_path, 1883)
    broker.configure()
    broker.password_file.write_text("field-1:hash\n")
    broker.configure()
    assert broker.password_file.read_text() == "field-1:hash\n"
    assert stat.S_IMODE(broker.password_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "acl").stat().st_mode) == 0o600
    assert "$" not in broker.config_file.read_text()


def test_what_is_installed_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mosquitto", "mosquitto_sub", "mosquitto_pub"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = find_mosquitto(tmp_path / "unpacked")
    assert found.program("mosquitto") == str(tmp_path / "mosquitto")
    assert not (tmp_path / "unpacked").exists()
