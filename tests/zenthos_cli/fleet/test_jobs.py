"""Simulations and replays through the real registry to the real broker."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from rich.console import Console

from tests.zenthos_cli.fleet.conftest import Subscriber
from zenthos_cli.fleet import jobs
from zenthos_cli.fleet.faults import FaultRates
from zenthos_cli.fleet.pacing import Pace, parse_speed
from zenthos_core.errors import ConfigurationError, InvalidMessageError
from zenthos_core.messages import parse_payload
from zenthos_core.settings import Settings

UNTIL = datetime(2026, 6, 1, tzinfo=UTC)
ALL_FAULTS = FaultRates(
    outages_per_day=1,
    outage_mean_h=3,
    duplicate=0.05,
    out_of_order=0.05,
    clock_error=0.02,
    malformed=0.02,
)
HISTORY = jobs.SimulateOptions(
    devices=4, days=20, interval_s=3600, until=UNTIL, seed=5, faults=ALL_FAULTS
)

MAPPING = r"""
farm = "Replayed"
device_model = "esp32-oled"
[files]
data = "*.csv"
[device]
file = '(?P<name>\w+)\.csv'
id = "re-{name}"
[time]
text = "when"
[sensors]
temperature = "c"
"""


def quiet() -> Console:
    return Console(file=StringIO())


def accepted(payload: bytes) -> bool:
    try:
        parse_payload("telemetry", payload)
    except InvalidMessageError:
        return False
    return True


def test_a_simulation_sends_what_its_summary_says(
    fleet_settings: Settings, subscriber: Subscriber
) -> None:
    summary = jobs.simulate(fleet_settings, HISTORY, quiet())
    subscriber.wait_for(summary.sent)
    assert len(subscriber.received) == summary.sent
    good = [m for m in subscriber.telemetry() if accepted(m.payload)]
    times = Counter(good)
    assert summary.distinct == len(times) == 4 * 20 * 24
    assert summary.duplicates_sent == len(good) - len(times) > 0
    assert summary.malformed_sent == len(subscriber.telemetry()) - len(good) > 0
    assert summary.status_sent == 8
    assert all(message.get("backlog") for message in subscriber.decoded())
    assert summary.last_event is not None
    assert summary.last_event < UNTIL.timestamp()


def test_the_same_simulation_again_sends_the_same_messages(
    fleet_settings: Settings, subscriber: Subscriber
) -> None:
    first = jobs.simulate(fleet_settings, HISTORY, quiet())
    subscriber.wait_for(first.sent)
    once = Counter(subscriber.telemetry())
    again = jobs.simulate(fleet_settings, HISTORY, quiet())
    subscriber.wait_for(first.sent + again.sent)
    assert Counter(subscriber.telemetry()) == once + once


def test_irrigation_is_recorded_once(fleet_settings: Settings) -> None:
    options = jobs.SimulateOptions(devices=2, days=120, interval_s=3600, until=UNTIL)
    summary = jobs.simulate(fleet_settings, options, quiet())
    jobs.simulate(fleet_settings, options, quiet())
    with psycopg.connect(fleet_settings.database_url.get_secret_value()) as connection:
        rows = connection.execute(
            "SELECT farm_id::text, duration_minutes, timestamp FROM irrigation_events"
        ).fetchall()
    assert len(rows) == summary.irrigation_events > 0
    assert {row[0] for row in rows} == {summary.farm_id}
    assert all(row[2] < UNTIL for row in rows)


def test_tokens_are_kept_for_the_owner_alone_and_used_again(fleet_settings: Settings) -> None:
    options = jobs.SimulateOptions(devices=3, days=0.1, until=UNTIL)
    jobs.simulate(fleet_settings, options, quiet())
    (path,) = (fleet_settings.home / "fleet").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = path.read_text()
    jobs.simulate(fleet_settings, options, quiet())
    assert path.read_text() == kept
    jobs.simulate(fleet_settings, jobs.SimulateOptions(devices=4, days=0.1, until=UNTIL), quiet())
    assert len(json.loads(path.read_text())["tokens"]) == 4


def test_a_live_run_ends_whole_on_ctrl_c(fleet_settings: Settings, subscriber: Subscriber) -> None:
    run = subprocess.Popen(
        command("simulate", "--devices=3", "--interval=1", "--live", "--json"),
        env=environment(fleet_settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    subscriber.wait_for(3 + 6)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=30)
    summary = json.loads(output.splitlines()[-1])
    assert run.returncode == 0
    subscriber.wait_for(summary["sent"])
    assert len(subscriber.received) == summary["sent"] >= 12
    assert not any(message.get("backlog") for message in subscriber.decoded())


def command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("zenthos")), *arguments]


def environment(settings: Settings) -> dict[str, str]:
    values = {
        f"ZENTHOS_{name.upper()}": value.get_secret_value()
        if isinstance(value, SecretStr)
        else str(value)
        for name, value in settings
        if value is not None
    }
    return {**os.environ, **values}


def test_a_replay_sends_every_row_and_says_so(
    fleet_settings: Settings, subscriber: Subscriber, tmp_path: Path
) -> None:
    (tmp_path / "map.toml").write_text(MAPPING)
    rows = "".join(f"2024-05-01 {hour:02}:00:00,{hour + 0.5}\n" for hour in range(24))
    (tmp_path / "a.csv").write_text("when,c\n" + rows)
    (tmp_path / "b.csv").write_text("when,c\n2024-05-01 00:00:00,\n2024-05-01 00:30:00,-4\n")
    done = subprocess.run(
        command("replay", f"--mapping={tmp_path / 'map.toml'}", "--json", str(tmp_path)),
        env=environment(fleet_settings),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["distinct"], summary["devices"], summary["sent"]) == (25, 2, 29)
    assert summary["first_event"] == "2024-05-01T00:00:00+00:00"
    subscriber.wait_for(29)
    found = subscriber.decoded()
    assert all(message["backlog"] for message in found)
    assert sorted(
        (m["device_id"], m["timestamp"], m["sensors"]["temperature"])  # type: ignore[index]
        for m in found
    ) == [
        *(("re-a", 1_714_521_600 + 3600 * hour, hour + 0.5) for hour in range(24)),
        ("re-b", 1_714_523_400, -4.0),
    ]


def test_a_stack_that_is_down_is_reported_with_what_to_do(tmp_path: Path, free_port: int) -> None:
    settings = Settings(
        home=tmp_path, ota_url=f"http://127.0.0.1:{free_port}", admin_token=SecretStr("x")
    )
    with pytest.raises(ConfigurationError, match="zenthos up"):
        jobs.simulate(settings, HISTORY, quiet())
    nobody = settings.model_copy(update={"admin_token": SecretStr("")})
    with pytest.raises(ConfigurationError, match="ZENTHOS_ADMIN_TOKEN"):
        jobs.simulate(nobody, HISTORY, quiet())


def test_a_token_that_may_not_register_is_reported(fleet_settings: Settings) -> None:
    wrong = fleet_settings.model_copy(update={"admin_token": SecretStr("nonsense")})
    with pytest.raises(ConfigurationError, match=r"refused POST /farms \(401\)"):
        jobs.simulate(wrong, HISTORY, quiet())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (jobs.SimulateOptions(), "nothing to simulate"),
        (jobs.SimulateOptions(days=1, live=True, until=UNTIL), "--until is for a history alone"),
    ],
)
def test_options_that_ask_for_nothing_are_refused(
    options: jobs.SimulateOptions, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        jobs.plan_simulation(options, 1_795_000_000)


@pytest.mark.parametrize("text", ["0", "-1", "fast", "nan", "inf", ""])
def test_a_speed_is_a_factor_or_max(text: str) -> None:
    assert parse_speed("max") is None
    assert parse_speed("60x") == 60
    with pytest.raises(ConfigurationError, match="--speed"):
        parse_speed(text)


async def test_paced_readings_wait_for_their_time() -> None:
    now = 100.0
    pace = Pace(60, 1_000, stop := asyncio.Event(), clock=lambda: now)
    assert await pace.reach(1_000)
    waiting = asyncio.create_task(pace.reach(1_060))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    now = 101.0
    assert await pace.reach(1_060)
    stop.set()
    assert not await waiting
