"""Silver asset: cleaned telemetry by day of the reading. Rules live in transforms.py."""

from collections.abc import Sequence
from datetime import date

import dagster as dg
import polars as pl
import psycopg

from zenthos_assets import parquet, plots
from zenthos_assets.bronze import codec
from zenthos_assets.partitions import DAILY, ONE_RUN, SAME_DAY, days_of
from zenthos_assets.resources import Platform
from zenthos_assets.silver.checks import SILVER_CHECKS, SILVER_KEY, SilverTally, silver_results
from zenthos_assets.silver.reference import Reference, read_placements
from zenthos_assets.silver.transforms import SCHEMA, clean, group_days, parse
from zenthos_assets.tables import column_lineage, column_schema
from zenthos_core import lake
from zenthos_core.topics import MessageType

TABLE = "telemetry_cleaned"
GROUP_ROWS = 500_000
"""Readings handled at once: bounds memory whatever the range of days."""

BRONZE_KEY = dg.AssetKey(["bronze", MessageType.TELEMETRY.value])

_COLUMNS = {
    "message_id": "UUID, 16 bytes",
    "time": "by the device's clock, or of receipt where that is suspect",
    "received_at": "by the clock of ingest",
    "soil_moisture": "% at 5 cm",
    "temperature": "°C",
    "humidity": "%RH",
    "light_level": "lux",
    "battery_voltage": "V",
    "rainfall_mm": "mm since the last reading",
    "soil_moisture_20cm": "%",
    "soil_moisture_40cm": "%",
    "extra": "other sensors, JSON",
    "signal_strength": "dBm",
    "quality": "columns that are out of range, separated by commas; empty is good",
}


@dg.asset(
    key=SILVER_KEY,
    deps=[dg.AssetDep(BRONZE_KEY, partition_mapping=SAME_DAY)],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    group_name="silver",
    kinds={"parquet", "polars"},
    owners=["team:data"],
    description=(
        "Readings, each once, typed and judged, by the day they are about. Reads exactly the "
        "bronze objects that hold readings of the day, whenever those arrived."
    ),
    metadata={
        "dagster/column_schema": column_schema(SCHEMA, _COLUMNS),
        "dagster/column_lineage": column_lineage(
            {name: (BRONZE_KEY, ["payload"]) for name in SCHEMA if name != "received_at"}
            | {"received_at": (BRONZE_KEY, ["received_at"])}
        ),
        "object_path": f"{lake.SILVER}/{TABLE}/YYYY/MM/DD.parquet",
    },
    check_specs=SILVER_CHECKS,
)
def telemetry_cleaned(
    context: dg.AssetExecutionContext, platform: Platform
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    days = days_of(context)
    store = platform.store()
    with platform.ops() as connection:
        contents = archived_days(connection, days)
        reference = Reference(read_placements(connection))
    tally = SilverTally()
    counts: dict[date, int] = {}
    for wanted, keys in group_days(contents, days, GROUP_ROWS):
        bronze = [codec.decode(store.get(lake.BRONZE, key)) for key in keys]
        parsed = parse(pl.concat(bronze)) if bronze else None
        cleaned = clean(parsed.readings, reference, wanted) if parsed else SCHEMA.to_frame()
        received = sum(count for day, _, count in contents if day in set(wanted))
        tally.add(cleaned, received=received, malformed=parsed.malformed if parsed else 0)
        day = pl.col("time").dt.date()
        counts |= parquet.write_days(store, (lake.SILVER, TABLE), cleaned, wanted, day=day)
        context.log.info("cleaned %s rows of %s to %s", len(cleaned), wanted[0], wanted[-1])
    for written, count in counts.items():
        context.add_asset_metadata({"dagster/row_count": count}, partition_key=str(written))
    context.add_asset_metadata(
        {
            "rows_by_day": plots.rows_by_day(counts, "readings a day"),
            "duplicates_in_run": tally.duplicates,
        },
        partition_key=str(days[-1]),
    )
    return dg.MaterializeResult(check_results=silver_results(tally))


def archived_days(
    connection: psycopg.Connection, days: Sequence[date]
) -> list[tuple[date, str, int]]:
    """(day, object key, readings) of telemetry archives that hold readings of those days."""
    return connection.execute(
        "SELECT d.day, d.object_key, d.row_count FROM bronze_days d"
        " JOIN bronze_objects o USING (object_key)"
        " WHERE o.table_name = %s AND d.day BETWEEN %s AND %s ORDER BY d.day, d.object_key",
        [MessageType.TELEMETRY, days[0], days[-1]],
    ).fetchall()
