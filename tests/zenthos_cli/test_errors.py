"""`zenthos errors`, on a real database and a real broker."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.servers import MosquittoServer
from tests.zenthos_cli.fleet.conftest import Subscriber
from zenthos_cli.main import app

Zenthos = Callable[..., Result]
BAD = b'{"device_id":"soil-1","sensors":"wet"}'
TOPIC = "zenthos/esp32-s3/soil-1/telemetry"


@pytest.fixture
def database(ops_url: str) -> Iterator[psycopg.Connection]:
    """Two open errors and a dismissed one."""
    with psycopg.connect(ops_url, autocommit=True) as connection:
        for number, state in enumerate(("open", "open", "dismissed")):
            connection.execute(
                "INSERT INTO etl_errors (asset, day, topic, device_id, payload, received_at,"
                " reason, detail, object_key, run_id, state)"
                " VALUES ('silver/x', %s, %s, 'soil-1', %s, now(), 'wrong_type', '', 'k', 'r', %s)",
                [datetime(2026, 11, 18 + number, tzinfo=UTC), TOPIC, BAD, state],
            )
        yield connection


@pytest.fixture
def zenthos(ops_url: str, mosquitto: MosquittoServer, monkeypatch: pytest.MonkeyPatch) -> Zenthos:
    monkeypatch.setenv("ZENTHOS_DATABASE_URL", ops_url)
    monkeypatch.setenv("ZENTHOS_MQTT_HOST", mosquitto.host)
    monkeypatch.setenv("ZENTHOS_MQTT_PORT", str(mosquitto.port))
    monkeypatch.setenv("ZENTHOS_MQTT_REPLAY_PASSWORD", mosquitto.replay_password)
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: CliRunner().invoke(app, ["errors", *arguments])


def states(connection: psycopg.Connection) -> list[str]:
    return [s for (s,) in connection.execute("SELECT state FROM etl_errors ORDER BY id").fetchall()]


def test_lists_what_is_open(zenthos: Zenthos, database: psycopg.Connection) -> None:
    shown = zenthos("list").stdout
    assert shown.count("wrong_type") == 2
    assert '"sensors":"wet"' in shown
    assert len(json.loads(zenthos("list", "--all", "--json").stdout)) == 3
    assert len(json.loads(zenthos("list", "--day", "2026-11-19", "--json").stdout)) == 1
    assert "no such messages" in zenthos("list", "--state", "replayed").stdout


def test_replays_through_the_broker(
    zenthos: Zenthos, database: psycopg.Connection, mosquitto: MosquittoServer, tmp_path: Path
) -> None:
    listener = Subscriber(mosquitto)
    mended = tmp_path / "mended.json"
    mended.write_text('{"device_id":"soil-1","sensors":{}}')
    assert zenthos("replay", "1").exit_code == 0
    assert zenthos("replay", "2", "--payload", str(mended)).exit_code == 0
    listener.wait_for(2)
    listener.client.loop_stop()
    assert [tuple(message) for message in listener.telemetry()] == [
        (TOPIC, BAD),
        (TOPIC, mended.read_bytes()),
    ]
    assert states(database) == ["replayed", "replayed", "dismissed"]


def test_dismisses(zenthos: Zenthos, database: psycopg.Connection) -> None:
    assert "dismissed 2" in zenthos("dismiss", "1", "2").stdout
    assert states(database) == ["dismissed"] * 3


def test_what_cannot_be_done_says_why(
    zenthos: Zenthos, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no error 9: `zenthos errors list`" in zenthos("replay", "9").stderr
    assert "single number" in zenthos("replay", "1", "2", "--payload", "x").stderr
    assert "no-such-file" in zenthos("replay", "1", "--payload", "no-such-file").stderr
    monkeypatch.setenv("ZENTHOS_MQTT_REPLAY_PASSWORD", "wrong")
    assert "the broker refuses svc-replay" in zenthos("replay", "1").stderr
    monkeypatch.setenv("ZENTHOS_MQTT_PORT", "1")
    assert "is the stack up?" in zenthos("replay", "1").stderr
    monkeypatch.setenv("ZENTHOS_DATABASE_URL", "postgresql://zenthos@127.0.0.1:1/zenthos_ops")
    assert "the operational database fails" in zenthos("list").stderr
    assert states(database) == ["open", "open", "dismissed"]
