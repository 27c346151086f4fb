"""The day of the `etl` bench: what a fleet sends in 24 hours, and what was built before it.

1. A device sends one message a minute. One in a hundred is a weather station: it measures rain and
   no soil moisture.
2. 0.5 % of the messages come twice, 0.5 % come late (up to six hours, so some after midnight),
   0.1 % have an implausible value, 1 % lack a sensor, 0.01 % come from a clock that was never set.
3. An object holds the messages of one hour of receipt, in order of arrival, cut as the archive cuts
   them.
4. Features look back: the rollups of the days before are made up.
5. The same number of devices gives the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from ml.features import MAX_DAYS_SINCE, WINDOW_DAYS
from zenthos_assets import parquet
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.outbox import PART_ROWS
from zenthos_assets.bronze.transforms import SCHEMA
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA
from zenthos_assets.silver.reference import (
    IRRIGATION_SCHEMA,
    PLACEMENTS_SCHEMA,
    WEATHER_SCHEMA,
    Reference,
)
from zenthos_core import lake
from zenthos_core.blobs import FolderStore

DAY: Final = date(2026, 11, 20)
MODEL: Final = "esp32-s3"
MESSAGES_AN_HOUR: Final = 60
STATION_EVERY: Final = 100
FARM_DEVICES: Final = 100
TWICE: Final = 0.005
LATE: Final = 0.005
LATEST_S: Final = 6 * 3_600
IMPLAUSIBLE: Final = 0.001
WITHOUT_SENSOR: Final = 0.01
CLOCK_NOT_SET: Final = 0.0001
READY: Final = "ready.txt"
RAW: Final = "raw"
"""The bucket of the objects of JSON texts."""

_SENSORS: Final = ("soil_moisture", "temperature", "humidity", "light_level", "rainfall_mm")
_START: Final = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)


@dataclass(frozen=True)
class Fleet:
    """Who sends; everything else follows."""

    devices: int

    def ids(self) -> list[str]:
        """In order."""
        return [f"bench-{number:05d}" for number in range(self.devices)]

    def registry(self) -> pl.DataFrame:
        """`device_id`, `device_model`, `device_type`, `farm_id`, `latitude`, `longitude`."""
        number = np.arange(self.devices)
        farm = number // FARM_DEVICES
        return pl.DataFrame(
            {
                "device_id": self.ids(),
                "device_model": [MODEL] * self.devices,
                "device_type": np.where(number % STATION_EVERY, "soil", "weather"),
                "farm_id": [f"00000000-0000-4000-8000-{f:012d}" for f in farm],
                "latitude": 39.0 + farm / 100,
                "longitude": -96.0 - number / 10_000,
            }
        )

    def farms(self) -> list[str]:
        """Ids of the farms, in order."""
        return sorted(set(self.registry()["farm_id"]))


def references(fleet: Fleet) -> dict[str, pl.DataFrame]:
    """What silver and features know beside the readings, by the names of its objects.

    A farm is irrigated for an hour every ninth day, a ninth of them on DAY.
    """
    registry = fleet.registry().with_columns(valid_from=pl.lit(_START - timedelta(days=300)))
    farms = pl.DataFrame({"farm_id": fleet.farms()}).with_row_index("number")
    begins = pl.lit(_START) + pl.duration(hours=6) - pl.duration(days=pl.col("number") % 9)
    irrigation = farms.select("farm_id", begins=begins, ends=begins + pl.duration(hours=1))
    hours = pl.DataFrame({"back": range(24)}).with_columns(
        hour=pl.lit(_START) + pl.duration(hours="back"),
        weather_condition=pl.when(pl.col("back") > 12)
        .then(pl.lit("rain"))
        .otherwise(pl.lit("clear")),
    )
    unknown = {n: None for n in WEATHER_SCHEMA if n not in ("farm_id", *hours.columns)}
    weather = farms.join(hours, how="cross").with_columns(**unknown)
    days = fleet.registry().select("device_id", "farm_id").join(irrigation, on="farm_id")
    return {
        "placements": registry.select(PLACEMENTS_SCHEMA.names()).cast(PLACEMENTS_SCHEMA),
        "irrigation": irrigation.select(IRRIGATION_SCHEMA.names()).cast(IRRIGATION_SCHEMA),
        "weather": weather.select(WEATHER_SCHEMA.names()).cast(WEATHER_SCHEMA),
        "irrigated_days": days.select("device_id", day=pl.col("begins").dt.date()),
    }


def reference_path(folder: Path, name: str) -> Path:
    """Where one of `references` lies in a lake."""
    return folder / "reference" / f"{name}.parquet"


def read_reference(folder: Path) -> Reference:
    """As silver takes it."""
    frames = {f.name: pl.read_parquet(reference_path(folder, f.name)) for f in fields(Reference)}
    return Reference(**frames)


def read_irrigated_days(folder: Path) -> pl.DataFrame:
    """As features take it."""
    return pl.read_parquet(reference_path(folder, "irrigated_days"))


def prepare(folder: Path, fleet: Fleet, *, raw: bool = False) -> None:
    """Fill `folder` with the lake of that fleet, unless it is there.

    With `raw`, also the same messages as objects that hold the JSON texts as they are.
    """
    place = FolderStore(folder)
    if not (folder / READY).exists():
        for hour, frame in receipts(fleet):
            for part, start in enumerate(range(0, len(frame), PART_ROWS)):
                rows = frame.slice(start, PART_ROWS)
                key = lake.bronze_key("telemetry", hour, part)
                place.put(lake.BRONZE, key, codec.encode(rows))
                if raw:
                    place.put(RAW, key, parquet.encode(codec.in_order(rows)))
        _write_rollups(place, fleet)
        for name, frame in references(fleet).items():
            path = reference_path(folder, name)
            path.parent.mkdir(exist_ok=True)
            frame.write_parquet(path)
        (folder / READY).write_text(f"{fleet.devices}\n")


def raw_paths(folder: Path) -> list[Path]:
    """The objects of JSON texts, in the order of receipt."""
    return sorted((folder / RAW).rglob("*.parquet"))


def receipts(fleet: Fleet) -> Iterator[tuple[datetime, pl.DataFrame]]:
    """The bronze rows of each hour of receipt, in order of arrival (rules 2 and 3)."""
    waiting: list[pl.DataFrame] = []
    hour = _START
    while hour < _START + timedelta(days=1) or any(map(len, waiting)):
        if hour < _START + timedelta(days=1):
            waiting.append(_sent(fleet, hour.hour))
        everything = pl.concat(waiting)
        due = pl.col("received_at") < hour + timedelta(hours=1)
        waiting = [everything.filter(~due)]
        arrived = everything.filter(due).sort("received_at", maintain_order=True)
        yield hour, arrived
        hour += timedelta(hours=1)


def _sent(fleet: Fleet, hour: int) -> pl.DataFrame:
    """What is sent in an hour, as rows of the outbox."""
    readings = sent_readings(fleet, hour)
    rng = np.random.default_rng([fleet.devices, hour, 1])
    again = readings.filter(pl.Series(rng.random(len(readings)) < TWICE))
    repeated = again.with_columns(received_at=pl.col("received_at") + pl.duration(seconds=5))
    both = pl.concat([readings, repeated])
    return both.select(
        topic=pl.format(f"zenthos/{MODEL}/{{}}/telemetry", "device_id"),
        payload=_payload().cast(pl.Binary),
        received_at="received_at",
        ingested_at=pl.col("received_at") + pl.duration(milliseconds=40),
        qos=pl.lit(1, pl.Int16),
        retain=pl.lit(False),
        redelivered=pl.lit(False),
    ).cast(SCHEMA)


def sent_readings(fleet: Fleet, hour: int) -> pl.DataFrame:
    """Typed columns of the messages of an hour, once each, in order of sending (rule 2)."""
    count = fleet.devices * MESSAGES_AN_HOUR
    rng = np.random.default_rng([fleet.devices, hour, 0])
    device = np.tile(np.arange(fleet.devices), MESSAGES_AN_HOUR)
    minute = np.repeat(np.arange(MESSAGES_AN_HOUR), fleet.devices)
    offset_s = (device * 7919) % 60
    order = np.argsort(minute * 60 + offset_s, kind="stable")
    device, minute, offset_s = device[order], minute[order], offset_s[order]
    second = hour * 3_600 + minute * 60 + offset_s
    late_s = np.where(rng.random(count) < LATE, rng.integers(60, LATEST_S, count), 0)
    delay_us = rng.integers(20_000, 1_500_000, count) + late_s * 1_000_000
    epoch_s = int(_START.timestamp()) + second
    received = (epoch_s * 1_000_000 + delay_us).astype("datetime64[us]")
    unset = rng.random(count) < CLOCK_NOT_SET
    return pl.DataFrame(
        {
            "message_id": _message_ids(rng, count),
            "device_id": pl.Series(fleet.ids()).gather(device),
            "timestamp": np.where(unset, second, epoch_s),
            "received_at": pl.Series(received).dt.replace_time_zone("UTC"),
            **_values(rng, device, second / 86_400),
            "seq": 1_000_000 + hour * MESSAGES_AN_HOUR + minute,
            "signal_strength": -50 - device % 30 - rng.integers(0, 4, count),
            "firmware_version": pl.Series(["v1.4.2", "v1.4.3"]).gather(device % 2),
            "backlog": late_s > 0,
        }
    )


def _values(rng: np.random.Generator, device: np.ndarray, day: np.ndarray) -> dict[str, pl.Series]:
    """Sensors as devices round them; null where one is missing."""
    count = len(device)
    sun = np.maximum(0.0, np.sin((day - 0.25) * 2 * np.pi))
    noise = rng.standard_normal((4, count))
    implausible = rng.random(count) < IMPLAUSIBLE
    soil = 22 + device % 150 / 10 - 0.8 * day + 0.05 * noise[0]
    rain = np.where(rng.random(count) < 0.02, rng.integers(1, 8, count) / 5, 0.0)
    station = device % STATION_EVERY == 0
    missing = rng.random(count) < WITHOUT_SENSOR
    values = {
        "soil_moisture": np.where(implausible, 142.0, np.round(soil, 2)),
        "temperature": np.round(12 + 9 * sun + device % 40 / 10 + 0.1 * noise[1], 2),
        "humidity": np.round(80 - 30 * sun + device % 70 / 10 + 0.3 * noise[2], 1),
        "light_level": np.round(60_000 * sun + 40 * np.abs(noise[3])),
        "battery_voltage": np.round(4.1 - 0.1 * day - device % 20 / 100, 2),
        "rainfall_mm": rain,
    }
    absent = {"soil_moisture": station, "rainfall_mm": ~station, "humidity": missing}
    return {
        name: pl.Series(array).set(pl.Series(absent.get(name, np.zeros(count, bool))), None)
        for name, array in values.items()
    }


def _message_ids(rng: np.random.Generator, count: int) -> pl.Series:
    """UUIDs of version 4 as text."""
    raw = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = pl.Series(raw.view("V16").ravel().tolist(), dtype=pl.Binary).bin.encode("hex")
    cuts = [(0, 8), (8, 4), (12, 4), (16, 4), (20, 12)]
    parts = [pl.col("d").str.slice(start, length) for start, length in cuts]
    return digits.to_frame("d").select(pl.concat_str(parts, separator="-")).to_series()


def _payload() -> pl.Expr:
    """The JSON a device sends; a field that it lacks is left out."""
    sensors = [_field(name) for name in (*_SENSORS, "battery_voltage")]
    parts = [
        pl.format('"message_id":"{}"', "message_id"),
        pl.format('"device_id":"{}"', "device_id"),
        _field("timestamp"),
        pl.format('"sensors":{{{}}}', pl.concat_str(sensors, separator=",", ignore_nulls=True)),
        pl.format('"firmware_version":"{}"', "firmware_version"),
        pl.lit(f'"device_model":"{MODEL}"'),
        _field("signal_strength"),
        _field("seq"),
        pl.when("backlog").then(pl.lit('"backlog":true')),
    ]
    return pl.format("{{{}}}", pl.concat_str(parts, separator=",", ignore_nulls=True))


def _field(name: str) -> pl.Expr:
    return pl.format(f'"{name}":{{}}', name)


def _write_rollups(place: FolderStore, fleet: Fleet) -> None:
    """Hourly rollups of six days before, daily ones of thirty (rule 4)."""
    for back in range(1, MAX_DAYS_SINCE + 1):
        day = DAY - timedelta(days=back)
        hours = 24 if back < WINDOW_DAYS else 0
        if hours:
            frame = _rollups(fleet, day, hours).rename({"start": "bucket"})
            frame = frame.select(HOURLY_SCHEMA.names()).cast(HOURLY_SCHEMA)
            place.put(lake.GOLD, lake.day_key("telemetry_hourly", day), parquet.encode(frame))
        frame = _rollups(fleet, day, 1).with_columns(day=pl.col("start").dt.date())
        frame = frame.select(DAILY_SCHEMA.names()).cast(DAILY_SCHEMA)
        place.put(lake.GOLD, lake.day_key("telemetry_daily", day), parquet.encode(frame))


def _rollups(fleet: Fleet, day: date, periods: int) -> pl.DataFrame:
    """Made-up statistics of each device for so many equal parts of a day, by device and time."""
    rng = np.random.default_rng([fleet.devices, day.toordinal(), periods])
    device = np.repeat(np.arange(fleet.devices), periods)
    count = len(device)
    values = _values(rng, device, np.tile(np.arange(periods) / periods, fleet.devices))
    start = np.tile(np.arange(periods) * (24 // periods), fleet.devices)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    means = {
        f"{short}_{statistic}": values[name]
        for short, name in (("soil", "soil_moisture"), ("temp", "temperature"))
        for statistic in ("avg", "min", "max")
    }
    return pl.DataFrame(
        {
            "device_id": pl.Series(fleet.ids()).gather(device),
            "farm_id": fleet.registry()["farm_id"].gather(device),
            "start": pl.Series(start),
            "sample_count": np.full(count, MESSAGES_AN_HOUR * 24 // periods),
            **means,
            "soil_stddev": rng.random(count),
            "temp_stddev": rng.random(count),
            "humidity_avg": values["humidity"],
            "light_avg": values["light_level"],
            "battery_min": values["battery_voltage"],
            "rain_mm": values["rainfall_mm"],
            "soil_20cm_avg": pl.Series([None] * count, dtype=pl.Float64),
            "soil_40cm_avg": pl.Series([None] * count, dtype=pl.Float64),
        }
    ).with_columns(start=pl.lit(midnight) + pl.duration(hours="start"))
