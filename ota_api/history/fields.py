"""What may be asked for: the sensors, and what gold keeps of each."""

from typing import Final

from ota_api.history.schemas import Resolution
from ota_api.planes import plausible
from zenthos_core.errors import InvalidInputError

STATISTICS: Final[dict[str, dict[str, str]]] = {
    "soil_moisture": {
        "soil_avg": "avg",
        "soil_min": "min",
        "soil_max": "max",
        "soil_stddev": "stddev_samp",
    },
    "temperature": {
        "temp_avg": "avg",
        "temp_min": "min",
        "temp_max": "max",
        "temp_stddev": "stddev_samp",
    },
    "humidity": {"humidity_avg": "avg"},
    "light_level": {"light_avg": "avg"},
    "battery_voltage": {"battery_min": "min"},
    "rainfall_mm": {"rain_mm": "sum"},
    "soil_moisture_20cm": {"soil_20cm_avg": "avg"},
    "soil_moisture_40cm": {"soil_40cm_avg": "avg"},
    "signal_strength": {},
}
"""By sensor: columns of the rollups, and the aggregates of its plausible values they are."""


def parse_fields(text: str | None) -> list[str]:
    """Sensors, separated by commas; all of them where nothing is said.

    Raises:
        InvalidInputError: for one there is not.
    """
    asked = [name.strip() for name in text.split(",")] if text else list(STATISTICS)
    unknown = [name for name in asked if name not in STATISTICS]
    if unknown:
        raise InvalidInputError(
            f"fields: there is no {unknown[0][:40]!r}: choose from {', '.join(STATISTICS)}"
        )
    return list(dict.fromkeys(asked))


def gold_columns(fields: list[str]) -> list[str]:
    """Columns of the rollups."""
    return [column for field in fields for column in STATISTICS[field]]


def hot_columns(fields: list[str]) -> list[str]:
    """The same, computed of telemetry_hot, as SQL."""
    return [
        f"{plausible(function, field)} AS {column}"
        for field in fields
        for column, function in STATISTICS[field].items()
    ]


ROLLUPS: Final = {
    Resolution.HOURLY: ("telemetry_hourly", "bucket"),
    Resolution.DAILY: ("telemetry_daily", "day"),
}
"""Relation, and the column that names the hour or day."""
