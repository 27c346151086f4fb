"""`zenthos device`, against the real server."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import Result
from pydantic import SecretStr
from typer.testing import CliRunner

from tests.ota_api.conftest import Ota, make_ota_settings, running_ota
from zenthos_cli.main import app
from zenthos_core.tokens import Role

Zenthos = Callable[..., Result]


@pytest.fixture
def ota(tmp_path: Path, ops_url: str, analytics_url: str) -> Iterator[Ota]:
    """A server of this test's own."""
    settings = make_ota_settings(tmp_path / "ota", ops_url)
    analytical = {"analytics_database_url": SecretStr(analytics_url)}
    with running_ota(settings.model_copy(update=analytical)) as running:
        yield running


@pytest.fixture
def zenthos(ota: Ota, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Zenthos:
    """`zenthos device` with an admin's token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ZENTHOS_OTA_URL", ota.settings.ota_url)
    monkeypatch.setenv("ZENTHOS_TOKEN", ota.token(Role.ADMIN))
    return lambda *arguments, **options: CliRunner().invoke(app, ["device", *arguments], **options)


def register(zenthos: Zenthos, device_id: str = "soil-1", *more: str) -> Result:
    options = ["--model", "esp32-s3", "--type", "soil", "--farm", "North", *more]
    return zenthos("register", device_id, *options)


@pytest.mark.parametrize("option", [["--at", "1,nan"], ["--at", "inf,1"], ["--interval", "nan"]])
def test_what_is_no_number_is_wrong_usage(zenthos: Zenthos, option: list[str]) -> None:
    done = zenthos("update", "soil-1", *option)
    assert done.exit_code == 2, done.output
    assert "numbers" in done.stderr or "number" in done.stderr


def test_from_registration_to_the_end(zenthos: Zenthos, ota: Ota) -> None:
    made = register(zenthos, "soil-1", "--at", "0,-96.6", "--interval", "60", "--tag", "a")
    assert made.exit_code == 0, made.output
    assert "jwt_token" in made.stdout
    changed = zenthos("update", "soil-1", "--tag", "b", "--tag", "c", "--interval", "30")
    assert changed.exit_code == 0, changed.output
    shown = json.loads(zenthos("show", "soil-1", "--json").stdout)
    assert shown["tags"] == ["b", "c"]
    assert (shown["report_interval_s"], shown["location"]) == (30, {"lat": 0, "lon": -96.6})
    assert "b, c" in zenthos("show", "soil-1").stdout

    token = zenthos("token", "soil-1").stdout.strip()
    own = {"Authorization": f"Bearer {token}"}
    assert ota.http.get("/devices/soil-1/status", headers=own).status_code == 200
    assert zenthos("revoke", "soil-1").exit_code == 0
    assert ota.http.get("/devices/soil-1/status", headers=own).status_code == 401

    assert zenthos("decommission", "soil-1", input="n\n").exit_code == 1
    assert zenthos("decommission", "soil-1", "--yes").exit_code == 0
    assert zenthos("list").stdout == "no such devices\n"
    assert "soil-1" in zenthos("list", "--decommissioned").stdout
    assert "decommissioned" in zenthos("token", "soil-1").stderr


def test_list_with_filters(zenthos: Zenthos) -> None:
    register(zenthos, "soil-1", "--at", "0,0", "--tag", "wet")
    register(zenthos, "soil-2", "--at", "45,45")

    def listed(*options: str) -> list[str]:
        found = json.loads(zenthos("list", "--json", *options).stdout)
        return [device["device_id"] for device in found]

    assert listed() == ["soil-1", "soil-2"]
    assert listed("--tag", "wet") == ["soil-1"]
    assert listed("--near", "0,0.5,100") == ["soil-1"]
    assert listed("--model", "esp32-cam") == []
    table = [line.split() for line in zenthos("list").stdout.splitlines()]
    assert [line[:2] for line in table[1:]] == [["soil-1", "esp32-s3"], ["soil-2", "esp32-s3"]]


def test_every_page_is_listed(zenthos: Zenthos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zenthos_cli.api.PAGE", 2)
    for number in range(5):
        register(zenthos, f"soil-{number}")
    assert len(json.loads(zenthos("list", "--json").stdout)) == 5


def test_a_csv_with_a_line_that_is_refused(zenthos: Zenthos, tmp_path: Path) -> None:
    file = tmp_path / "devices.csv"
    header = "device_id,device_model,device_type,farm_name\n"
    file.write_text(f"{header}soil-1,esp32-s3,soil,North\nBAD ID,esp32-s3,soil,North\n")
    done = zenthos("register", "--csv", str(file))
    assert done.exit_code == 1
    assert "1 created, 0 unchanged, 1 refused" in done.stdout
    assert "BAD ID" in done.stdout
    file.write_text(f"{header}soil-1,esp32-s3,soil,North\n")
    assert zenthos("register", "--csv", str(file)).exit_code == 0
    assert "No such file" in zenthos("register", "--csv", "none.csv").stderr


def test_a_claim_whose_answer_was_lost_is_made_possible_anew(zenthos: Zenthos, ota: Ota) -> None:
    options = ["--model", "esp32-s3", "--type", "soil", "--farm", "North", "--factory-secret-stdin"]
    secret = "x" * 22
    for _ in range(2):
        done = zenthos("register", "soil-1", *options, input=f"{secret}\n")
        assert done.exit_code == 0, done.output
        answer = ota.http.post("/devices/soil-1/claim", json={"factory_secret": secret})
        assert answer.status_code == 200, answer.text


def test_history(zenthos: Zenthos, ota: Ota) -> None:
    register(zenthos, "soil-1")
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute("CREATE TABLE telemetry_rest PARTITION OF telemetry_hot DEFAULT")
        connection.execute(
            "INSERT INTO telemetry_hot (time, message_id, device_id, farm_id, temperature,"
            " received_at) SELECT now() - make_interval(mins => n), gen_random_uuid(), id, farm_id,"
            " 20 + n, now() FROM devices, generate_series(1, 2100) n"
        )
    options = ["--fields", "temperature", "--resolution", "raw"]
    now = datetime.now(UTC)
    days = ["--from", f"{now - timedelta(days=2):%Y-%m-%d}", "--to", f"{now:%Y-%m-%dT%H:%M:%S}"]
    found = zenthos("history", "soil-1", *options, *days, "--json")
    assert found.exit_code == 0, found.output
    points = json.loads(found.stdout)
    assert len(points) == 2100, "all pages"
    assert [points[-1]["values"], points[0]["values"]] == [
        {"temperature": 21},
        {"temperature": 2120},
    ]
    assert "temperature" in zenthos("history", "soil-1", *options).stdout
    early = ["--from", "2026-01-01", "--to", "2026-01-02"]
    assert zenthos("history", "soil-1", *options, *early).stdout == "nothing in that time\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "soil-9"], 1, "soil-9"),
        (["register", "soil-9"], 2, "--model"),
        (["register", "--csv", "x", "--factory-secret-stdin"], 2, "as a column"),
        (["update", "soil-9"], 2, "--farm"),
        (["list", "--near", "1,2"], 2, "3 numbers"),
        (["list", "--model", "NO MODEL"], 1, "device_model"),
        (["list", "--token", "none"], 1, "token"),
    ],
)
def test_what_is_wrong_is_said(
    zenthos: Zenthos, arguments: list[str], code: int, words: str
) -> None:
    done = zenthos(*arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert "Traceback" not in done.output


def test_a_server_that_is_away(zenthos: Zenthos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENTHOS_OTA_URL", "http://127.0.0.1:1")
    done = zenthos("list")
    assert done.exit_code == 1
    assert "is the stack up" in done.stderr
