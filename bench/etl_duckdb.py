"""The peer in SQL: DuckDB on the columns of the same bronze objects, or on raw JSON with `--json`.

1. The columns of shredded objects are plain Parquet types. Which templates hold `"backlog":true`
   stands in the metadata of the files; a payload that is kept as it is would have to be parsed, and
   there is none (checked).
2. Two threads, a limit of memory that it may spill beyond, UTC; everything else as it comes.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

import duckdb

from bench.etl_contender import (
    DAILY,
    FEATURES,
    HOURLY,
    SILVER,
    THREADS,
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
from zenthos_core.messages import EARLIEST_EPOCH_S, MAX_AHEAD_S

MEMORY: Final = "6GB"
RAW: Final = "--json"
_ROLLUP: Final = """
SELECT {start}, device_id, first(farm_id) farm_id, count(*) sample_count,
  avg(soil_moisture) soil_avg, min(soil_moisture) soil_min, max(soil_moisture) soil_max,
  stddev_samp(soil_moisture) soil_stddev,
  avg(temperature) temp_avg, min(temperature) temp_min, max(temperature) temp_max,
  stddev_samp(temperature) temp_stddev,
  avg(humidity) humidity_avg, avg(light_level) light_avg, min(battery_voltage) battery_min,
  sum(rainfall_mm) rain_mm, avg(soil_moisture_20cm) soil_20cm_avg,
  avg(soil_moisture_40cm) soil_40cm_avg
FROM (SELECT device_id, farm_id, time, {plausible} FROM read_parquet('{silver}'))
GROUP BY ALL ORDER BY device_id, {name}"""
_FEATURES: Final = """
WITH windows AS (
  SELECT device_id, count(soil_avg) soil_hours, count(temp_avg) temp_hours,
    avg(soil_avg) soil_avg, stddev_samp(soil_avg) soil_stddev,
    regr_slope(soil_avg, epoch(bucket) / 86400) slope,
    avg(temp_avg) temp_avg, stddev_samp(temp_avg) temp_stddev
  FROM read_parquet({hourly}) GROUP BY device_id),
rain AS (
  SELECT device_id, max(day) wet_day FROM read_parquet({daily})
  WHERE rain_mm >= {wet} GROUP BY device_id),
irrigation AS (
  SELECT device_id, max(day) irrigated_day FROM read_parquet('{irrigated}')
  WHERE day BETWEEN DATE '{earliest}' AND DATE '{day}' GROUP BY device_id)
SELECT device_id, DATE '{day}' date,
  CASE WHEN soil_hours >= {hours} THEN soil_avg END soil_7d_avg,
  CASE WHEN soil_hours >= {hours} THEN soil_stddev END soil_7d_stddev,
  CASE WHEN temp_hours >= {hours} THEN temp_avg END temp_7d_avg,
  CASE WHEN soil_hours >= {hours} THEN slope END soil_trend_slope,
  CASE WHEN temp_hours >= {hours} THEN temp_stddev / greatest(abs(temp_avg), {least}) END
    temp_variability,
  (DATE '{day}' - irrigated_day)::INTEGER days_since_irrigation,
  (DATE '{day}' - wet_day)::INTEGER days_since_rain
FROM windows LEFT JOIN rain USING (device_id) LEFT JOIN irrigation USING (device_id)
ORDER BY device_id"""
_CLEAN: Final = """
WITH once AS (
  SELECT * FROM readings WHERE time >= TIMESTAMPTZ '{day}' AND time < TIMESTAMPTZ '{next}'
  QUALIFY row_number() OVER (
    PARTITION BY device_id, message_id ORDER BY received_at, filename, file_row_number) = 1),
placements AS (
  SELECT device_id, farm_id, device_model, latitude, longitude,
    CASE WHEN lag(valid_from) OVER device IS NULL THEN NULL ELSE valid_from END begins,
    lead(valid_from) OVER device ends
  FROM read_parquet('{placements}') WINDOW device AS (PARTITION BY device_id ORDER BY valid_from))
