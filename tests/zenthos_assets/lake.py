"""Silver written by hand, so that gold is tested by itself, and runs of gold assets on it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5
from zlib import crc32

import dagster as dg
import polars as pl

from tests.zenthos_assets.conftest import Farmyard
from zenthos_assets import parquet
from zenthos_assets.automation import RANGE_END, RANGE_START
from zenthos_assets.gold.assets import ml_features, telemetry_daily, telemetry_hourly
from zenthos_assets.gold.farm_assets import irrigation_response, telemetry_trends, weather_daily
from zenthos_assets.gold.history_assets import telemetry_historical
from zenthos_assets.resources import Platform
from zenthos_assets.runs import Build, record
from zenthos_assets.silver.order import ORDER
from zenthos_assets.silver.reference import WEATHER_SCHEMA
from zenthos_assets.silver.transforms import SCHEMA
from zenthos_core import lake
from zenthos_core.database import connect

GOLD = [
    telemetry_historical,
    telemetry_hourly,
    telemetry_daily,
    ml_features,
    weather_daily,
    irrigation_response,
    telemetry_trends,
]
FARM = UUID("00000000-0000-4000-8000-000000000001")


def at(day: date, hour: float = 0) -> datetime:
    """An hour of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)


def cleaned(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Readings of silver from `time` and whatever else differs from a plain one of soil-1."""
    full = []
    for row in rows:
        device = row.get("device_id", "soil-1")
        plain = {
            "bucket": crc32(device.encode()) & 0xFFFF,
            "device_id": device,
            "message_id": uuid5(NAMESPACE_OID, f"{device} {row['time']}").bytes,
            "received_at": row["time"],
            "soil_moisture": 30.0,
            "temperature": 20.0,
            "clock_suspect": False,
            "backlog": False,
            "farm_id": str(FARM),
            "irrigation_event": False,
            "quality": "",
        }
        full.append(plain | row)
    return pl.DataFrame(full, schema=SCHEMA).sort(ORDER)


def hourly(day: date, hours: int = 24, **columns: Any) -> list[dict[str, Any]]:
    """A plain reading an hour."""
    return [{"time": at(day, hour), **columns} for hour in range(hours)]


def put_silver(yard: Farmyard, day: date, rows: Sequence[dict[str, Any]]) -> None:
    """Make these the readings of a day, as silver would."""
    _put(yard, "telemetry_cleaned", day, cleaned(rows))


def put_weather(yard: Farmyard, day: date, rows: Sequence[dict[str, Any]]) -> None:
    """Make these the hours of a day of silver/weather_hourly."""
    full = [{"farm_id": str(FARM)} | row for row in rows]
    _put(yard, "weather_hourly", day, pl.DataFrame(full, schema=WEATHER_SCHEMA))


def _put(yard: Farmyard, table: str, day: date, frame: pl.DataFrame) -> None:
    data = parquet.encode(frame)
    yard.store.put(lake.SILVER, lake.day_key(table, day), data)
    digest = sha256(data).hexdigest()
    build = Build(str(day), digest, digest, len(frame), len(frame), 0, 0, 0.0)
    with connect(yard.analytics_url, application="test") as connection:
        record(connection, f"silver/{table}", [build], run_id="by hand")


def build(
    yard: Farmyard,
    *assets: dg.AssetsDefinition,
    first: date | None = None,
    last: date | None = None,
    force: bool = False,
    platform: Platform | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize gold assets for a range of days."""
    tags = {RANGE_START: str(first), RANGE_END: str(last or first)} if first else {}
    names = [asset.op.name for asset in assets]
    return dg.materialize(
        assets,
        instance=yard.instance,
        resources={"platform": platform or yard.platform},
        tags=tags,
        run_config={"ops": {name: {"config": {"force": force}} for name in names}},
        raise_on_error=False,
    )


def failed_checks(result: dg.ExecuteInProcessResult) -> set[str]:
    """Names of the checks that did not pass."""
    return {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}


def unchanged(result: dg.ExecuteInProcessResult, asset: dg.AssetsDefinition) -> dict[str, bool]:
    """By partition, whether a run left it as it was."""
    events = result.asset_materializations_for_node(asset.op.name)
    return {str(e.partition): bool(e.metadata["unchanged"].value) for e in events}


def objects(yard: Farmyard) -> dict[str, bytes]:
    """What gold holds."""
    return {key: yard.store.get(lake.GOLD, key) for key in yard.store.keys(lake.GOLD)}
