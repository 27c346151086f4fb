"""The whole stack by its command line, from start to stop, and what goes wrong on the way."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers import find_free_port
from tests.zenthos_cli.stack.processes import processes_with, wait_until
from zenthos_cli.stack.mosquitto import Mosquitto
from zenthos_cli.stack.state import StackFiles
from zenthos_core.settings import Settings, load_settings

COMMAND = [sys.executable, "-c", "from zenthos_cli.main import app; app()"]
PORTS = (
    *("POSTGRES_PORT", "MQTT_PORT", "MQTT_TLS_PORT"),
    *("INGEST_METRICS_PORT", "OTA_PORT", "DAGSTER_CODE_PORT"),
)
SERVICES = {
    *("postgres", "mosquitto", "migrations", "ingest", "ota-api", "mlflow"),
    *("dagster-code", "dagster-webserver", "dagster-daemon"),
}

pytestmark = pytest.mark.e2e


class Machine:
    """A folder with a stack of its own, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".zenthos"
        self.files = StackFiles(self.home)
        self.variables = {f"ZENTHOS_{name}": str(find_free_port()) for name in PORTS}
        for name in ("DAGSTER_URL", "MLFLOW_URL"):
            self.variables[f"ZENTHOS_{name}"] = f"http://127.0.0.1:{find_free_port()}"
        self.variables["ZENTHOS_HOME"] = str(self.home)

    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ZENTHOS_")}
        return inherited | self.variables

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def zenthos(self, *arguments: str, exit_code: int = 0) -> str:
        with self.begin(*arguments) as process:
            output, _ = process.communicate(timeout=240)
        assert process.returncode == exit_code, output
        assert "Traceback" not in output
        return output

    def services(self) -> dict[str, Any]:
        services: dict[str, Any] = json.loads(self.zenthos("status", "--json"))["services"]
        return services

    def all_ready(self) -> bool:
        status = self.files.read_status()
        return status is not None and status.ready()

    def processes(self) -> dict[int, str]:
        return processes_with(f"ZENTHOS_HOME={self.home}")


@pytest.fixture
def machine(tmp_path: Path, token_programs: Mosquitto) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.home.mkdir()
    if token_programs.libraries is not None:  # unpacked once for all tests
        unpacked = token_programs.libraries.parents[2]
        (machine.home / "mosquitto").symlink_to(unpacked)
    assert token_programs.plugin is not None
    (machine.home / "mosquitto-plugin").symlink_to(token_programs.plugin.parent)
    yield machine
    machine.zenthos("down")
    assert machine.processes() == {}


def register_and_publish(settings: Settings) -> int:
    """What the broker says to a new device's reading, sent by TLS with its token."""
    body = {
        "device_id": "field-1",
        "device_model": "esp32-s3",
        "device_type": "soil_sensor",
        "farm_name": "North",
    }
    admin = {"Authorization": f"Bearer {settings.admin_token.get_secret_value()}"}
    url = f"{settings.ota_url}/devices/register"
    token = httpx.post(url, json=body, headers=admin, trust_env=False).json()["jwt_token"]
    assert settings.mqtt_revocations_file is not None
    assert settings.mqtt_password_file is None
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="field-1", protocol=paho.MQTTv5)
    client.username_pw_set("field-1", token)
    client.tls_set(ca_certs=str(settings.mqtt_ca_file))
    reasons: list[int] = []
    client.on_publish = lambda c, u, mid, reason, p: reasons.append(reason.value)
    client.connect("127.0.0.1", settings.mqtt_tls_port)
    client.loop_start()
    client.publish("zenthos/esp32-s3/field-1/telemetry", b"{}", qos=1).wait_for_publish(10)
    client.loop_stop()
    client.disconnect()
    return reasons[0]


