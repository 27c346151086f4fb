"""The server as a process: health, metrics, keys, outages, start and stop."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from ota_api.devices.accounts import BrokerAccounts
from tests.ota_api.conftest import Ota, serving
from tests.ota_api.releases import Signer
from tests.servers import PostgresServer
from tests.waiting import wait_until
from zenthos_core.errors import ConfigurationError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role


def environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of a process."""
    values = {
        f"ZENTHOS_{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in settings
        if value is not None
    }
    return {**os.environ, **values}


def test_health(ota: Ota) -> None:
    wait_until(lambda: ota.http.get("/health/ready").status_code == 200)
    health = ota.http.get("/health").json()
    assert health["status"] == "ok"
    assert abs(health["timestamp"] - time.time()) < 60
    ready = ota.http.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"database": "ok", "blob_store": "ok", "keys": "ok"}


def test_not_ready_without_a_database_and_without_migrations(
    ota_settings: Settings, postgres: PostgresServer
) -> None:
    nowhere = "postgresql://zenthos@127.0.0.1:1/zenthos_ops"
    for url, word in ((nowhere, "cannot be reached"), (postgres.url(), "not migrated")):
        settings = ota_settings.model_copy(update={"database_url": SecretStr(url)})
        with serving(settings):
            answer = httpx.get(f"{settings.ota_url}/health/ready", timeout=20)
            assert answer.status_code == 503
            assert word in answer.json()["checks"]["database"]
            assert httpx.get(f"{settings.ota_url}/health", timeout=20).status_code == 200


def test_not_ready_without_keys(ota: Ota) -> None:
    ota.settings.trusted_keys_file.unlink()
    answer = ota.http.get("/health/ready")
    assert answer.status_code == 503
    assert "keys.json is missing" in answer.json()["checks"]["keys"]


@pytest.mark.fault
def test_database_that_goes_away_and_comes_back(
    ota_settings: Settings, own_postgres: PostgresServer, own_ops_url: str
) -> None:
    settings = ota_settings.model_copy(update={"database_url": SecretStr(own_ops_url)})
    with (
        serving(settings),
        httpx.Client(base_url=settings.ota_url, timeout=30, trust_env=False) as client,
    ):
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        own_postgres.kill()
        wait_until(lambda: client.get("/health/ready").status_code == 503)
        own_postgres.start()
        wait_until(lambda: client.get("/health/ready").status_code == 200)


def test_a_commit_that_fails_is_not_answered_with_success(ota: Ota) -> None:
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON farms DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    answer = ota.send("POST", "/farms", json={"name": "North"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert ota.rows("SELECT FROM farms") == []


@pytest.mark.parametrize("path", ["/hooks/github-release", "/models/publish"])
def test_a_client_that_goes_before_its_body_has_come_is_no_error(
    ota: Ota, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.INFO)
    with socket.create_connection(("127.0.0.1", ota.settings.ota_port)) as client:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n"
            f"Authorization: Bearer {ota.token(Role.ADMIN, 'ada')}\r\n\r\n-"
        )
        client.sendall(head.encode())
        time.sleep(0.2)

    def answered() -> list[int]:
        records = [r for r in caplog.records if r.name == "ota_api.access"]
        return [vars(r)["status"] for r in records if vars(r)["path"] == path]

    wait_until(answered)
    assert answered() == [400]
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def test_errors_say_nothing_of_the_inside(ota: Ota) -> None:
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute("ALTER TABLE farms RENAME TO fields")
    answer = ota.send("GET", "/farms")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "farms" not in answer.json()["detail"]


def test_openapi_and_docs(ota: Ota) -> None:
    assert ota.http.get("/docs").status_code == 200
    api = ota.http.get("/openapi.json").json()
    body = api["paths"]["/models/publish"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["required"]) == {"manifest", "signature"}


@pytest.mark.parametrize("missing", ["token_private_key_file", "token_public_key_file"])
def test_process_says_which_key_is_missing(ota_settings: Settings, missing: str) -> None:
    Path(getattr(ota_settings, missing)).unlink()
    done = subprocess.run(
        [sys.executable, "-m", "ota_api"],
        env=environment(ota_settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no token key" in done.stderr
    assert "Traceback" not in done.stderr


def test_keys_that_are_no_pair(ota_settings: Settings) -> None:
    from ota_api.resources import TokenKeys
    from zenthos_core.tokens import generate_private_key, public_pem

    ota_settings.token_public_key_file.write_bytes(public_pem(generate_private_key()))
    with pytest.raises(ConfigurationError, match="not the public half"):
        TokenKeys.read(ota_settings)


@contextmanager
def running(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """`python -m ota_api`, answering; stopped by SIGTERM at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ota_api"],
        env=environment(settings),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"{settings.ota_url}/health", timeout=30, trust_env=False)
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def test_process_serves_counts_and_stops(ota_settings: Settings) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    keys = ota_settings.trusted_keys_file.parent
    with (
        running(ota_settings) as process,
        httpx.Client(base_url=ota_settings.ota_url, timeout=20, trust_env=False) as client,
    ):
        refused = client.get("/devices", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        assert refused.json()["trace_id"] == trace
        ota = Ota(ota_settings, keys, client, Signer(keys))
        ota.publish(ota.signer.model())
        for asked in ("bytes=0-99", "bytes=100-"):  # one download in two parts
            path = "/models/esp32-s3/irrigation/latest?download=true"
            assert ota.send("GET", path, headers={"Range": asked}).status_code == 206
        metrics = client.get("/metrics").text.splitlines()
    assert process.stderr is not None
    log = process.stderr.read()
    counted = [line for line in metrics if line.startswith("zenthos_ota_")]
    assert any(
        "requests_total{" in c and 'status="401"' in c and c.endswith(" 1.0") for c in counted
    )
    downloads = [line for line in counted if "firmware_downloads_total{" in line]
    assert [line.rpartition(" ")[2] for line in downloads] == ["1.0"]
    assert f'"trace_id": "{trace}"' in log
    assert "Traceback" not in log


def test_second_server_on_a_port(ota: Ota) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ota_api"],
        env=environment(ota.settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


async def test_accounts_share_a_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ota_api.devices.accounts.RELOAD_DELAY_S", 5.0)
    accounts = BrokerAccounts(tmp_path / "passwords", tmp_path / "no.pid")
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            await accounts.set(f"device-{number}", "token")
        await accounts.close()
    assert len((tmp_path / "passwords").read_text().splitlines()) == 20
    assert [record.message for record in caplog.records] == [
        "no broker is running to read its accounts again"
    ]
