"""Cleaned readings, weather, responses to irrigation and trends; aggregates on TimescaleDB.

Where TimescaleDB is, the readings are a hypertable and the rollups continuous aggregates of it,
with the columns that the tables had; what the tables held is built again from the lake.
"""

from alembic import op
from sqlalchemy import text

revision = "0003"
down_revision = "0002"

TABLES = """
CREATE TABLE telemetry_historical (
  device_id text NOT NULL,
  time timestamptz NOT NULL,
  message_id uuid NOT NULL,
  farm_id uuid NOT NULL,
  received_at timestamptz NOT NULL,
  soil_moisture double precision,
  temperature double precision,
  humidity double precision,
  light_level double precision,
  battery_voltage double precision,
  rainfall_mm double precision,
  soil_moisture_20cm double precision,
  soil_moisture_40cm double precision,
  signal_strength double precision,
  firmware_version text,
  model_version text,
  quality text NOT NULL,
  weather_condition text,
  irrigation_event boolean NOT NULL,
  PRIMARY KEY (device_id, time, message_id)
) {partitioning};

CREATE TABLE weather_daily (
  farm_id uuid NOT NULL,
  day date NOT NULL,
  hour_count bigint NOT NULL,
  rain_mm double precision,
  temp_min double precision,
  temp_avg double precision,
  temp_max double precision,
  humidity_avg double precision,
  light_avg double precision,
  weather_condition text,
  PRIMARY KEY (farm_id, day)
);

CREATE TABLE irrigation_response (
  device_id text NOT NULL,
  started_at timestamptz NOT NULL,
  event_id uuid NOT NULL,
  farm_id uuid NOT NULL,
  duration_minutes bigint,
  water_volume_liters double precision,
  soil_before double precision,
  soil_after_avg double precision,
  soil_after_max double precision,
  soil_change double precision,
  hours_before bigint NOT NULL,
  hours_after bigint NOT NULL,
  dry_again_hours bigint,
  PRIMARY KEY (device_id, started_at, event_id)
);
CREATE INDEX irrigation_response_started ON irrigation_response (started_at);

CREATE TABLE telemetry_trends (
  device_id text NOT NULL,
  week date NOT NULL,
  weeks bigint NOT NULL,
  farm_id uuid NOT NULL,
  soil_days bigint NOT NULL,
  soil_avg double precision,
  soil_slope double precision,
  temp_days bigint NOT NULL,
  temp_avg double precision,
  temp_slope double precision,
  PRIMARY KEY (device_id, week, weeks)
);
CREATE INDEX telemetry_trends_week ON telemetry_trends (week);
CREATE INDEX ml_features_date ON ml_features (date);
"""

# Where it has been created, or is loaded and this role may create it; compression and continuous
# aggregates are in its community edition alone.
HAS_TIMESCALEDB = """
SELECT coalesce(current_setting('timescaledb.license', true), 'timescale') = 'timescale' AND (
  EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') OR (
    EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
    AND EXISTS (SELECT FROM pg_settings WHERE name = 'shared_preload_libraries'
      AND position('timescaledb' IN setting) > 0)
    AND EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper)))
"""

# The FILTER clauses are RANGES of zenthos_assets/silver/transforms.py.
AGGREGATES = """
CREATE EXTENSION IF NOT EXISTS timescaledb;
SELECT create_hypertable(
  'telemetry_historical', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
ALTER TABLE telemetry_historical SET (
  timescaledb.compress,
  timescaledb.compress_segmentby = 'device_id',
  timescaledb.compress_orderby = 'time, message_id');
DROP TABLE telemetry_hourly;
DROP TABLE telemetry_daily;
DELETE FROM etl_runs WHERE asset IN ('gold/telemetry_hourly', 'gold/telemetry_daily');
CREATE MATERIALIZED VIEW telemetry_hourly
  WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
  SELECT time_bucket('1 hour', time) AS bucket, {columns}
  FROM telemetry_historical GROUP BY time_bucket('1 hour', time), device_id WITH NO DATA;
CREATE MATERIALIZED VIEW telemetry_daily_utc
  WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
  SELECT time_bucket('1 day', time) AS bucket, {columns}
  FROM telemetry_historical GROUP BY time_bucket('1 day', time), device_id WITH NO DATA;
CREATE VIEW telemetry_daily AS SELECT (bucket AT TIME ZONE 'UTC')::date AS day, {names}
  FROM telemetry_daily_utc;
"""
SOIL = "FILTER (WHERE soil_moisture BETWEEN 0 AND 100)"
TEMPERATURE = "FILTER (WHERE temperature BETWEEN -40 AND 60)"
COLUMNS = {
    "device_id": "device_id",
    "farm_id": "first(farm_id, time)",
    "sample_count": "count(*)",
    "soil_avg": f"avg(soil_moisture) {SOIL}",
    "soil_min": f"min(soil_moisture) {SOIL}",
    "soil_max": f"max(soil_moisture) {SOIL}",
    "soil_stddev": f"stddev_samp(soil_moisture) {SOIL}",
    "temp_avg": f"avg(temperature) {TEMPERATURE}",
    "temp_min": f"min(temperature) {TEMPERATURE}",
    "temp_max": f"max(temperature) {TEMPERATURE}",
    "temp_stddev": f"stddev_samp(temperature) {TEMPERATURE}",
    "humidity_avg": "avg(humidity) FILTER (WHERE humidity BETWEEN 0 AND 100)",
    "light_avg": "avg(light_level) FILTER (WHERE light_level BETWEEN 0 AND 200000)",
    "battery_min": "min(battery_voltage) FILTER (WHERE battery_voltage BETWEEN 0 AND 30)",
    "rain_mm": "sum(rainfall_mm) FILTER (WHERE rainfall_mm BETWEEN 0 AND 60)",
    "soil_20cm_avg": "avg(soil_moisture_20cm) FILTER (WHERE soil_moisture_20cm BETWEEN 0 AND 100)",
    "soil_40cm_avg": "avg(soil_moisture_40cm) FILTER (WHERE soil_moisture_40cm BETWEEN 0 AND 100)",
}


def upgrade() -> None:
    timescaledb = op.get_bind().scalar(text(HAS_TIMESCALEDB))
    op.execute(TABLES.format(partitioning="" if timescaledb else "PARTITION BY RANGE (time)"))
    if timescaledb:
        columns = ", ".join(f"{value} AS {name}" for name, value in COLUMNS.items())
        op.execute(AGGREGATES.format(columns=columns, names=", ".join(COLUMNS)))


def downgrade() -> None:
    raise RuntimeError("restore a backup instead: this would drop the history of readings")
