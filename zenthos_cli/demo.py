"""The main job, once, on one machine: stream readings, run the lineage, fetch the signed model."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import psycopg
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from zenthos_assets import launch
from zenthos_cli.device import FetchedRelease, fetch_model
from zenthos_cli.fleet import jobs
from zenthos_cli.fleet.faults import FaultRates
from zenthos_cli.fleet.summary import Summary as FleetSummary
from zenthos_core import database, tokens
from zenthos_core.errors import ZenthosError
from zenthos_core.ledger import Ledger, read_ledger
from zenthos_core.settings import Settings
from zenthos_core.signing import read_key

MODEL: Final = "irrigation"
SETTLE_S: Final = 120.0
"""Longest wait without progress for ingest to store what was sent."""


Stream = Callable[[], FleetSummary]
"""Sends the readings and counts what the broker acknowledged."""


class Summary(msgspec.Struct, frozen=True):
    """What `.zenthos/demo.json` holds. `seconds` runs from the first message to the release."""

    sent: int
    stored: int
    duplicate: int
    quarantined: int
    rate_limited: int
    lost: int
    partitions: int
    model_version: str
    model_auc: float
    baseline_auc: float
    release_counter: int
    release_verified: bool
    seconds: float


def simulated_fleet(settings: Settings, console: Console, devices: int, days: int) -> Stream:
    """Readings every hour up to last midnight, with the faults of a real fleet.

    The same day gives the same farm and the same message ids: a second demo is recognised.
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    options = jobs.SimulateOptions(
        devices=devices,
        days=days,
        interval_s=3600,
        until=midnight,
        farm=f"Demo {midnight:%Y-%m-%d}",
        faults=FaultRates(
            outages_per_day=0.02, duplicate=0.005, out_of_order=0.005, malformed=0.0005
        ),
    )
    return lambda: jobs.simulate(settings, options, console)


def recorded_fleet(
    settings: Settings, console: Console, recordings: list[Path], mapping: Path
) -> Stream:
    """Readings as they were recorded, as fast as possible."""
    options = jobs.ReplayOptions(inputs=tuple(recordings), mapping=mapping)
    return lambda: jobs.replay(settings, options, console)


def run_demo(settings: Settings, stream: Stream, console: Console) -> Summary:
    """Run the job on a stack that is up.

    Raises:
        ZenthosError: naming the step that failed and where to look.
    """
    with _operational_database(settings) as ops:
        before, started = read_ledger(ops), time.monotonic()
        streamed = stream()
        if streamed.interrupted:
            raise KeyboardInterrupt
        with _progress(console) as progress:
            counted = wait_until_stored(ops, before, streamed.sent, progress)
            partitions = build(settings, ops, progress)
        release = fetch(settings, streamed)
    seconds = time.monotonic() - started
    return summarise(streamed, counted, partitions, release, seconds)


@contextmanager
def _operational_database(settings: Settings) -> Iterator[psycopg.Connection]:
    """A connection; one that fails or is lost is an error that says so."""
    url = settings.database_url.get_secret_value()
    try:
        with database.connect(url, application="demo", autocommit=True) as ops:
            yield ops
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        raise ZenthosError(f"the operational database fails: {reason}") from None


def wait_until_stored(
    ops: psycopg.Connection, before: Ledger, sent: int, progress: Progress
) -> Ledger:
    """Follow ingest until it has counted everything sent, or nothing more comes."""
    task = progress.add_task("ingest: committing", total=sent)
    counted, changed = read_ledger(ops).minus(before), time.monotonic()
    while counted.received < sent and time.monotonic() - changed < SETTLE_S:
        time.sleep(0.2)
        latest = read_ledger(ops).minus(before)
        if latest != counted:
            counted, changed = latest, time.monotonic()
        progress.update(task, completed=counted.received)
    progress.update(task, completed=counted.received)
    return counted


