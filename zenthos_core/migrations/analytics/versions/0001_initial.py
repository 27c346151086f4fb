"""Cleaned history, rollups and features; all of it can be rebuilt from the lake."""

from alembic import op

revision = "0001"
down_revision = None

UPGRADE = """
CREATE TABLE telemetry_hourly (
  bucket timestamptz NOT NULL,
  device_id text NOT NULL,
  farm_id uuid NOT NULL,
  sample_count bigint NOT NULL,
  soil_avg double precision,
  soil_min double precision,
  soil_max double precision,
  soil_stddev double precision,
  temp_avg double precision,
  temp_min double precision,
  temp_max double precision,
  temp_stddev double precision,
  humidity_avg double precision,
  light_avg double precision,
  battery_min double precision,
  rain_mm double precision,
  soil_20cm_avg double precision,
  soil_40cm_avg double precision,
  PRIMARY KEY (device_id, bucket)
);
CREATE INDEX telemetry_hourly_bucket ON telemetry_hourly (bucket);

CREATE TABLE telemetry_daily (
  day date NOT NULL,
  device_id text NOT NULL,
  farm_id uuid NOT NULL,
  sample_count bigint NOT NULL,
  soil_avg double precision,
  soil_min double precision,
  soil_max double precision,
  soil_stddev double precision,
  temp_avg double precision,
  temp_min double precision,
  temp_max double precision,
  temp_stddev double precision,
  humidity_avg double precision,
  light_avg double precision,
  battery_min double precision,
  rain_mm double precision,
  soil_20cm_avg double precision,
  soil_40cm_avg double precision,
  PRIMARY KEY (device_id, day)
);
CREATE INDEX telemetry_daily_day ON telemetry_daily (day);

CREATE TABLE ml_features (
  device_id text NOT NULL,
  date date NOT NULL,
  soil_7d_avg double precision,
  soil_7d_stddev double precision,
  temp_7d_avg double precision,
  soil_trend_slope double precision,
  temp_variability double precision,
  days_since_irrigation int,
  days_since_rain int,
  PRIMARY KEY (device_id, date)
);
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    raise RuntimeError("restore a backup instead: this would drop every table")
