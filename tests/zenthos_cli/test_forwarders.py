"""`zenthos forwarders`, on a real database."""

from collections.abc import Callable

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from zenthos_cli.main import app

Zenthos = Callable[..., Result]


@pytest.fixture
def zenthos(ops_url: str, monkeypatch: pytest.MonkeyPatch) -> Zenthos:
    monkeypatch.setenv("ZENTHOS_DATABASE_URL", ops_url)
    monkeypatch.setenv("COLUMNS", "120")
    return lambda *arguments: CliRunner().invoke(app, ["forwarders", *arguments])


def test_none_has_started(zenthos: Zenthos) -> None:
    assert "ZENTHOS_FORWARD_AMQP_URL" in zenthos().stdout


def test_shows_and_removes(zenthos: Zenthos, ops_url: str) -> None:
    with psycopg.connect(ops_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO forwarders (name, xid, id, forwarded) VALUES ('redis', '3', 1, 12345)"
        )
        shown = zenthos().stdout
        assert [cell in shown for cell in ("redis", "12,345", "0 s", "UTC")] == [True] * 4
        assert zenthos("remove", "redis").exit_code == 0
        assert connection.execute("SELECT count(*) FROM forwarders").fetchone() == (0,)


def test_one_that_does_not_exist_or_runs_is_refused(zenthos: Zenthos, ops_url: str) -> None:
    unknown = zenthos("remove", "kafka")
    assert unknown.exit_code == 1
    assert "there is no forwarder kafka" in unknown.stderr
    with psycopg.connect(ops_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s, hashtext('redis'))", [0x7A666F72])
        running = zenthos("remove", "redis")
    assert running.exit_code == 1
    assert "restart ingest" in running.stderr


def test_a_database_that_is_away(zenthos: Zenthos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENTHOS_DATABASE_URL", "postgresql://zenthos@127.0.0.1:1/zenthos_ops")
    away = zenthos()
    assert away.exit_code == 1
    assert "the operational database fails" in away.stderr
