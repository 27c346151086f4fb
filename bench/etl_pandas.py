"""The peer in pandas: the columns of the same bronze objects, or raw JSON with `--json`.

1. Columns are read by pyarrow: texts of few values are categories, decimals and ids are cast by it.
   Python objects are made only of message ids, which pandas holds as nothing else.
2. The metadata of an object says which of its templates hold `"backlog":true`.
3. JSON is decoded by msgspec, faster than what pandas brings along.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.etl_contender import (
    DAILY,
    FEATURES,
    HOURLY,
    SILVER,
    Place,
    Stages,
    bronze_paths,
    check,
    daily_paths,
    hourly_paths,
    path_of,
    run,
)
from bench.etl_day import DAY, raw_paths, reference_path
from ml.features import (
    MAX_DAYS_SINCE,
    MIN_HOURS,
    MIN_TEMPERATURE_DIVISOR_C,
    WET_DAY_MM,
)
from zenthos_assets.bronze.readings import SENSORS
from zenthos_assets.silver.transforms import RANGES
from zenthos_assets.silver.transforms import SCHEMA as SILVER_SCHEMA
from zenthos_core.messages import EARLIEST_EPOCH_S, MAX_AHEAD_S

RAW: Final = "--json"
START: Final = pd.Timestamp(DAY, tz="UTC")
_TEXTS: Final = ["topic", "$.device_id", "$.firmware_version"]
_STATISTICS: Final = {
    "sample_count": ("time", "size"),
    "farm_id": ("farm_id", "first"),
    "soil_avg": ("soil_moisture", "mean"),
    "soil_min": ("soil_moisture", "min"),
    "soil_max": ("soil_moisture", "max"),
    "soil_stddev": ("soil_moisture", "std"),
    "temp_avg": ("temperature", "mean"),
    "temp_min": ("temperature", "min"),
    "temp_max": ("temperature", "max"),
    "temp_stddev": ("temperature", "std"),
    "humidity_avg": ("humidity", "mean"),
    "light_avg": ("light_level", "mean"),
    "battery_min": ("battery_voltage", "min"),
    "soil_20cm_avg": ("soil_moisture_20cm", "mean"),
    "soil_40cm_avg": ("soil_moisture_40cm", "mean"),
}


def contend(folder: Path, stages: Stages) -> None:
    """Silver, hourly, daily, features."""
    stages.timed("silver", lambda: _silver(folder))
    stages.timed("hourly", lambda: _roll(folder, HOURLY))
    stages.timed("daily", lambda: _roll(folder, DAILY))
    stages.timed("features", lambda: _features(folder))


def _silver(folder: Path) -> None:
    if RAW in sys.argv:
        parts = [_read_json(path) for path in raw_paths(folder)]
    else:
        parts = [_read(path) for path in bronze_paths(folder)]
    readings = pd.concat(parts, ignore_index=True)
    of_day = readings["time"].between(START, START + timedelta(days=1), inclusive="left")
    once = (
        readings[of_day]
        .sort_values("received_at", kind="stable")
        .drop_duplicates(["device_id", "message_id"])
    )
    cleaned = _enrich(once, folder).sort_values(["bucket", "device_id", "time", "message_id"])
    check(holds=not cleaned.duplicated(["device_id", "message_id"]).any(), what="unique")
    cleaned[SILVER_SCHEMA.names()].to_parquet(
        path_of(folder, SILVER), compression="zstd", index=False
    )


def _read(path: Path) -> pd.DataFrame:
    file = pq.ParquetFile(path, read_dictionary=_TEXTS)
    templates = json.loads(file.schema_arrow.metadata[b"zenthos.shredded"])["templates"]
    paths = [n for n in file.schema_arrow.names if n.startswith("$.") and n != "$.device_model"]
    table = file.read([*_TEXTS, "bucket", "received_at", "template", *paths])
    check(holds=table["template"].null_count == 0, what="a payload that is kept as it is")
    fields = [
        field.with_type(pa.float64()) if pa.types.is_decimal(field.type) else field
        for field in table.schema
    ]
    frame = table.cast(pa.schema(fields)).unify_dictionaries().to_pandas()
    backlog = np.array(['"backlog":true' in "".join(t["literals"]) for t in templates])
    return _readings(frame, pd.Series(backlog[frame["template"]]))


def _read_json(path: Path) -> pd.DataFrame:
    table = pq.read_table(
        path, columns=["topic", "payload", "bucket", "received_at"], read_dictionary=["topic"]
    )
    payloads = map(msgspec.json.decode, table["payload"].to_pylist())
    messages = pd.DataFrame.from_records(list(payloads))
    sensors = pd.DataFrame.from_records(messages.pop("sensors").tolist())
    hexes = messages["message_id"].str.replace("-", "")
    messages["message_id"] = hexes.map(bytes.fromhex)
    backlog = messages.get("backlog", pd.Series(False, index=messages.index))
    frame = pd.concat(
        [
            table.drop(["payload"]).unify_dictionaries().to_pandas(),
            messages.add_prefix("$."),
            sensors.add_prefix("$.sensors."),
        ],
        axis="columns",
    )
    return _readings(frame, backlog.fillna(False).astype(bool))


def _readings(frame: pd.DataFrame, backlog: pd.Series) -> pd.DataFrame:
    devices = frame["topic"].cat.rename_categories(lambda topic: topic.split("/")[2])
    check(holds=bool((devices.astype(str) == frame["$.device_id"].astype(str)).all()), what="ids")
    received_s = frame["received_at"].astype("int64") / 1e6
    seconds = frame["$.timestamp"]
    suspect = ~seconds.between(EARLIEST_EPOCH_S, received_s + MAX_AHEAD_S)
    told = pd.to_datetime(seconds, unit="s", utc=True).astype("datetime64[us, UTC]")
    return pd.DataFrame(
        {
            "bucket": frame["bucket"],
            "message_id": frame["$.message_id"],
            "device_id": devices.astype(str),
            "time": told.where(~suspect, frame["received_at"]),
            "received_at": frame["received_at"],
            **{name: frame.get(f"$.sensors.{name}", np.nan) for name in SENSORS},
            "extra": None,
            "signal_strength": frame["$.signal_strength"].astype(float),
            "seq": frame["$.seq"],
            "firmware_version": frame["$.firmware_version"].astype(str),
            "model_version": None,
            "clock_suspect": suspect,
            "backlog": backlog,
        }
    )


def _enrich(readings: pd.DataFrame, folder: Path) -> pd.DataFrame:
    placements = pd.read_parquet(reference_path(folder, "placements"))
    weather = pd.read_parquet(reference_path(folder, "weather"))[
        ["farm_id", "hour", "weather_condition"]
    ]
    irrigation = pd.read_parquet(reference_path(folder, "irrigation"))
    check(holds=placements["device_id"].is_unique, what="a device that was moved")
    placed = readings.merge(placements.drop(columns=["valid_from", "device_type"]), on="device_id")
    placed["hour"] = placed["time"].dt.floor("h")
    placed = placed.merge(weather, on=["farm_id", "hour"], how="left")
    placed = placed.merge(irrigation, on="farm_id", how="left")
    placed["irrigation_event"] = (placed["begins"] <= placed["time"]) & (
        placed["time"] < placed["ends"]
    )
    quality = pd.Series("", index=placed.index)
    names = {"time": placed["clock_suspect"]} | {
        name: placed[name].notna() & ~placed[name].between(low, high)
        for name, (low, high) in RANGES.items()
    }
    for name, bad in names.items():
        quality[bad] = quality[bad] + name + ","
    placed["quality"] = quality.str.rstrip(",")
    return placed


def _roll(folder: Path, place: Place) -> None:
    columns = ["device_id", "farm_id", "time", *RANGES]
    readings = pd.read_parquet(path_of(folder, SILVER), columns=columns)
    for name, (low, high) in RANGES.items():
        readings[name] = readings[name].astype(float).where(readings[name].between(low, high))
    if place == HOURLY:
        name, start = "bucket", readings["time"].dt.floor("h")
    else:
        name, start = "day", readings["time"].dt.normalize()
    groups = readings.assign(**{name: start}).groupby(["device_id", name])
    rolled = groups.agg(**_STATISTICS)
    rolled["rain_mm"] = groups["rainfall_mm"].sum(min_count=1)
    rolled = rolled.reset_index().sort_values(["device_id", name])
    if name == "day":
        rolled["day"] = rolled["day"].dt.date
    check(holds=int(rolled["sample_count"].sum()) == len(readings), what="reconciles_with_silver")
    rolled.to_parquet(path_of(folder, place), compression="zstd", index=False)


def _features(folder: Path) -> None:
    hourly = _concat(hourly_paths(folder), ["device_id", "bucket", "soil_avg", "temp_avg"])
    hourly["days"] = (hourly["bucket"] - START).dt.total_seconds() / 86_400
    groups = hourly.groupby("device_id")
    soil, temperature = groups["soil_avg"], groups["temp_avg"]
    enough_soil = soil.count() >= MIN_HOURS
    enough_temperature = temperature.count() >= MIN_HOURS
    divisor = temperature.mean().abs().clip(lower=MIN_TEMPERATURE_DIVISOR_C)
    features = pd.DataFrame(
        {
            "soil_7d_avg": soil.mean().where(enough_soil),
            "soil_7d_stddev": soil.std().where(enough_soil),
            "temp_7d_avg": temperature.mean().where(enough_temperature),
            "soil_trend_slope": _slopes(hourly).where(enough_soil),
            "temp_variability": (temperature.std() / divisor).where(enough_temperature),
        }
    )
    daily = _concat(daily_paths(folder), ["device_id", "day", "rain_mm"])
    irrigated = pd.read_parquet(reference_path(folder, "irrigated_days"))
    features["days_since_irrigation"] = _days_since(irrigated)
    features["days_since_rain"] = _days_since(daily[daily["rain_mm"] >= WET_DAY_MM])
    features = features.assign(date=DAY).reset_index().sort_values("device_id")
    check(holds=features["device_id"].is_unique, what="features_valid")
    features.to_parquet(path_of(folder, FEATURES), compression="zstd", index=False)


def _slopes(hourly: pd.DataFrame) -> Any:
    """Least squares, by the sums of deviations."""
    known = hourly.dropna(subset=["soil_avg"])
    groups = known.groupby("device_id")
    days = known["days"] - groups["days"].transform("mean")
    soil = known["soil_avg"] - groups["soil_avg"].transform("mean")
    products = known[["device_id"]].assign(both=days * soil, squares=days * days)
    sums = products.groupby("device_id").sum()
    return sums["both"] / sums["squares"]


def _days_since(events: pd.DataFrame) -> Any:
    days = pd.to_datetime(events["day"])
    since = (pd.Timestamp(DAY) - days).dt.days
    recent = events.assign(since=since)[since.between(0, MAX_DAYS_SINCE)]
    return recent.groupby("device_id")["since"].min()


def _concat(paths: list[Path], columns: list[str]) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path, columns=columns) for path in paths])


if __name__ == "__main__":
    run(contend)