SELECT bucket, message_id, once.device_id, time, received_at, {sensors}, extra, signal_strength,
  seq, firmware_version, model_version, clock_suspect, backlog, p.device_model, p.farm_id,
  latitude, longitude, w.weather_condition, i.begins IS NOT NULL irrigation_event,
  concat_ws(',', CASE WHEN clock_suspect THEN 'time' END, {outside}) quality
FROM once
JOIN placements p ON p.device_id = once.device_id
  AND (p.begins IS NULL OR p.begins <= time) AND (p.ends IS NULL OR time < p.ends)
LEFT JOIN read_parquet('{weather}') w
  ON w.farm_id = p.farm_id AND w.hour = date_trunc('hour', time)
LEFT JOIN read_parquet('{irrigation}') i
  ON i.farm_id = p.farm_id AND i.begins <= time AND time < i.ends
ORDER BY bucket, once.device_id, time, message_id"""
_LAYOUTS: Final = """
CREATE TABLE layouts AS
WITH found AS (
  SELECT file_name, decode(value)::JSON -> 'templates' templates
  FROM parquet_kv_metadata({files}) WHERE decode(key) = 'zenthos.shredded'),
numbered AS (
  SELECT file_name, templates, unnest(range(json_array_length(templates)::BIGINT)) number
  FROM found)
SELECT file_name filename, number::UTINYINT template,
  contains(json_extract_string(templates, '$[' || number || '].literals'), 'backlog\\":true')
    backlog FROM numbered"""
_SHREDDED: Final = """
CREATE VIEW readings AS
SELECT bucket, "$.message_id" message_id, split_part(topic, '/', 3) device_id, {time},
  received_at, {sensors}, NULL::VARCHAR extra, "$.signal_strength"::DOUBLE signal_strength,
  "$.seq" seq, "$.firmware_version" firmware_version, NULL::VARCHAR model_version, backlog,
  filename, file_row_number
FROM read_parquet({files}, union_by_name = true, filename = true, file_row_number = true)
JOIN layouts USING (filename, template)
WHERE "$.device_id" = split_part(topic, '/', 3)"""
_JSON: Final = """
CREATE VIEW readings AS
SELECT bucket, unhex(replace(m.message_id, '-', '')) message_id, m.device_id, {time},
  received_at, {sensors}, NULL::VARCHAR extra, m.signal_strength, m.seq, m.firmware_version,
  m.model_version, coalesce(m.backlog, false) backlog, filename, file_row_number
FROM (
  SELECT *, from_json(decode(payload), '{shape}') m
  FROM read_parquet({files}, filename = true, file_row_number = true))
