"""What Dagster and Postgres add: runs of the daily job in process, on a Postgres of their own.

1. Overhead: silver and gold (rollups, features) of one small day, the time of the whole run less
   that of the builds in it, which etl_runs tells. The median of some days; the first one, which
   imports what the others find loaded, is told apart.
2. Backfill: thirty days of the recorded Kings Creek stations, all of the daily job, as one run.
3. Dagster keeps its events in the same Postgres, as in the stack.
"""

import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final

import dagster as dg
import msgspec
import polars as pl
import psycopg

from bench.archive import RECORDINGS, arrivals_in_turn, recorded
from bench.database import connect
from bench.etl_day import DAY, MODEL, Fleet, receipts
from bench.process import BenchError
from bench.servers import Server, free_port
from zenthos_assets.automation import RANGE_END, RANGE_START
from zenthos_assets.definitions import build_definitions
from zenthos_assets.launch import ARCHIVE, DAILY
from zenthos_assets.resources import Platform
from zenthos_cli.stack import postgres
from zenthos_core.database import Database, migrate
from zenthos_core.messages import Telemetry, parse_payload
from zenthos_core.topics import MessageType

DEVICES: Final = 10
DAYS: Final = 3
BACKFILL_DAYS: Final = 30
BACKFILL_END: Final = date(2024, 7, 31)
_BUILT: Final = ["silver/telemetry_cleaned", "gold/telemetry_hourly", "gold/telemetry_daily"]
_FEATURES: Final = "gold/ml_features"
_DATABASES: Final = ("ops", "analytics", "dagster")


@dataclass(frozen=True)
class LineageResult:
    """Seconds. `partition_s` is a run of one day, `build_s` the builds in it."""

    partition_s: float
    partition_cpu_s: float
    """Of the process, builds included, Postgres not."""
    build_s: float
    overhead_s: float
    first_partition_s: float
    partition_rows: int
    backfill_s: float | None
    """None where there are no recordings."""
    backfill_rows: int
    backfill_days: int


@dataclass(frozen=True)
class _Lineage:
    platform: Platform
    instance: dg.DagsterInstance
    ops: psycopg.Connection
    analytics: psycopg.Connection

    def run(self, job: str, first: str, last: str, selection: Sequence[str] = ()) -> float:
        """Seconds of a run; BenchError where it fails."""
        definition = build_definitions(self.platform).resolve_job_def(job)
        begin = time.perf_counter()
        result = definition.execute_in_process(
            instance=self.instance,
            tags={RANGE_START: first, RANGE_END: last},
            asset_selection=[dg.AssetKey(name.split("/")) for name in selection] or None,
            raise_on_error=False,
        )
        if not result.success:
            raise BenchError(f"the run of {job} from {first} to {last} failed: see its log above")
        return time.perf_counter() - begin

    def build_s(self, day: date) -> float:
        """What the newest builds of a day took."""
        query = (
            "SELECT sum(duration_s) FROM (SELECT DISTINCT ON (asset) duration_s FROM etl_runs"
            " WHERE partition = %s AND asset = ANY(%s) ORDER BY asset, id DESC) newest"
        )
        row = self.analytics.execute(query, [str(day), [*_BUILT, _FEATURES]]).fetchone()
        return float(row[0]) if row else 0.0

    def register(self, device_ids: Sequence[str], model: str) -> None:
        """Devices of one farm."""
        self.ops.execute("INSERT INTO farms (name) VALUES ('bench') ON CONFLICT DO NOTHING")
        self.ops.execute(
            "INSERT INTO devices (id, farm_id, device_model, device_type, latitude, longitude)"
            " SELECT device, farms.id, %s, 'soil', 39.1, -96.6"
            " FROM farms, unnest(%s::text[]) device",
            [model, list(device_ids)],
        )

    def receive(self, messages: pl.DataFrame) -> None:
        """Put rows of the outbox where ingest puts them, and archive them."""
        hours = messages["received_at"].dt.truncate("1h").unique().sort()
        for hour in hours:
            self.ops.execute(
                f"CREATE TABLE IF NOT EXISTS raw_messages_{hour:%Y%m%d%H} PARTITION OF"
                f" raw_messages FOR VALUES FROM ('{hour}') TO ('{hour + timedelta(hours=1)}')"
            )
        copy_in = "COPY raw_messages (message_type, topic, payload, received_at, qos) FROM STDIN"
        rows = messages.select("topic", "payload", "received_at").iter_rows()
        with self.ops.cursor() as cursor, cursor.copy(copy_in) as copy:
            for row in rows:
                copy.write_row((MessageType.TELEMETRY, *row, 1))
        keys = [f"{hour:%Y-%m-%d-%H:00}" for hour in hours]
        self.run(ARCHIVE, keys[0], keys[-1])