def build(settings: Settings, ops: psycopg.Connection, progress: Progress) -> int:
    """Run the lineage on what has arrived; returns how many partitions were built."""
    began = datetime.now(UTC)
    hours = _outbox_hours(ops)
    run = partial(_run, settings.dagster_url, progress)
    if hours:
        run("bronze: archiving", launch.ARCHIVE, [f"{hour:%Y-%m-%d-%H:00}" for hour in hours])
    days = _archived_days(ops, began)
    if days:
        run("silver, gold: building", launch.DAILY, [f"{day:%Y-%m-%d}" for day in days])
    run("model: training, signing", launch.TRAIN_AND_RELEASE, [])
    return len(hours) + len(days)


def fetch(settings: Settings, streamed: FleetSummary) -> FetchedRelease:
    """As the device does it: metadata, signature, Range download, digest."""
    device_id = streamed.device_ids[0]
    token = tokens.issue(
        tokens.read_pem(settings.token_private_key_file),
        device_id,
        tokens.Role.DEVICE,
        now=time.time(),
        valid_s=600,
        scopes=["read"],
    )
    return fetch_model(
        settings.ota_url,
        token,
        device_id,
        streamed.device_model,
        MODEL,
        read_key(settings.root_public_key_file),
        settings.home / "devices" / device_id,
    )


def summarise(
    streamed: FleetSummary,
    counted: Ledger,
    partitions: int,
    release: FetchedRelease,
    seconds: float,
) -> Summary:
    """Put it together; the scores are those that the device found in the signed manifest."""
    return Summary(
        sent=streamed.sent,
        stored=counted.stored,
        duplicate=counted.duplicate,
        quarantined=counted.quarantined,
        rate_limited=counted.rate_limited,
        lost=max(0, streamed.sent - counted.received),
        partitions=partitions,
        model_version=release.version,
        model_auc=release.metrics["auc"],
        baseline_auc=release.metrics["baseline_auc"],
        release_counter=release.release_counter,
        release_verified=True,
        seconds=round(seconds, 1),
    )


def write_summary(summary: Summary, path: Path) -> None:
    """Write it as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(summary)) + b"\n")


def summary_table(summary: Summary) -> Table:
    """What a person wants to know of it."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    rows = {
        "messages sent": f"{summary.sent:,}",
        "  stored": f"{summary.stored:,}",
        "  duplicate": f"{summary.duplicate:,}",
        "  quarantined": f"{summary.quarantined:,}",
        "  rate limited": f"{summary.rate_limited:,}",
        "  lost": f"[{'red' if summary.lost else 'green'}]{summary.lost:,}[/]",
        "partitions built": f"{summary.partitions:,}",
        "held-out AUC": f"{summary.model_auc:.3f} (7-day-mean baseline {summary.baseline_auc:.3f})",
        "signed release": f"{summary.model_version}, counter {summary.release_counter}: "
        "fetched and verified by a device",
        "first message to release": f"{summary.seconds:.0f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _outbox_hours(ops: psycopg.Connection) -> list[datetime]:
    """Hours of receipt, from the first that waits for its archive to the last."""
    rows = ops.execute(
        "SELECT generate_series(date_trunc('hour', min(received_at)), max(received_at), '1 hour')"
        " FROM raw_messages"
    )
    return [hour for (hour,) in rows]


def _archived_days(ops: psycopg.Connection, since: datetime) -> list[date]:
    """Days from the first to the last reading archived since a moment."""
    rows = ops.execute(
        "SELECT generate_series(min(day), max(day), '1 day')::date"
        " FROM bronze_days JOIN bronze_objects USING (object_key)"
        " WHERE archived_at >= %s AND table_name = 'telemetry'",
        (since,),
    )
    return [day for (day,) in rows]


def _run(dagster_url: str, progress: Progress, label: str, job: str, keys: list[str]) -> None:
    """Launch a job over a range of partition keys and follow it to its end."""
    task = progress.add_task(label, total=None)

    def follow(run: launch.RunStatus) -> None:
        total = run.steps * max(1, len(keys)) or None
        progress.update(task, total=total, completed=run.partitions_built)

    partition_range = (keys[0], keys[-1]) if keys else None
    launch.wait(
        dagster_url, launch.launch(dagster_url, job, partition_range=partition_range), follow
    )
    progress.update(task, total=1, completed=1)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )
