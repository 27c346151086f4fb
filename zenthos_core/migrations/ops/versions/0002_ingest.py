"""Ingest in full: status and log history, rate limit, presence, gaps, spool, forwarders."""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"

UPGRADE = """
-- What a device is expected to do, and what ingest has learned of it.
ALTER TABLE devices
  ADD COLUMN report_interval_s double precision CHECK (report_interval_s > 0),
  ADD COLUMN observed_interval_s double precision,
  ADD COLUMN status_at timestamptz,
  ADD COLUMN last_seq bigint,
  ADD COLUMN last_seq_at timestamptz,
  ADD COLUMN missing_readings bigint NOT NULL DEFAULT 0;

-- One index for both uses: uniqueness, and a device's readings by time. The small second one finds
-- a reading whose `time` is the time of receipt and so differs each time it arrives.
ALTER TABLE telemetry_hot
  DROP CONSTRAINT telemetry_hot_message_id_time_device_id_key,
  ADD UNIQUE (device_id, time, message_id);
DROP INDEX telemetry_hot_device;
CREATE INDEX telemetry_hot_suspect ON telemetry_hot (message_id)
  WHERE clock_suspect OR time > received_at;

-- Status reports and log lines of the last days, one partition a day of `time`.
CREATE TABLE device_status (
  time timestamptz NOT NULL,
  message_id uuid NOT NULL,
  device_id text NOT NULL,
  status text NOT NULL,
  uptime_seconds double precision,
  free_heap_bytes bigint,
  boot_count bigint,
  reset_reason text,
  firmware_version text,
  model_version text,
  received_at timestamptz NOT NULL,
  clock_suspect boolean NOT NULL DEFAULT false,
  UNIQUE (device_id, time, message_id)
) PARTITION BY RANGE (time);
CREATE INDEX device_status_suspect ON device_status (message_id)
  WHERE clock_suspect OR time > received_at;
CREATE TABLE device_logs (
  time timestamptz NOT NULL,
  message_id uuid NOT NULL,
  device_id text NOT NULL,
  level text NOT NULL,
  message text NOT NULL,
  received_at timestamptz NOT NULL,
  clock_suspect boolean NOT NULL DEFAULT false,
  UNIQUE (device_id, time, message_id)
) PARTITION BY RANGE (time);
CREATE INDEX device_logs_suspect ON device_logs (message_id)
  WHERE clock_suspect OR time > received_at;

ALTER TABLE inference_results ADD COLUMN clock_suspect boolean NOT NULL DEFAULT false;
CREATE INDEX inference_results_suspect ON inference_results (message_id)
  WHERE clock_suspect OR time > received_at;

-- Ids of messages older than the hot window, which no other table remembers, for as many days.
CREATE TABLE cold_messages (
  device_id text NOT NULL,
  message_id uuid NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (device_id, message_id)
);
CREATE INDEX cold_messages_received ON cold_messages USING brin (received_at);

-- A message that comes again and again takes one row.
ALTER TABLE quarantine
  ADD COLUMN fingerprint bytea,
  ADD COLUMN occurrences bigint NOT NULL DEFAULT 1,
  ADD COLUMN last_received_at timestamptz;
UPDATE quarantine SET last_received_at = received_at,
  fingerprint = sha256(sha256(convert_to(reason || E'\\n' || topic, 'UTF8')) || payload);
WITH kept AS (
  SELECT fingerprint, min(id) AS id, count(*) AS occurrences, max(received_at) AS last_received_at
  FROM quarantine GROUP BY fingerprint
), merged AS (
  UPDATE quarantine q SET
    occurrences = kept.occurrences, last_received_at = kept.last_received_at
  FROM kept WHERE q.id = kept.id
)
DELETE FROM quarantine q USING kept WHERE q.fingerprint = kept.fingerprint AND q.id <> kept.id;
ALTER TABLE quarantine
  ALTER COLUMN fingerprint SET NOT NULL,
  ALTER COLUMN last_received_at SET NOT NULL,
  ADD UNIQUE (fingerprint);

ALTER TABLE ledger ADD COLUMN rate_limited bigint NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN received bigint
  GENERATED ALWAYS AS (stored + duplicate + quarantined + rate_limited) STORED;

-- How far each worker's spool has been replayed; moves in the transaction that stores.
CREATE TABLE ingest_spool (
  worker_id text PRIMARY KEY,
  segment bigint NOT NULL,
  position bigint NOT NULL
);

-- The outbox in the order of commits: transaction, then row. A forwarder's cursor is such a pair.
ALTER TABLE raw_messages ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
CREATE TABLE forwarders (
  name text PRIMARY KEY,
  xid xid8 NOT NULL,
  id bigint NOT NULL,
  forwarded bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT now()
);
-- What bronze has archived and some forwarder has not yet forwarded.
CREATE TABLE forward_backlog (
  xid xid8 NOT NULL,
  id bigint NOT NULL,
  message_type text NOT NULL,
  topic text NOT NULL,
  payload bytea NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (xid, id)
);
"""


# Where it has been created, or is loaded and this role may create it.
HAS_TIMESCALEDB = """
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') OR (
  EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
  AND EXISTS (SELECT FROM pg_settings WHERE name = 'shared_preload_libraries'
    AND position('timescaledb' IN setting) > 0)
  AND EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper))
"""
DAY_TABLES = ("telemetry_hot", "device_status", "device_logs")
TO_HYPERTABLE = """
ALTER TABLE {table} RENAME TO {table}_native;
CREATE TABLE {table} (LIKE {table}_native INCLUDING ALL);
SELECT create_hypertable(
  '{table}', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
INSERT INTO {table} SELECT * FROM {table}_native;
DROP TABLE {table}_native;
"""


def upgrade() -> None:
    op.execute(UPGRADE)
    if op.get_bind().scalar(text(HAS_TIMESCALEDB)):
        op.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        for table in DAY_TABLES:
            op.execute(TO_HYPERTABLE.format(table=table))


def downgrade() -> None:
    raise RuntimeError("restore a backup instead: this would drop what ingest has stored")
