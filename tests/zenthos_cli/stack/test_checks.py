"""What keeps a stack from starting is said before anything starts."""

import socket
from pathlib import Path

import pytest

from zenthos_cli.stack import checks
from zenthos_cli.stack.launch import child_command
from zenthos_cli.stack.mosquitto import Mosquitto
from zenthos_cli.stack.plan import Service
from zenthos_core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("setting", "before"),
    [("ZENTHOS_OTA_PORT", ""), ("ZENTHOS_DAGSTER_URL", "http://127.0.0.1:")],
)
def test_a_busy_port_names_service_and_setting(setting: str, before: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        service = Service(name="it", command=[], port=port, port_setting=setting)
        with pytest.raises(ConfigurationError, match=rf"{port} \(it\).* {setting}={before}\d+$"):
            checks.check_ports([service])
    checks.check_ports([service])


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks.check_disk(tmp_path)
    monkeypatch.setattr(checks, "MIN_FREE_BYTES", 10**18)
    with pytest.raises(ConfigurationError, match="nearly full"):
        checks.check_disk(tmp_path)


def test_a_missing_broker_says_how_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="apt-get install mosquitto"):
        Mosquitto((tmp_path,)).program("mosquitto")


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="util-linux"):
        child_command(["true"], death_signal=Service.stop_signal)
