"""Jobs started and followed on a real Dagster webserver."""

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.servers import PostgresServer, find_free_port
from tests.zenthos_assets.dagster_server import ask, running_dagster
from zenthos_assets import launch
from zenthos_assets.definitions import defs
from zenthos_core.errors import NotFoundError

pytestmark = pytest.mark.e2e


@pytest.fixture
def dagster_url(
    postgres: PostgresServer, ops_url: str, analytics_url: str, tmp_path: Path
) -> Iterator[str]:
    """`dagster dev`'s parts on the project's own dagster.yaml and workspace."""
    database = f"dagster_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}")
    environment = {
        "ZENTHOS_DAGSTER_DATABASE_URL": postgres.url(database),
        "ZENTHOS_DATABASE_URL": ops_url,
        "ZENTHOS_ANALYTICS_DATABASE_URL": analytics_url,
        "ZENTHOS_BLOB_URL": (tmp_path / "blobs").as_uri(),
    }
    with running_dagster(tmp_path, environment, ["-w", "workspace.yaml"]) as url:
        yield url


def test_a_range_is_built_in_one_run(dagster_url: str) -> None:
    run_id = launch.launch(dagster_url, "daily", partition_range=("2026-11-01", "2026-11-03"))
    seen: list[launch.RunStatus] = []
    done = launch.wait(dagster_url, run_id, seen.append, timeout_s=180)
    graph = defs().resolve_asset_graph()
    built = [
        graph.get(key)
        for key in graph.materializable_asset_keys
        if graph.get(key).group_name in ("silver", "gold")
    ]
    partitions = sum(3 if node.is_partitioned else 1 for node in built)
    assert (done.status, done.partitions_built) == ("SUCCESS", partitions)
    assert done.steps_done == done.steps
    assert seen[-1] == done


BACKFILL = """
mutation ($backfill: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $backfill) {
  __typename
  ... on LaunchBackfillSuccess { backfillId }
  ... on PythonError { message }
} }"""
BACKFILL_STATUS = """
query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status runs(limit: 5) { status } }
} }"""


def test_a_date_range_up_to_today_is_backfilled_as_the_ui_does(dagster_url: str) -> None:
    today = datetime.now(UTC).date()
    assets = ("silver/telemetry_cleaned", "gold/telemetry_hourly", "gold/telemetry_daily")
    backfill = {
        "assetSelection": [{"path": asset.split("/")} for asset in assets],
        "partitionNames": [str(today - timedelta(days=back)) for back in (2, 1, 0)],
        "tags": [],
    }
    launched = ask(dagster_url, BACKFILL, backfill=backfill)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    deadline = time.monotonic() + 240
    status: dict[str, Any] = {}
    while time.monotonic() < deadline and not status.get("status", "").startswith("COMPLETED"):
        time.sleep(1)
        found = ask(dagster_url, BACKFILL_STATUS, id=launched["backfillId"])
        status = found["partitionBackfillOrError"]
    assert status == {"status": "COMPLETED_SUCCESS", "runs": [{"status": "SUCCESS"}]}


def test_failures_say_where_to_look(dagster_url: str) -> None:
    with pytest.raises(NotFoundError, match="no job"):
        launch.launch(dagster_url, "unheard_of")
    run_id = launch.launch(dagster_url, "train_and_release")
    with pytest.raises(launch.RunFailedError) as failed:
        launch.wait(dagster_url, run_id, timeout_s=180)
    what, where = str(failed.value).splitlines()
    assert what.startswith("run ended FAILURE (ml/training_set): ")
    assert "TrainingError: 0 devices with features" in what
    assert where == f"see {dagster_url}/runs/{run_id}"


def test_a_webserver_that_is_away_is_an_error_of_one_line() -> None:
    with pytest.raises(launch.RunFailedError, match="cannot reach Dagster at http"):
        launch.launch(f"http://127.0.0.1:{find_free_port()}", "daily")