WHERE m.device_id = split_part(topic, '/', 3)"""
_TIME: Final = (
    "{seconds} IS NULL OR {seconds} < {earliest} OR {seconds} > epoch(received_at) + {ahead}"
    " clock_suspect, CASE WHEN clock_suspect THEN received_at ELSE to_timestamp({seconds}) END time"
)


def contend(folder: Path, stages: Stages) -> None:
    """Silver, hourly, daily, features."""
    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}")
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    connection.execute(f"SET temp_directory = '{folder / 'spill'}'")
    connection.execute("SET TimeZone = 'UTC'")
    stages.timed("silver", lambda: _silver(connection, folder))
    stages.timed("hourly", lambda: _roll(connection, folder, HOURLY))
    stages.timed("daily", lambda: _roll(connection, folder, DAILY))
    stages.timed("features", lambda: _features(connection, folder))


def _silver(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    _view_json(connection, folder) if RAW in sys.argv else _view_shredded(connection, folder)
    query = _CLEAN.format(
        day=DAY,
        next=DAY + timedelta(days=1),
        sensors=", ".join(SENSORS),
        outside=", ".join(
            f"CASE WHEN {name} NOT BETWEEN {low} AND {high} THEN '{name}' END"
            for name, (low, high) in RANGES.items()
        ),
        **{n: reference_path(folder, n) for n in ("placements", "weather", "irrigation")},
    )
    silver = path_of(folder, SILVER)
    _copy(connection, query, silver)
    repeated = _number(
        connection,
        f"SELECT count(*) FROM (SELECT 1 FROM read_parquet('{silver}')"
        " GROUP BY device_id, message_id HAVING count(*) > 1)",
    )
    check(holds=repeated == 0, what="message_id_unique")


def _view_shredded(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    files = _list(bronze_paths(folder))
    bronze = f"read_parquet({files}, union_by_name = true)"
    kept = _number(connection, f"SELECT count(*) FROM {bronze} WHERE template IS NULL")
    check(holds=kept == 0, what="a payload that is kept as it is")
    described = connection.execute(f"DESCRIBE SELECT * FROM {bronze}").fetchall()
    there = {row[0] for row in described}
    sensors = [
        f'"$.sensors.{n}"::DOUBLE {n}' if f"$.sensors.{n}" in there else f"NULL::DOUBLE {n}"
        for n in SENSORS
    ]
    connection.execute(_LAYOUTS.format(files=files))
    connection.execute(
        _SHREDDED.format(files=files, sensors=", ".join(sensors), time=_time('"$.timestamp"'))
    )


def _view_json(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    numbers = ", ".join(f'"{name}": "DOUBLE"' for name in SENSORS)
    shape = (
        '{"message_id": "VARCHAR", "device_id": "VARCHAR", "timestamp": "DOUBLE",'
        f' "sensors": {{{numbers}}}, "firmware_version": "VARCHAR", "signal_strength": "DOUBLE",'
        ' "model_version": "VARCHAR", "seq": "BIGINT", "backlog": "BOOLEAN"}'
    )
    sensors = ", ".join(f"m.sensors.{name} {name}" for name in SENSORS)
    files = _list(raw_paths(folder))
    connection.execute(
        _JSON.format(files=files, shape=shape, sensors=sensors, time=_time("m.timestamp"))
    )


def _roll(connection: duckdb.DuckDBPyConnection, folder: Path, place: tuple[str, str]) -> None:
    name, start = (
        ("bucket", "date_trunc('hour', time)") if place == HOURLY else ("day", "time::DATE")
    )
    silver, rolled = path_of(folder, SILVER), path_of(folder, place)
    plausible = ", ".join(
        f"CASE WHEN {sensor} BETWEEN {low} AND {high} THEN {sensor} END {sensor}"
        for sensor, (low, high) in RANGES.items()
    )
    query = _ROLLUP.format(
        start=f"{start} AS {name}", name=name, plausible=plausible, silver=silver
    )
    _copy(connection, query, rolled)
    readings = _number(connection, f"SELECT count(*) FROM read_parquet('{silver}')")
    samples = _number(connection, f"SELECT sum(sample_count) FROM read_parquet('{rolled}')")
    check(holds=samples == readings, what="reconciles_with_silver")


def _features(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    query = _FEATURES.format(
        hourly=_list(hourly_paths(folder)),
        daily=_list(daily_paths(folder)),
        irrigated=reference_path(folder, "irrigated_days"),
        day=DAY,
        earliest=DAY - timedelta(days=MAX_DAYS_SINCE),
        hours=MIN_HOURS,
        least=MIN_TEMPERATURE_DIVISOR_C,
        wet=WET_DAY_MM,
    )
    features = path_of(folder, FEATURES)
    _copy(connection, query, features)
    repeated = _number(
        connection,
        f"SELECT count(*) - count(DISTINCT device_id) FROM read_parquet('{features}')",
    )
    check(holds=repeated == 0, what="features_valid")


def _copy(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _list(paths: list[Path]) -> str:
    return "[" + ", ".join(f"'{path}'" for path in paths) + "]"


def _time(seconds: str) -> str:
    return _TIME.format(seconds=seconds, earliest=EARLIEST_EPOCH_S, ahead=MAX_AHEAD_S)


if __name__ == "__main__":
    run(contend)
