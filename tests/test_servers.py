"""The fixtures themselves: what other tests rely on."""

import time
from pathlib import Path

import paho.mqtt.client as mqtt
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.servers import MosquittoServer, PostgresServer
from zenthos_core.settings import Settings
from zenthos_core.signing import read_key, read_trusted_keys


def connect_code(server: MosquittoServer, user: str, password: str) -> int:
    """CONNACK reason code that the broker answers with."""
    codes: list[int] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_connect = lambda c, u, f, reason, p: codes.append(reason.value)
    client.username_pw_set(user, password)
    client.connect(server.host, server.port)
    deadline = time.monotonic() + 10
    while not codes and time.monotonic() < deadline:
        client.loop(0.1)
    client.disconnect()
    client.loop(0.1)
    return codes[0]


def test_each_test_has_a_migrated_database_of_its_own(ops_url: str, analytics_url: str) -> None:
    with psycopg.connect(ops_url) as ops, psycopg.connect(analytics_url) as analytics:
        assert ops.execute("SELECT count(*) FROM devices").fetchone() == (0,)
        assert analytics.execute("SELECT count(*) FROM telemetry_daily").fetchone() == (0,)


@pytest.mark.fault
def test_a_killed_postgres_starts_again_with_its_data(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    own_postgres.kill()
    own_postgres.start()
    with psycopg.connect(own_postgres.url()) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_the_broker_lets_in_who_has_an_account(mosquitto: MosquittoServer) -> None:
    assert connect_code(mosquitto, mosquitto.username, mosquitto.password) == 0
    assert connect_code(mosquitto, mosquitto.username, "wrong") == 135
    assert connect_code(mosquitto, "field-1", "word") == 135
    mosquitto.add_account("field-1", "word")
    assert connect_code(mosquitto, "field-1", "word") == 0


def test_the_broker_keeps_its_accounts_over_a_restart(mosquitto: MosquittoServer) -> None:
    mosquitto.add_account("field-1", "word")
    mosquitto.kill()
    mosquitto.start()
    assert connect_code(mosquitto, "field-1", "word") == 0
    assert int(mosquitto.broker.pid_file.read_text()) == mosquitto.pid


def test_servers_do_not_run_as_root(mosquitto: MosquittoServer, postgres: PostgresServer) -> None:
    for server in (mosquitto, postgres):
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_settings_hold_good_keys(settings: Settings) -> None:
    root = read_key(settings.root_public_key_file)
    kinds = {tuple(k.kinds) for k in read_trusted_keys(settings.trusted_keys_file, root).keys}
    assert kinds == {("firmware-bundle", "esp-image"), ("model",), ("check-in",)}