def run_lineage_bench(recordings: Path = RECORDINGS) -> LineageResult:
    """Measure the overhead of a partition, and the backfill where there are recordings.

    Raises:
        ConfigurationError: Postgres does not start.
        BenchError: a run failed.
    """
    with _lineage() as lineage:
        fleet = Fleet(DEVICES)
        lineage.register(fleet.ids(), MODEL)
        messages = pl.concat([rows for _, rows in receipts(fleet)])
        lineage.receive(messages)
        spent, used, built = [], [], []
        for _ in range(DAYS + 1):
            lineage.analytics.execute("DELETE FROM etl_runs")  # so that it is built again
            before = time.process_time()
            spent.append(lineage.run(DAILY, str(DAY), str(DAY), [*_BUILT, _FEATURES]))
            used.append(time.process_time() - before)
            built.append(lineage.build_s(DAY))
        overheads = [run_s - build_s for run_s, build_s in zip(spent, built, strict=True)]
        backfill_s, rows = _backfill(lineage, recordings) if recordings.is_dir() else (None, 0)
    return LineageResult(
        partition_s=round(median(spent[1:]), 3),
        partition_cpu_s=round(median(used[1:]), 3),
        build_s=round(median(built[1:]), 3),
        overhead_s=round(median(overheads[1:]), 3),
        first_partition_s=round(spent[0], 3),
        partition_rows=len(messages),
        backfill_s=backfill_s,
        backfill_rows=rows,
        backfill_days=BACKFILL_DAYS,
    )


def _backfill(lineage: _Lineage, recordings: Path) -> tuple[float, int]:
    """Seconds, and the readings of those days."""
    first = BACKFILL_END - timedelta(days=BACKFILL_DAYS - 1)
    chosen, devices = [], set()
    for message in recorded(recordings):
        if message.topic.rsplit("/", 1)[1] != MessageType.TELEMETRY:
            continue
        reading = parse_payload(MessageType.TELEMETRY, message.payload)
        if not isinstance(reading, Telemetry) or reading.timestamp is None:
            continue
        if first <= datetime.fromtimestamp(reading.timestamp, UTC).date() <= BACKFILL_END:
            chosen.append(message)
            devices.add(reading.device_id)
    lineage.register(sorted(devices), MODEL)
    lineage.receive(arrivals_in_turn(chosen))
    seconds = lineage.run(DAILY, str(first), str(BACKFILL_END))
    return round(seconds, 3), len(chosen)


@contextmanager
def _lineage() -> Iterator[_Lineage]:
    """A platform, and a Dagster instance, on a Postgres that is removed at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zenthos-bench-")))
        cluster = postgres.PostgresCluster(folder / "postgres", free_port(), secrets.token_hex(8))
        cluster.initialise()
        server = Server(
            "postgres",
            cluster.command(),
            folder,
            is_ready=cluster.accepts_connections,
            stop_signal=postgres.STOP_SIGNAL,
        )
        stack.callback(server.stop)
        server.start()
        cluster.create_databases(_DATABASES)
        ops, analytics, dagster = map(cluster.url, _DATABASES)
        migrate(ops, Database.OPS)
        migrate(analytics, Database.ANALYTICS)
        settings = {"DATABASE_URL": ops, "ANALYTICS_DATABASE_URL": analytics}
        settings["BLOB_URL"] = (folder / "blobs").as_uri()
        file = folder / ".env"
        file.write_text("".join(f"ZENTHOS_{name}={value}\n" for name, value in settings.items()))
        yield _Lineage(
            Platform(directory=str(folder)),
            stack.enter_context(_instance(folder, dagster)),
            stack.enter_context(connect(ops)),
            stack.enter_context(connect(analytics)),
        )


@contextmanager
def _instance(folder: Path, url: str) -> Iterator[dg.DagsterInstance]:
    storage = {"module": "zenthos_assets.storage", "class": "PooledPostgresStorage"}
    config = {
        "storage": {"custom": {**storage, "config": {"postgres_url": url}}},
        "telemetry": {"enabled": False},
        "python_logs": {"python_log_level": "WARNING"},
    }
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_bytes(msgspec.json.encode(config))  # JSON is YAML
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance
