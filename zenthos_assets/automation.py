"""Jobs, schedules and the sensor that watches the stream. No computation belongs here."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Final

import dagster as dg
import psycopg

from ml.features import MAX_DAYS_SINCE
from zenthos_assets.bronze.assets import MQTT_STREAM
from zenthos_assets.parquet import day_range
from zenthos_assets.partitions import ranges_of
from zenthos_assets.resources import Platform
from zenthos_core.ledger import read_ledger
from zenthos_core.topics import MessageType

RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"
LONGEST_ARCHIVE: Final = timedelta(hours=1)
"""Objects are dated by the start of their transaction and seen from its commit."""
MAX_RANGES: Final = 12
"""More scattered days than this are built as one range."""

ARCHIVE_JOB = dg.define_asset_job(
    "archive",
    dg.AssetSelection.groups("bronze"),
    description="Outbox to bronze, for a range of hours of receipt.",
)
DAILY_JOB = dg.define_asset_job(
    "daily",
    dg.AssetSelection.groups("silver", "gold"),
    description="Bronze to silver, rollups and features, for a range of days.",
)
TRAIN_JOB = dg.define_asset_job(
    "train_and_release",
    dg.AssetSelection.groups("ml", "release"),
    description="Training set, model, INT8 model and, if it beats the baseline, its release.",
)
JOBS: Final = [ARCHIVE_JOB, DAILY_JOB, TRAIN_JOB]


@dg.schedule(
    name="hourly_archive",
    job=ARCHIVE_JOB,
    cron_schedule="5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Archives the past hour, and any earlier one that still has messages.",
)
def hourly_archive(
    context: dg.ScheduleEvaluationContext, platform: Platform
) -> Iterator[dg.RunRequest]:
    last = context.scheduled_execution_time.replace(minute=0) - timedelta(hours=1)
    with platform.ops() as connection:
        first = min(oldest_waiting_hour(connection) or last, last)
    yield _range_request(f"{first:%Y-%m-%d-%H:%M}", f"{last:%Y-%m-%d-%H:%M}", f"{last:%Y%m%dT%H}")


@dg.schedule(
    name="daily_build",
    job=DAILY_JOB,
    cron_schedule="0 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Builds yesterday, and every day that late readings or their windows touch.",
)
def daily_build(
    context: dg.ScheduleEvaluationContext, platform: Platform
) -> Iterator[dg.RunRequest]:
    now = context.scheduled_execution_time
    with platform.ops() as connection:
        touched = touched_days(connection, now - timedelta(days=1) - LONGEST_ARCHIVE)
    for first, last in days_to_build(touched, now.date() - timedelta(days=1)):
        yield _range_request(str(first), str(last), f"{now:%Y%m%d}:{first}")


weekly_retrain = dg.ScheduleDefinition(
    name="weekly_retrain",
    job=TRAIN_JOB,
    cron_schedule="0 4 * * 1",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Retrains on Mondays; only a model that beats the baseline is released.",
)


@dg.sensor(
    name="stream_totals",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Observes the MQTT stream: messages so far, by what became of them.",
)
def stream_totals(
    context: dg.SensorEvaluationContext, platform: Platform
) -> dg.SensorResult | dg.SkipReason:
    with platform.ops() as connection:
        totals = read_ledger(connection)
    cursor = str(totals.received)
    if cursor == (context.cursor or "0"):
        return dg.SkipReason("no message since the last observation")
    observation = dg.AssetObservation(
        asset_key=MQTT_STREAM.key, metadata={"received": totals.received} | asdict(totals)
    )
    return dg.SensorResult(asset_events=[observation], cursor=cursor)


def oldest_waiting_hour(connection: psycopg.Connection) -> datetime | None:
    """The oldest hour that the outbox still holds messages of."""
    row = connection.execute(
        "SELECT date_trunc('hour', min(received_at)) FROM raw_messages"
    ).fetchone()
    return row[0] if row else None


def touched_days(connection: psycopg.Connection, since: datetime) -> list[date]:
    """Days that readings archived since then are about."""
    rows = connection.execute(
        "SELECT DISTINCT day FROM bronze_days JOIN bronze_objects USING (object_key)"
        " WHERE table_name = %s AND archived_at >= %s",
        [MessageType.TELEMETRY, since],
    ).fetchall()
    return [day for (day,) in rows]


def days_to_build(touched: Iterable[date], yesterday: date) -> list[tuple[date, date]]:
    """Ranges of days whose partitions change: the touched ones and those whose windows see them."""
    seen = (day_range(day, min(day + timedelta(days=MAX_DAYS_SINCE), yesterday)) for day in touched)
    ranges = ranges_of([yesterday, *chain.from_iterable(seen)])
    return ranges if len(ranges) <= MAX_RANGES else [(ranges[0][0], ranges[-1][1])]


def _range_request(first: str, last: str, run_key: str) -> dg.RunRequest:
    return dg.RunRequest(run_key=run_key, tags={RANGE_START: first, RANGE_END: last})


SCHEDULES: Final = [hourly_archive, daily_build, weekly_retrain]
SENSORS: Final = [stream_totals]
