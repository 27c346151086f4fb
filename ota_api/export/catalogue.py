"""Which tables may be exported, by anyone who may look.

Not among them, and never: tokens, users and keys; the quarantine, and readings that silver could
not read, whose payloads may be anything; what devices carry in free-form `metadata`. What the
analytical database holds can be rebuilt from the lake, and is shown whole; of the operational
database, the columns named here alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zenthos_core import lake
from zenthos_core.database import Database
from zenthos_core.topics import MessageType


@dataclass(frozen=True)
class LakeTable:
    """Objects of a bucket, each of one day, or of one hour in bronze."""

    bucket: str
    folder: str
    what: str
    range_of: str = "day of the reading"

    @property
    def stored_as_received(self) -> bool:
        """Whether its objects are handed out as they are stored."""
        return self.bucket == lake.BRONZE


@dataclass(frozen=True)
class SqlTable:
    """A relation of one of our databases."""

    database: Database
    relation: str
    what: str
    time: str = ""
    """The column that a range of days is about; empty where there is none."""
    device: str = "device_id"
    columns: tuple[str, ...] = ()
    """Those to show; all of them where none is named."""

    @property
    def range_of(self) -> str:
        """What `from` and `to` mean."""
        return f"day of {self.time}" if self.time else ""


Table = LakeTable | SqlTable


def _columns(*lines: str) -> tuple[str, ...]:
    return tuple(" ".join(lines).split())


_DEVICE_COLUMNS: Final = _columns(
    "id farm_id device_model device_type latitude longitude installed_at created_at",
    "status last_seen last_reading firmware_version model_version battery_voltage signal_strength",
    "uptime_seconds free_heap_bytes boot_count reset_reason",
    "report_interval_s observed_interval_s missing_readings",
)
_FARM_COLUMNS: Final = _columns(
    "id name owner latitude longitude total_area_hectares crop_type created_at"
)
_LEDGER_COLUMNS: Final = _columns(
    "day device_id received stored duplicate quarantined rate_limited"
)
_PLACEMENT_COLUMNS: Final = _columns(
    "device_id valid_from farm_id device_type device_model latitude longitude"
)
_IRRIGATION_COLUMNS: Final = _columns(
    "id farm_id timestamp duration_minutes water_volume_liters triggered_by"
)


def _lake(bucket: str, tables: Mapping[str, str], **more: str) -> dict[str, Table]:
    layer = bucket.removeprefix("zenthos-")
    return {f"{layer}/{t}": LakeTable(bucket, t, what, **more) for t, what in tables.items()}


_BRONZE: Final = {kind.value: f"{kind} messages as they arrived" for kind in MessageType}
_SILVER: Final = {
    "telemetry_cleaned": "readings, each once, typed and judged",
    "weather_hourly": "weather of each farm, by its own stations",
}
_GOLD: Final = {
    "telemetry_hourly": "statistics per device and hour",
    "telemetry_daily": "statistics per device and day",
    "ml_features": "the seven inputs of the irrigation model",
    "weather_daily": "weather of each farm by day",
    "irrigation_response": "what each irrigation did to the soil",
    "telemetry_trends": "long-term trends per device, by week",
}
_ANALYTICS: Final = {
    "telemetry_hourly": "bucket",
    "telemetry_daily": "day",
    "telemetry_historical": "time",
    "ml_features": "date",
    "weather_daily": "day",
    "irrigation_response": "started_at",
    "telemetry_trends": "week",
    "etl_runs": "finished_at",
}
_MORE_WHAT: Final = {
    "telemetry_historical": _SILVER["telemetry_cleaned"],
    "etl_runs": "what each partition was built from",
}
_OPS: Final = (
    SqlTable(Database.OPS, "farms", "farms", columns=_FARM_COLUMNS),
    SqlTable(
        Database.OPS, "devices", "devices and their state", device="id", columns=_DEVICE_COLUMNS
    ),
    SqlTable(
        Database.OPS,
        "device_placements",
        "where each device stood, and since when",
        "valid_from",
        columns=_PLACEMENT_COLUMNS,
    ),
    SqlTable(
        Database.OPS, "ledger", "what became of every message", "day", columns=_LEDGER_COLUMNS
    ),
    SqlTable(
        Database.OPS,
        "irrigation_events",
        "when each farm was irrigated",
        "timestamp",
        columns=_IRRIGATION_COLUMNS,
    ),
)

TABLES: Final[dict[str, Table]] = {
    **_lake(lake.BRONZE, _BRONZE, range_of="day of receipt"),
    **_lake(lake.SILVER, _SILVER),
    **_lake(lake.GOLD, _GOLD),
    **{
        f"analytics/{name}": SqlTable(Database.ANALYTICS, name, {**_GOLD, **_MORE_WHAT}[name], time)
        for name, time in _ANALYTICS.items()
    },
    **{f"ops/{table.relation}": table for table in _OPS},
}
"""By the name that a user gives: the layer, then the table."""
