"""Registry, hot telemetry, outbox, quarantine, ledger, archive index, releases."""

from alembic import op

revision = "0001"
down_revision = None

UPGRADE = """
CREATE TABLE farms (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  name text NOT NULL UNIQUE,
  owner text NOT NULL DEFAULT '',
  latitude double precision CHECK (latitude BETWEEN -90 AND 90),
  longitude double precision CHECK (longitude BETWEEN -180 AND 180),
  total_area_hectares double precision,
  crop_type text,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE devices (
  id text PRIMARY KEY,
  farm_id uuid NOT NULL REFERENCES farms(id),
  device_model text NOT NULL,
  device_type text NOT NULL,
  latitude double precision CHECK (latitude BETWEEN -90 AND 90),
  longitude double precision CHECK (longitude BETWEEN -180 AND 180),
  installed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  metadata jsonb NOT NULL DEFAULT '{}',
  -- current state, moved forward by ingest
  status text NOT NULL DEFAULT 'unknown'
    CHECK (status IN ('unknown', 'online', 'offline', 'maintenance')),
  last_seen timestamptz,
  last_reading timestamptz,
  firmware_version text,
  model_version text,
  battery_voltage double precision,
  signal_strength double precision,
  uptime_seconds double precision,
  free_heap_bytes bigint,
  boot_count bigint,
  reset_reason text
) WITH (fillfactor = 60);
CREATE INDEX devices_farm ON devices (farm_id);

-- Readings of the last days, one partition a day of `time`.
CREATE TABLE telemetry_hot (
  time timestamptz NOT NULL,
  message_id uuid NOT NULL,
  device_id text NOT NULL,
  farm_id uuid NOT NULL,
  soil_moisture double precision,
  temperature double precision,
  humidity double precision,
  light_level double precision,
  battery_voltage double precision,
  signal_strength double precision,
  firmware_version text,
  model_version text,
  seq bigint,
  received_at timestamptz NOT NULL,
  clock_suspect boolean NOT NULL DEFAULT false,
  backlog boolean NOT NULL DEFAULT false,
  extra jsonb,
  UNIQUE (message_id, time, device_id)
) PARTITION BY RANGE (time);
CREATE INDEX telemetry_hot_device ON telemetry_hot (device_id, time DESC);

CREATE TABLE inference_results (
  time timestamptz NOT NULL,
  message_id uuid NOT NULL,
  device_id text NOT NULL,
  model_version text NOT NULL,
  result jsonb NOT NULL,
  confidence double precision NOT NULL,
  features double precision[],
  received_at timestamptz NOT NULL,
  UNIQUE (message_id, time, device_id)
);

-- Outbox: the bytes as they arrived, until bronze has archived and verified them.
-- One partition an hour of `received_at`.
CREATE TABLE raw_messages (
  id bigint GENERATED ALWAYS AS IDENTITY,
  message_type text NOT NULL,
  topic text NOT NULL,
  payload bytea NOT NULL,
  received_at timestamptz NOT NULL,
  ingested_at timestamptz NOT NULL DEFAULT now(),
  qos smallint NOT NULL,
  retain boolean NOT NULL DEFAULT false,
  redelivered boolean NOT NULL DEFAULT false
) PARTITION BY RANGE (received_at);

CREATE TABLE quarantine (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  received_at timestamptz NOT NULL,
  topic text NOT NULL,
  device_id text,
  payload bytea NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL
);
CREATE INDEX quarantine_received ON quarantine (received_at);

-- received = stored + duplicate + quarantined, kept in the transaction that stores.
-- `device_id` is '' where the message names no registered device.
CREATE TABLE ledger (
  day date NOT NULL,
  device_id text NOT NULL,
  stored bigint NOT NULL DEFAULT 0,
  duplicate bigint NOT NULL DEFAULT 0,
  quarantined bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (day, device_id)
) WITH (fillfactor = 60);

-- What bronze holds. `part` numbers what came after the hour's first archive.
CREATE TABLE bronze_objects (
  table_name text NOT NULL,
  hour timestamptz NOT NULL,
  part int NOT NULL,
  object_key text NOT NULL UNIQUE,
  row_count bigint NOT NULL,
  size_bytes bigint NOT NULL,
  sha256 text NOT NULL,
  run_id text NOT NULL,
  archived_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (table_name, hour, part)
);
-- Which days' readings an archived object holds: silver reads no other.
CREATE TABLE bronze_days (
  object_key text NOT NULL REFERENCES bronze_objects (object_key) ON DELETE CASCADE,
  day date NOT NULL,
  row_count bigint NOT NULL,
  PRIMARY KEY (day, object_key)
);

CREATE TABLE irrigation_events (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  farm_id uuid NOT NULL REFERENCES farms(id),
  timestamp timestamptz NOT NULL,
  duration_minutes int,
  water_volume_liters double precision,
  triggered_by text,
  UNIQUE (farm_id, timestamp)
);

-- A row exists only once its binary is stored and verified. Releases are never changed.
CREATE TABLE releases (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  kind text NOT NULL CHECK (kind IN ('firmware-bundle', 'esp-image', 'model')),
  name text NOT NULL,
  version text NOT NULL,
  release_counter bigint NOT NULL,
  sha256 text NOT NULL,
  size_bytes bigint NOT NULL,
  manifest bytea NOT NULL,
  signature bytea NOT NULL,
  key_id text NOT NULL,
  expires_at timestamptz NOT NULL,
  required boolean NOT NULL DEFAULT false,
  rollout_percentage int NOT NULL DEFAULT 100 CHECK (rollout_percentage BETWEEN 0 AND 100),
  release_notes text NOT NULL DEFAULT '',
  published_by text NOT NULL,
  uploaded_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE release_targets (
  release_id uuid NOT NULL REFERENCES releases(id) ON DELETE CASCADE,
  device_model text NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  release_counter bigint NOT NULL,
  object_key text NOT NULL,
  PRIMARY KEY (release_id, device_model),
  UNIQUE (device_model, kind, name, version),
  UNIQUE (device_model, kind, release_counter)
);
-- A firmware version names one image of a device model, whatever its kind and name.
CREATE UNIQUE INDEX release_targets_firmware ON release_targets (device_model, version)
  WHERE kind <> 'model';
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    raise RuntimeError("restore a backup instead: this would drop every table")
