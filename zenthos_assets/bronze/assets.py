"""Bronze assets: each message type's outbox rows, by hour of receipt. No parsing belongs here."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg

from zenthos_assets.bronze.checks import READS_BACK, broken_objects, reads_back
from zenthos_assets.bronze.outbox import Part, archive_hour, drop_empty_partitions
from zenthos_assets.bronze.telemetry_days import announced_versions, announcements, recent_days
from zenthos_assets.bronze.transforms import SCHEMA
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

_COLUMNS = {
    "topic": "zenthos/{device_model}/{device_id}/{message_type}",
    "payload": "the bytes as they arrived",
    "received_at": "by the clock of ingest",
    "ingested_at": "when they were committed to the outbox",
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
            "dagster/column_schema": column_schema(SCHEMA, _COLUMNS),
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
            for key, hour in hours.items():
                parts: list[Part] = []
                if hour in waiting:
                    run_id = context.run.run_id
                    for part in archive_hour(connection, store, table, hour, run_id=run_id):
                        parts.append(part)
                        context.log.info("archived %s rows to %s", part.row_count, part.object_key)
                context.add_asset_metadata(_describe(parts), partition_key=key)
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
    return {
        "dagster/row_count": sum(part.row_count for part in parts),
        "size_bytes": sum(part.size_bytes for part in parts),
        "objects": [part.object_key for part in parts],
    }


BRONZE_ASSETS = [bronze_asset(message_type) for message_type in MessageType]
