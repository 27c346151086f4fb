"""Failures reach the log and a real HTTP server, and none is lost where that is away."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.servers import find_free_port
from zenthos_assets import alerts
from zenthos_assets.alerts import WebhookError, alert_on_failure, finished_runs
from zenthos_assets.automation import RANGE_END, RANGE_START
from zenthos_assets.partitions import DAILY, ONE_RUN
from zenthos_assets.resources import Platform

URL = "http://dagster.example:3000"
LATER = 10.0
"""Seconds by which the sensor's clock is ahead: events have settled."""


@dataclass
class Webhook:
    """A real HTTP server that answers as it is told."""

    url: str
    received: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Status codes of the next answers; 204 when there are none left."""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code = hook.answers.pop(0) if hook.answers else 204
            if code < 300:
                hook.received.append(body)
            self.send_response(code)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/secret")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hook
    server.shutdown()
    thread.join()
    server.server_close()


def day_asset(name: str, severity: dg.AssetCheckSeverity, *, blocking: bool) -> dg.AssetsDefinition:
    """A daily asset that materialises and whose check fails."""

    @dg.asset(
        name=name,
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        check_specs=[dg.AssetCheckSpec("sound", asset=name, blocking=blocking)],
    )
    def build() -> dg.MaterializeResult:  # type: ignore[type-arg]
        result = dg.AssetCheckResult(passed=False, severity=severity, description="3 are missing")
        return dg.MaterializeResult(check_results=[result])

    return build


@dg.asset(key=["silver", "broken"], partitions_def=DAILY, backfill_policy=ONE_RUN)
def broken() -> None:
    raise RuntimeError("cannot build") from ConnectionError("the store is away")


@dg.asset
def fine() -> None:
    pass


ASSETS = [
    broken,
    fine,
    day_asset("refused", dg.AssetCheckSeverity.ERROR, blocking=True),
    day_asset("doubtful", dg.AssetCheckSeverity.ERROR, blocking=False),
    day_asset("odd", dg.AssetCheckSeverity.WARN, blocking=False),
]


@dataclass
class Watched:
    """An instance with runs, and the sensor that watches them."""

    instance: dg.DagsterInstance
    platform: Platform
    cursor: str | None = None

    def run(
        self, asset: str, *, days: tuple[str, str] | None = ("2026-11-01", "2026-11-03")
    ) -> str:
        """Run a job over one asset; returns the run's id."""
        key = dg.AssetKey.from_user_string(asset)
        jobs = [dg.define_asset_job("daily", dg.AssetSelection.assets(key))]
        job = dg.Definitions(assets=ASSETS, jobs=jobs).resolve_job_def("daily")
        tags = dict(zip((RANGE_START, RANGE_END), days or (), strict=False))
        done = job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)
        return str(done.run_id)

    def tick(self) -> None:
        """Evaluate the sensor; like the daemon, keep its cursor only where it does not fail."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"platform": self.platform}
        )
        alert_on_failure(context)
        self.cursor = context.cursor


@pytest.fixture
def watched(tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """The sensor after its first tick. The wait for events to settle is left out."""
    monkeypatch.setattr(alerts, "SETTLE_S", -LATER)
    monkeypatch.delenv("ZENTHOS_ALERT_WEBHOOK_URL", raising=False)
    settings = {"ALERT_WEBHOOK_URL": webhook.url, "DAGSTER_URL": URL}
    lines = "".join(f"ZENTHOS_{name}={value}\n" for name, value in settings.items())
    (tmp_path / ".env").write_text(lines)
    with dg.DagsterInstance.ephemeral() as instance:
        made = Watched(instance, Platform(directory=str(tmp_path)))
        made.tick()
        yield made


def test_rule_1_a_failed_run_is_posted_with_step_reason_and_partitions(
    watched: Watched, webhook: Webhook
) -> None:
    run_id = watched.run("silver/broken")
    watched.tick()
    [alert] = webhook.received
    assert alert == {
        "event": "run_failed",
        "text": "daily failed at silver/broken (2026-11-01 to 2026-11-03): "
        f"ConnectionError: the store is away {URL}/runs/{run_id}",
        "job": "daily",
        "run_id": run_id,
        "url": f"{URL}/runs/{run_id}",
        "failed_step": "silver/broken",
        "reason": "ConnectionError: the store is away",
        "checks": [],
        "partitions": ["2026-11-01", "2026-11-03"],
    }
    watched.tick()
    assert len(webhook.received) == 1


def test_rule_1_a_blocking_check_that_failed_is_named(watched: Watched, webhook: Webhook) -> None:
    watched.run("refused")
    watched.tick()
    [alert] = webhook.received
    assert (alert["event"], alert["checks"]) == ("run_failed", ["refused: sound"])
    assert alert["reason"] == "sound: 3 are missing"


def test_rule_2_a_check_that_failed_in_a_run_that_succeeded_is_posted(
    watched: Watched, webhook: Webhook
) -> None:
    for asset in ("doubtful", "odd"):
        watched.run(asset)
    watched.run("fine", days=None)
    watched.tick()
    [alert] = webhook.received
    assert (alert["event"], alert["failed_step"]) == ("check_failed", None)
    assert alert["text"].startswith("daily succeeded, but a check did not (2026-11-01 to 20")


def test_rule_3_an_alert_that_cannot_be_posted_fails_the_tick_and_is_posted_by_the_next(
    watched: Watched, webhook: Webhook
) -> None:
    webhook.answers = [500] * alerts.WEBHOOK_ATTEMPTS
    run_id = watched.run("silver/broken")
    with pytest.raises(WebhookError, match=f"127.0.0.1 did not take .* {run_id}: it answers 500"):
        watched.tick()
    assert webhook.received == []
    watched.tick()
    assert [alert["run_id"] for alert in webhook.received] == [run_id]


def test_rule_3_a_webhook_that_stumbles_once_is_asked_again(
    watched: Watched, webhook: Webhook
) -> None:
    webhook.answers = [503]
    watched.run("silver/broken")
    watched.tick()
    assert len(webhook.received) == 1


def test_rule_3_it_is_logged_first_and_the_secret_of_the_webhook_is_not(
    watched: Watched, webhook: Webhook, capfd: pytest.CaptureFixture[str]
) -> None:
    file = Path(str(watched.platform.directory)) / ".env"
    port = find_free_port()
    file.write_text(file.read_text().replace(webhook.url, f"http://127.0.0.1:{port}/secret"))
    run_id = watched.run("silver/broken")
    capfd.readouterr()
    with pytest.raises(WebhookError) as refused:
        watched.tick()
    assert "secret" not in str(refused.value)
    logged = next(line for line in capfd.readouterr().err.splitlines() if '"event"' in line)
    assert "ERROR" in logged
    assert json.loads(logged[logged.index("{") :])["run_id"] == run_id


def test_rule_4_what_ended_before_the_first_tick_is_not_posted(
    watched: Watched, webhook: Webhook
) -> None:
    watched.run("silver/broken")
    watched.cursor = None
    watched.tick()
    watched.tick()
    assert webhook.received == []


def test_without_a_webhook_it_is_logged(watched: Watched, webhook: Webhook) -> None:
    (Path(str(watched.platform.directory)) / ".env").write_text("")
    watched.run("silver/broken")
    watched.tick()
    assert webhook.received == []


def test_events_that_may_not_have_settled_wait(watched: Watched) -> None:
    watched.run("silver/broken")
    assert finished_runs(watched.instance, 0, time.time() - LATER)[0] == []
    runs, last = finished_runs(watched.instance, 0, time.time() + LATER)
    assert len(runs) == 1
    assert finished_runs(watched.instance, last, time.time() + LATER) == ([], last)


def test_runs_are_named_by_their_assets_where_they_have_no_job() -> None:
    key = dg.AssetKey(["gold", "telemetry_daily"])
    tags = {"dagster/partition": "2026-11-01"}
    run = dg.DagsterRun("__ASSET_JOB", asset_selection=frozenset([key]), tags=tags)
    assert alerts.job_name(run) == "gold/telemetry_daily"
    assert alerts.partitions_of(run) == ("2026-11-01",)
