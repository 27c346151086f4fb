"""Bronze assets: each message type's outbox rows, by hour of receipt. No parsing belongs here."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import psycopg

from zenthos_assets import plots
from zenthos_assets.bronze.checks import READS_BACK, broken_objects, reads_back
from zenthos_assets.bronze.outbox import Part, archive_hour, drop_empty_partitions
from zenthos_assets.bronze.telemetry_days import announced_versions, announcements, recent_days
from zenthos_assets.bronze.transforms import counts_by
from zenthos_assets.executors import ON_ARCHIVE_QUEUE
from zenthos_assets.partitions import HOURLY, ONE_RUN
from zenthos_assets.resources import Platform
from zenthos_assets.tables import column_schema
from zenthos_core import lake
from zenthos_core.topics import EVERYTHING_FILTER, MessageType

MQTT_STREAM = dg.AssetSpec(
    "mqtt_stream",
    description="What the fleet publishes; ingest stores it in the outbox and acknowledges.",
    group_name="source",
    kinds={"mqtt"},
    owners=["team:platform"],
    metadata={"topic": EVERYTHING_FILTER},
)

_OBJECT = pl.Schema(
    {
        "bucket": pl.UInt16(),
        "topic": pl.String(),
        "received_at": pl.Datetime("us", "UTC"),
        "qos": pl.Int16(),
        "retain": pl.Boolean(),
        "redelivered": pl.Boolean(),
        "ingest_delay_us": pl.Int64(),
        "template": pl.UInt8(),
        "payload": pl.Binary(),
        "$.…": pl.Unknown(),
    }
)
_COLUMNS = {
    "bucket": "crc32(device_id) mod 65536; rows are ordered by it",
    "topic": "zenthos/{device_model}/{device_id}/{message_type}",
    "received_at": "by the clock of ingest",
    "ingest_delay_us": "from the receipt to the transaction that stored the message, µs",
    "template": "number of the text in the metadata that the values belong in; null: see payload",
    "payload": "the bytes as they arrived, of what has no template",
    "$.…": "values of the payloads, each at its JSON path, such as $.sensors.temperature",
}


def bronze_asset(message_type: MessageType) -> dg.AssetsDefinition:
    """The archive of one message type."""
    table = message_type.value

    @dg.asset(
        key=dg.AssetKey(["bronze", table]),
        deps=[MQTT_STREAM],
        partitions_def=HOURLY,
        backfill_policy=ONE_RUN,
        group_name="bronze",
        op_tags=ON_ARCHIVE_QUEUE,
        kinds={"parquet", "postgres"},
        owners=["team:platform"],
        description=f"Every {table} message as it arrived, archived by hour of receipt.",
        metadata={
            "dagster/column_schema": column_schema(_OBJECT, _COLUMNS),
            "object_path": f"{lake.BRONZE}/{table}/YYYY/MM/DD/HH[.part].parquet",
        },
        check_specs=[
            dg.AssetCheckSpec(
                READS_BACK,
                asset=dg.AssetKey(["bronze", table]),
                blocking=True,
                description="Recorded objects are there, with their rows and SHA-256.",
            )
        ],
    )
    def archive(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg]
        hours = hours_of(context)
        store = platform.store()
        with platform.ops() as connection:
            waiting = hours_with_rows(connection, table, hours)
            archived: dict[str, list[Part]] = {key: [] for key in hours}
            for key, hour in hours.items():
                if hour in waiting:
                    run_id = context.run.run_id
                    for part in archive_hour(connection, store, table, hour, run_id=run_id):
                        archived[key].append(part)
                        context.log.info("archived %s rows to %s", part.row_count, part.object_key)
                context.add_asset_metadata(_describe(archived[key]), partition_key=key)
            context.add_asset_metadata(_pictures(archived), partition_key=max(hours))
            drop_empty_partitions(connection, datetime.now(UTC))
            if message_type is MessageType.TELEMETRY:
                announce_days(context, connection)
            broken = broken_objects(connection, store, table, hours.values())
        return dg.MaterializeResult(check_results=[reads_back(broken)])

    return archive


def announce_days(context: dg.AssetExecutionContext, connection: psycopg.Connection) -> None:
    """Tell which days' readings have changed."""
    today = datetime.now(UTC).date()
    days = recent_days(connection, today, run_id=context.run.run_id)
    for event in announcements(days, announced_versions(context.instance, days)):
        context.log_event(event)


def hours_of(context: dg.AssetExecutionContext) -> dict[str, datetime]:
    """The hours of a run by partition key."""
    return {
        key: HOURLY.time_window_for_partition_key(key).start.astimezone(UTC)
        for key in context.partition_keys
    }


def hours_with_rows(
    connection: psycopg.Connection, table: str, hours: dict[str, datetime]
) -> set[datetime]:
    """Those of the hours for which the outbox holds messages of that type."""
    found = connection.execute(
        "SELECT DISTINCT date_trunc('hour', received_at) FROM raw_messages"
        " WHERE message_type = %s AND received_at >= %s AND received_at < %s",
        [table, min(hours.values()), max(hours.values()) + timedelta(hours=1)],
    ).fetchall()
    connection.rollback()  # its snapshot ends here
    return {hour for (hour,) in found} & set(hours.values())


def _describe(parts: list[Part]) -> dict[str, object]:
    size_bytes = sum(part.size_bytes for part in parts)
    payload_bytes = sum(part.payload_bytes for part in parts)
    return {
        "dagster/row_count": sum(part.row_count for part in parts),
        "size_bytes": size_bytes,
        "payload_bytes": payload_bytes,
        "ratio": round(payload_bytes / size_bytes, 2) if size_bytes else 0.0,
        "objects": [part.object_key for part in parts],
    }


def _pictures(archived: dict[str, list[Part]]) -> dict[str, object]:
    """Of a run's hours: messages by minute, or by hour where there are several, and sizes."""
    found = {key: parts for key, parts in archived.items() if parts}
    if not found:
        return {}
    by_minute = [part.minutes for parts in found.values() for part in parts]
    unit, size = ("minute", 60) if len(archived) == 1 else ("hour", 3600)
    counts = counts_by(by_minute, size)
    sizes = {
        key: (sum(p.payload_bytes for p in parts), sum(p.size_bytes for p in parts))
        for key, parts in found.items()
    }
    return {
        f"messages_by_{unit}": plots.counts_over_time(counts, f"messages a {unit}"),
        "sizes": plots.payloads_and_objects(sizes),
    }


BRONZE_ASSETS = [bronze_asset(message_type) for message_type in MessageType]