def test_without_a_compiler_it_says_that_passwords_serve(machine: Machine) -> None:
    tools = machine.folder / "bin"
    tools.mkdir()
    for name in ("setpriv", "prlimit"):
        program = shutil.which(name)
        assert program is not None
        (tools / name).symlink_to(program)
    (machine.home / "mosquitto-plugin").unlink()
    machine.variables["PATH"] = str(tools)
    port = int(machine.variables["ZENTHOS_MQTT_TLS_PORT"])
    with socket.create_server(("127.0.0.1", port)):  # far enough to see what was chosen
        output = " ".join(machine.zenthos("up", exit_code=1).split())
    assert "the broker does not check device tokens, passwords serve: there is no C comp" in output
    assert "sudo apt-get install gcc" in output
    assert f"set another, such as ZENTHOS_MQTT_TLS_PORT={port + 1}" in output
    settings = load_settings(machine.folder)
    assert settings.mqtt_revocations_file is None
    assert settings.mqtt_password_file == machine.home / "broker" / "passwords"
    del machine.variables["PATH"]


def test_from_start_to_stop(machine: Machine) -> None:
    output = machine.zenthos("up")
    assert machine.variables["ZENTHOS_DAGSTER_URL"] in output
    services = machine.services()
    assert services.keys() == SERVICES

    settings = load_settings(machine.folder)
    for url in (settings.database_url, settings.analytics_database_url):
        with psycopg.connect(url.get_secret_value()) as connection:
            assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)

    assert register_and_publish(settings) == 0

    assert "runs already" in machine.zenthos("up")
    assert machine.services()["postgres"]["process"] == services["postgres"]["process"]

    killed = ("postgres", "mosquitto", "ota-api", "dagster-code")
    for name in killed:
        os.kill(services[name]["process"]["pid"], signal.SIGKILL)
    wait_until(
        lambda: all(
            (status := machine.files.read_status()) and status.services[name].restarts
            for name in killed
        ),
        "restarts counted",
    )
    wait_until(machine.all_ready, "ready after restarts")
    assert "ota-api" in machine.zenthos("status")

    assert f"stopped {len(SERVICES) - 1} services" in machine.zenthos("down")
    assert machine.processes() == {}
    assert "not running" in machine.zenthos("status", exit_code=1)
    assert "nothing was running" in machine.zenthos("down")


@pytest.mark.fault
def test_a_killed_supervisor_leaves_nothing_and_the_next_start_is_whole(machine: Machine) -> None:
    machine.zenthos("up")
    with psycopg.connect(load_settings(machine.folder).database_url.get_secret_value()) as ops:
        ops.execute("CREATE TABLE kept AS SELECT 1 AS one")
    status = machine.files.read_status()
    assert status is not None
    os.kill(status.supervisor.pid, signal.SIGKILL)
    machine.zenthos("up")  # at once: ends what still runs, then starts
    with psycopg.connect(load_settings(machine.folder).database_url.get_secret_value()) as ops:
        assert ops.execute("SELECT one FROM kept").fetchone() == (1,)
    status = machine.files.read_status()
    assert status is not None
    os.kill(status.supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not machine.processes(), "all ended without a word from anyone")


@pytest.mark.fault
def test_ctrl_c_during_the_start_leaves_nothing(machine: Machine) -> None:
    with machine.begin("up") as process:
        wait_until(machine.files.status.exists, "services starting")
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert machine.processes() == {}
    assert not machine.files.running()


def test_a_busy_port_keeps_everything_from_starting(machine: Machine) -> None:
    port = int(machine.variables["ZENTHOS_OTA_PORT"])
    with socket.create_server(("127.0.0.1", port)):
        output = machine.zenthos("up", exit_code=1)
    assert f"port {port} (ota-api) is in use" in " ".join(output.split())
    assert "ZENTHOS_OTA_PORT" in output
    assert machine.processes() == {}
    assert not machine.files.running()


def test_a_service_that_cannot_start_is_named_with_its_log(machine: Machine) -> None:
    machine.variables["DAGSTER_GRPC_MAX_WORKERS"] = "none"  # the code server refuses it
    output = machine.zenthos("up", exit_code=1)
    assert "dagster-code stopped with exit code" in output
    assert "dagster-code.log" in "".join(output.split())
    assert machine.processes() == {}


def test_a_folder_that_cannot_be_written_is_named(machine: Machine) -> None:
    blocked = machine.folder / "file"
    blocked.touch()
    machine.variables["ZENTHOS_HOME"] = str(blocked / "home")
    assert "cannot write to" in machine.zenthos("up", exit_code=1)
    machine.variables["ZENTHOS_HOME"] = str(machine.home)
