"""`zenthos rollout`, against the real server."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from rich.console import RenderableType
from typer.testing import CliRunner

from tests.ota_api.conftest import DEVICE_ID, Ota, make_ota_settings, running_ota
from zenthos_cli.main import app
from zenthos_cli.rollouts import picture
from zenthos_core.tokens import Role

Zenthos = Callable[..., Result]


@pytest.fixture
def ota(tmp_path: Path, ops_url: str) -> Iterator[Ota]:
    """A server with one device."""
    with running_ota(make_ota_settings(tmp_path / "ota", ops_url)) as running:
        running.register()
        yield running


@pytest.fixture
def zenthos(ota: Ota, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Zenthos:
    """`zenthos` with an admin's token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("ZENTHOS_OTA_URL", ota.settings.ota_url)
    monkeypatch.setenv("ZENTHOS_TOKEN", ota.token(Role.ADMIN, "ada"))
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once `watch` has seen how far the rollout is."""
    event = threading.Event()

    def draw(*shown: Any) -> RenderableType:
        event.set()
        return picture(*shown)

    monkeypatch.setattr("zenthos_cli.rollouts.picture", draw)
    return event


def publish(ota: Ota, version: str = "v1.1.0", counter: int = 1) -> str:
    release = ota.signer.firmware(version=version, release_counter=counter)
    answer = ota.publish({**release, "rollout_percentage": 0}, path="/firmware/publish")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def create(zenthos: Zenthos, release: str, *options: str) -> str:
    done = zenthos("rollout", "create", release, "--json", *options)
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)["id"])


def test_why_it_waits_is_shown(zenthos: Zenthos, ota: Ota) -> None:
    rollout = create(zenthos, publish(ota), "--phases", "100")
    assert json.loads(zenthos("rollout", "show", rollout, "--json").stdout)["evaluation"] is None
    answer = ota.send("POST", f"/rollouts/{rollout}/evaluate", Role.ADMIN, json={})
    assert answer.status_code == 200, answer.text
    shown = zenthos("rollout", "show", rollout).stdout.splitlines()
    [waits] = [line for line in shown if line.startswith("waits (")]
    assert waits.endswith(answer.json()["reasons"][0]["text"])


def test_from_creation_to_the_end(zenthos: Zenthos, ota: Ota) -> None:
    rollout = create(zenthos, publish(ota), "--phases", "10,50%,100", "--hold", "--errors", "0.2")
    shown = json.loads(zenthos("rollout", "show", rollout, "--json").stdout)
    assert (shown["phases"], shown["error_threshold"]) == ([10, 50, 100], 0.2)
    assert (shown["state"], shown["device_model"]) == ("created", "esp32-s3")
    for verb, state in [("start", "running"), ("pause", "paused"), ("resume", "running")]:
        done = zenthos("rollout", verb, rollout)
        assert done.stdout == f"rollout {rollout} is {state}\n", done.output
    done = zenthos("rollout", "abort", rollout, "--reason", "wrong farm")
    assert done.stdout == f"rollout {rollout} is aborted\n"
    text = zenthos("rollout", "show", rollout).stdout
    assert "wrong farm" in text
    for word in ("create", "start", "pause", "resume", "abort", "10 %", "100 %", "ada"):
        assert word in text
    assert (
        "is aborted: this takes one that is created" in zenthos("rollout", "start", rollout).stderr
    )


def test_list(zenthos: Zenthos, ota: Ota, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "zenthos rollout create" in zenthos("rollout", "list").stdout
    rollout = create(zenthos, publish(ota))
    assert rollout in zenthos("rollout", "list").stdout
    assert "1 of 4, 1 %" in zenthos("rollout", "list", "--model", "esp32-s3").stdout
    monkeypatch.setenv("COLUMNS", "80")
    assert rollout in zenthos("rollout", "list").stdout
    assert json.loads(zenthos("rollout", "list", "--state", "paused", "--json").stdout) == []


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("paused", 3), ("aborted", 4)])
def test_watch_until_it_ends(
    zenthos: Zenthos, ota: Ota, looked: threading.Event, state: str, code: int
) -> None:
    rollout = create(zenthos, publish(ota))
    seen: list[Result] = []
    watching = threading.Thread(
        target=lambda: seen.append(zenthos("rollout", "watch", rollout, "--every", "0.1"))
    )
    watching.start()
    assert looked.wait(60), seen
    assert watching.is_alive(), seen[0].output
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute("UPDATE rollouts SET state = %s", [state])
        connection.execute(
            "INSERT INTO deployments (rollout_id, device_id, phase, state, offered_at, changed_at)"
            " VALUES (%s, %s, 1, 'failure', now(), now())",
            [rollout, DEVICE_ID],
        )
    watching.join(timeout=60)
    assert seen[0].exit_code == code, seen[0].output
    assert f"sensor v1.1.0 on esp32-s3: {state}" in seen[0].stdout
    assert "failure" in seen[0].stdout
    deployments = zenthos("device", "deployments", DEVICE_ID, "--json")
    assert [one["state"] for one in json.loads(deployments.stdout)] == ["failure"]


def test_watch_waits_for_a_server_that_is_away_for_a_while(
    tmp_path: Path, ops_url: str, monkeypatch: pytest.MonkeyPatch, looked: threading.Event
) -> None:
    settings = make_ota_settings(tmp_path / "ota", ops_url)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZENTHOS_OTA_URL", settings.ota_url)

    def watch() -> None:
        seen.append(CliRunner().invoke(app, ["rollout", "watch", rollout, "--every", "0.1"]))

    seen: list[Result] = []
    watching = threading.Thread(target=watch)
    with running_ota(settings) as ota:
        monkeypatch.setenv("ZENTHOS_TOKEN", ota.token(Role.ADMIN, "ada"))
        body = {"release_id": publish(ota)}
        rollout = ota.send("POST", "/rollouts", json=body).json()["id"]
        watching.start()
        assert looked.wait(60), seen
    time.sleep(0.5)
    assert watching.is_alive(), seen[0].output
    with psycopg.connect(ops_url) as connection:
        connection.execute("UPDATE rollouts SET state = 'finished'")
    with running_ota(settings):
        watching.join(timeout=60)
        assert seen[0].exit_code == 0, seen[0].output


def test_rollback_takes_a_release_of_a_higher_counter(zenthos: Zenthos, ota: Ota) -> None:
    bad = create(zenthos, publish(ota))
    back = zenthos("rollout", "rollback", bad, publish(ota, "v1.0.0", 1 + 1000))
    assert back.exit_code == 0, back.output
    shown = json.loads(zenthos("rollout", "list", "--json").stdout)
    assert [(one["version"], one["state"]) for one in shown] == [
        ("v1.0.0", "running"),
        ("v1.1.0", "aborted"),
    ]
    again = zenthos("rollout", "rollback", shown[0]["id"], shown[1]["release_id"])
    assert again.exit_code == 1
    assert "zenthos release reissue" in again.stderr


def test_a_release_by_its_version(zenthos: Zenthos, ota: Ota) -> None:
    releases = [publish(ota, f"v1.{number}.0", number) for number in (1, 2)]
    rollout = create(zenthos, "v1.2.0", "--model", "esp32-s3")
    shown = json.loads(zenthos("rollout", "show", rollout, "--json").stdout)
    assert shown["release_id"] == releases[1]
    earlier = publish(ota, "v1.0.9", 1_001)
    back = zenthos("rollout", "rollback", rollout, "v1.0.9", "--json")
    assert json.loads(back.stdout)["release_id"] == earlier
    for model in ([], ["--model", "esp32-cam"]):
        done = zenthos("rollout", "create", "v9.9.9", *model)
        assert done.exit_code == 1
        assert "`zenthos release list` shows them" in done.stderr


def test_a_version_of_several_releases_is_not_guessed(zenthos: Zenthos, ota: Ota) -> None:
    """Counters of two device models do not compare; what is withdrawn does not count."""
    ours = publish(ota, "v1.2.0", 7)
    camera = ota.signer.firmware(version="v1.2.0", release_counter=40, device_models=["esp32-cam"])
    theirs = str(ota.publish(camera, path="/firmware/publish").json()["id"])
    done = zenthos("rollout", "create", "v1.2.0")
    assert done.exit_code == 1
    assert ours in done.stderr
    assert theirs in done.stderr
    ota.send("POST", f"/releases/{theirs}/withdraw", json={"reason": "cold"})
    rollout = create(zenthos, "v1.2.0")
    shown = json.loads(zenthos("rollout", "show", rollout, "--json").stdout)
    assert shown["release_id"] == ours
    ota.send("POST", f"/releases/{ours}/withdraw", json={"reason": "cold too"})
    assert "release v1.2.0 is withdrawn" in zenthos("rollout", "create", "v1.2.0").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["create", "none"], 1, "release_id"),
        (["create", "00000000-0000-0000-0000-000000000000"], 1, "no release"),
        (["create", "00000000-0000-0000-0000-000000000000", "--phases", "x"], 2, "percentages"),
        (["show", "00000000-0000-0000-0000-000000000000"], 1, "no rollout"),
        (["watch", "00000000-0000-0000-0000-000000000000"], 1, "no rollout"),
    ],
)
def test_what_is_wrong_is_said(
    zenthos: Zenthos, arguments: list[str], code: int, words: str
) -> None:
    done = zenthos("rollout", *arguments)
    assert done.exit_code == code
    assert words in done.stderr
    assert "Traceback" not in done.output
