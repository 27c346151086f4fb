"""What a real daemon does by itself: late data, healing, pools, alerts."""

import json
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.servers import PostgresServer
from tests.zenthos_assets import standin
from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from tests.zenthos_assets.dagster_server import ask, eventually, running_dagster
from zenthos_assets import launch

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.timeout(1200)]

PATIENCE_S = 500
FIRST, LAST = "2026-11-01", "2026-11-20"
LATE = "2026-11-18"
HOUR = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%d-%H:00}"

TICKS = """
query ($location: String!) {
  sensorsOrError(repositorySelector: {repositoryName: "__repository__",
      repositoryLocationName: $location}) {
    ... on Sensors { results { name sensorState { status ticks(limit: 1) { status } } } }
} }"""
STANDIN = "tests.zenthos_assets.standin"
WATCHING = ("late_data_and_healing", "alert_on_failure")
RUNS = """
{ runsOrError { ... on Runs { results { runId status jobName } } } }"""


@dataclass
class Lineage:
    """A running stand-in lineage."""

    url: str
    folder: Path
    alerts: list[dict[str, Any]]

    def build(self) -> None:
        """Build some weeks, as a backfill does."""
        run_id = launch.launch(self.url, launch.DAILY, partition_range=(FIRST, LAST))
        launch.wait(self.url, run_id, timeout_s=PATIENCE_S)

    def archive(self, *days: str) -> None:
        """Archive an hour that holds readings of those days."""
        (self.folder / "days").write_text(" ".join(days))
        run_id = launch.launch(self.url, launch.ARCHIVE, partition_range=(HOUR, HOUR))
        launch.wait(self.url, run_id, timeout_s=PATIENCE_S)

    def builds(self) -> dict[str, list[tuple[str, str]]]:
        """First and last day of each build, by asset."""
        found = defaultdict(list)
        for line in (self.folder / "builds").read_text().splitlines():
            asset, first, last, _ = line.split()
            found[asset].append((first, last))
        return found


def sensors_ticked(dagster_url: str, location: str) -> bool:
    """Whether the sensors run, as by default, and have looked once: they notice what comes."""
    sensors = ask(dagster_url, TICKS, location=location)["sensorsOrError"].get("results", [])
    states = [s["sensorState"] for s in sensors if s["name"] in WATCHING]
    return len(states) == len(WATCHING) and all(
        s["status"] == "RUNNING" and s["ticks"] and s["ticks"][0]["status"] != "STARTED"
        for s in states
    )


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """URL of a real HTTP server, and the JSON it was sent."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dagster_database(postgres: PostgresServer) -> str:
    """URL of an empty database for an instance."""
    name = f"dagster_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.url(name)


@pytest.fixture
def lineage(
    dagster_database: str, tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]]
) -> Iterator[Lineage]:
    """The stand-in lineage on a webserver and a daemon, with everything on as by default."""
    environment = {
        "ZENTHOS_DAGSTER_DATABASE_URL": dagster_database,
        "ZENTHOS_ALERT_WEBHOOK_URL": webhook[0],
        standin.FOLDER: str(tmp_path),
    }
    with running_dagster(tmp_path, environment, ["-m", STANDIN]) as url:
        made = Lineage(url, tmp_path, webhook[1])
        eventually(lambda: sensors_ticked(url, STANDIN), PATIENCE_S, "both sensors have looked")
        yield made


def test_a_late_day_is_rebuilt_by_itself_and_a_failed_one_is_healed(lineage: Lineage) -> None:
    lineage.build()
    lineage.archive(LATE)
    late = (LATE, LATE)
    rebuilt = {"silver/telemetry_cleaned": late, "gold/telemetry_hourly": late}
    rebuilt |= {"gold/telemetry_daily": late, "gold/ml_features": (LATE, LAST)}
    eventually(
        lambda: all(days in lineage.builds()[asset] for asset, days in rebuilt.items()),
        PATIENCE_S,
        "the late day and the windows that see it are built",
    )
    (lineage.folder / "fail").touch()
    run_id = launch.launch(lineage.url, launch.DAILY, partition_range=("2026-10-01", "2026-10-01"))
    with pytest.raises(launch.RunFailedError):
        launch.wait(lineage.url, run_id, timeout_s=PATIENCE_S)
    (lineage.folder / "fail").unlink()
    failed = ("2026-10-01", "2026-10-01")
    eventually(
        lambda: failed in lineage.builds()["gold/ml_features"],
        PATIENCE_S,
        "the day that failed is built to its end",
    )
    eventually(
        lambda: [a for a in lineage.alerts if a["run_id"] == run_id],
        PATIENCE_S,
        "an alert is posted",
    )


def test_an_archive_does_not_wait_for_a_long_build_but_another_build_does(
    lineage: Lineage,
) -> None:
    (lineage.folder / "hold").touch()
    held = launch.launch(lineage.url, launch.DAILY, partition_range=(FIRST, LAST))
    eventually(
        lambda: (lineage.folder / "builds").exists() and lineage.builds()["gold/ml_features"],
        PATIENCE_S,
        "the build is under way",
    )
    second = launch.launch(lineage.url, launch.DAILY, partition_range=(LATE, LATE))
    lineage.archive(LATE)
    statuses = {r["runId"]: r["status"] for r in ask(lineage.url, RUNS)["runsOrError"]["results"]}
    assert (statuses[held], statuses[second]) == ("STARTED", "QUEUED")
    (lineage.folder / "hold").unlink()
    launch.wait(lineage.url, second, timeout_s=PATIENCE_S)


def test_one_late_reading_rebuilds_its_day_in_the_real_lineage(
    farmyard: Farmyard, dagster_database: str, tmp_path: Path
) -> None:
    environment = {
        "ZENTHOS_DAGSTER_DATABASE_URL": dagster_database,
        "ZENTHOS_DATABASE_URL": farmyard.ops_url,
        "ZENTHOS_ANALYTICS_DATABASE_URL": farmyard.analytics_url,
        "ZENTHOS_BLOB_URL": farmyard.store.root.as_uri(),
    }
    begin = datetime(2026, 11, 10, tzinfo=UTC)
    farmyard.receive(reading("soil-1", begin + timedelta(hours=hour)) for hour in range(72))
    with running_dagster(tmp_path, environment, ["-w", "workspace.yaml"]) as url:

        def run(job: str, first: str, last: str) -> None:
            run_id = launch.launch(url, job, partition_range=(first, last))
            launch.wait(url, run_id, timeout_s=PATIENCE_S)

        def builds(asset: str, day: str) -> int:
            query = f"SELECT count(*) FROM etl_runs WHERE asset = '{asset}' AND partition = '{day}'"
            return int(farmyard.query_analytics(query)[0][0])

        run(launch.ARCHIVE, HOUR_KEY, HOUR_KEY)
        run(launch.DAILY, "2026-11-10", "2026-11-12")
        eventually(lambda: sensors_ticked(url, "zenthos"), PATIENCE_S, "both sensors have looked")
        farmyard.receive([reading("soil-1", begin + timedelta(hours=30), 1)], at=RECEIVED)
        run(launch.ARCHIVE, HOUR_KEY, HOUR_KEY)
        eventually(
            lambda: builds("gold/ml_features", "2026-11-12") == 2,
            PATIENCE_S,
            "the features of the last day, whose window sees the reading",
        )
    silver = [builds("silver/telemetry_cleaned", f"2026-11-{day}") for day in (10, 11, 12)]
    assert silver == [1, 2, 1]
