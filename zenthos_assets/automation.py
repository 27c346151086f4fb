"""Jobs, schedules and sensors; all that runs by itself. No computation belongs here.

1. What is due by the clock, a schedule starts: hours, days, weeks.
2. What is due because something changed or failed, `late_data_and_healing` starts, by the rules of
   conditions.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Final

import dagster as dg
import psycopg

from ml.features import MAX_DAYS_SINCE
from zenthos_assets.alerts import alert_on_failure
from zenthos_assets.bronze.assets import MQTT_STREAM
from zenthos_assets.fleet_alerts import fleet_alerts
from zenthos_assets.parquet import day_range
from zenthos_assets.partitions import ranges_of
from zenthos_assets.resources import Platform
from zenthos_assets.rollouts.sensor import rollouts
from zenthos_assets.silver.checks import freshness
from zenthos_core.ledger import read_ledger
from zenthos_core.topics import MessageType

RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"
LONGEST_ARCHIVE: Final = timedelta(hours=1)
"""Objects are dated by the start of their transaction and seen from its commit."""
MAX_RANGES: Final = 12
"""More scattered days than this are built as one range."""

FIRST_BUILT: Final = "silver/telemetry_cleaned"
LAST_BUILT: Final = "gold/ml_features"
"""A day that either of them has never built is not built, whatever became of the other."""
FRESHNESS: Final = dg.AssetSelection.checks(freshness)
"""Asked every hour: a build that is missing cannot ask for itself."""

ARCHIVE_JOB = dg.define_asset_job(
    "archive",
    dg.AssetSelection.groups("bronze") | FRESHNESS,
    description="Moves messages from the outbox to the lake, for a range of hours of receipt.",
)
DAILY_JOB = dg.define_asset_job(
    "daily",
    dg.AssetSelection.groups("silver", "silver_shards", "gold") - FRESHNESS,
    description="Cleans readings, rolls them up and computes features, for a range of days.",
)
WEEKLY_JOB = dg.define_asset_job(
    "weekly",
    dg.AssetSelection.groups("trends", "maintenance"),
    description="Long-term trends, dead rows removed, backups taken and proved by restoring them.",
)
TRAIN_JOB = dg.define_asset_job(
    "train_and_release",
    dg.AssetSelection.groups("ml", "release"),
    description="Trains a model, quantises it; signs and releases it if it beats the baseline.",
)
JOBS: Final = [ARCHIVE_JOB, DAILY_JOB, WEEKLY_JOB, TRAIN_JOB]


@dg.schedule(
    name="hourly_archive",
    job=ARCHIVE_JOB,
    cron_schedule="5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Five minutes after each hour: archives it, and earlier ones that still wait.",
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
    description="At 02:00: builds yesterday, days that were never built, and days with readings"
    " archived since the last night, with the days whose windows see them.",
)
def daily_build(
    context: dg.ScheduleEvaluationContext, platform: Platform
) -> Iterator[dg.RunRequest]:
    now = context.scheduled_execution_time
    with platform.ops() as connection:
        archived = archived_days(connection)
    with platform.analytics() as connection:
        built = built_days(connection)
    touched = due_days(archived, built, now - timedelta(days=1) - LONGEST_ARCHIVE)
    for first, last in days_to_build(touched, now.date() - timedelta(days=1)):
        yield _range_request(str(first), str(last), f"{now:%Y%m%d}:{first}")


weekly_maintenance = dg.ScheduleDefinition(
    name="weekly_maintenance",
    job=WEEKLY_JOB,
    cron_schedule="0 3 * * 0",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Sundays at 03:00: long-term trends, vacuum, backups and their proof.",
)

weekly_retrain = dg.ScheduleDefinition(
    name="weekly_retrain",
    job=TRAIN_JOB,
    cron_schedule="0 4 * * 1",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Mondays at 04:00: retrains; only a model that beats the baseline is released.",
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


def archived_days(connection: psycopg.Connection) -> dict[date, datetime]:
    """When the newest readings of each day were archived."""
    rows = connection.execute(
        "SELECT day, max(archived_at) FROM bronze_days JOIN bronze_objects USING (object_key)"
        " WHERE table_name = %s GROUP BY day",
        [MessageType.TELEMETRY],
    ).fetchall()
    return dict(rows)


def built_days(connection: psycopg.Connection) -> dict[date, datetime]:
    """When each day was last cleaned; no day for which features were never computed."""
    rows = connection.execute(
        "SELECT partition::date, max(finished_at) FILTER (WHERE asset = %(first)s) FROM etl_runs"
        " WHERE asset IN (%(first)s, %(last)s) GROUP BY partition"
        " HAVING count(DISTINCT asset) = 2",
        {"first": FIRST_BUILT, "last": LAST_BUILT},
    ).fetchall()
    return dict(rows)


def due_days(
    archived: Mapping[date, datetime], built: Mapping[date, datetime], since: datetime
) -> list[date]:
    """Days never built, built before their newest readings came, or touched since a moment.

    The last, since readings may have come while a build that ended after them was running.
    """
    return [
        day
        for day, newest in archived.items()
        if newest >= since or day not in built or built[day] < newest
    ]


def days_to_build(touched: Iterable[date], yesterday: date) -> list[tuple[date, date]]:
    """Ranges of days whose partitions change: the touched ones and those whose windows see them."""
    seen = (day_range(day, min(day + timedelta(days=MAX_DAYS_SINCE), yesterday)) for day in touched)
    ranges = ranges_of([yesterday, *chain.from_iterable(seen)])
    return ranges if len(ranges) <= MAX_RANGES else [(ranges[0][0], ranges[-1][1])]


def _range_request(first: str, last: str, run_key: str) -> dg.RunRequest:
    return dg.RunRequest(run_key=run_key, tags={RANGE_START: first, RANGE_END: last})


late_data_and_healing = dg.AutomationConditionSensorDefinition(
    "late_data_and_healing",
    target=dg.AssetSelection.groups("silver", "silver_shards", "gold"),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Builds again what late readings have changed, and once more what failed.",
)

SCHEDULES: Final = [hourly_archive, daily_build, weekly_maintenance, weekly_retrain]
SENSORS: Final = [stream_totals, late_data_and_healing, alert_on_failure, rollouts, fleet_alerts]
