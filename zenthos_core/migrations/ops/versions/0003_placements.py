"""Where each device was, and since when; readings that the lineage could not use."""

from alembic import op

revision = "0003"
down_revision = "0002"

UPGRADE = """
-- A placement holds until the device's next one. No key to devices: readings outlive a device.
CREATE TABLE device_placements (
  device_id text NOT NULL,
  valid_from timestamptz NOT NULL,
  farm_id uuid NOT NULL REFERENCES farms(id),
  device_type text NOT NULL,
  device_model text NOT NULL,
  latitude double precision,
  longitude double precision,
  PRIMARY KEY (device_id, valid_from)
);

INSERT INTO device_placements
  SELECT id, created_at, farm_id, device_type, device_model, latitude, longitude FROM devices;

CREATE FUNCTION record_placement() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO device_placements VALUES (
    NEW.id, now(), NEW.farm_id, NEW.device_type, NEW.device_model, NEW.latitude, NEW.longitude)
  ON CONFLICT (device_id, valid_from) DO UPDATE SET
    farm_id = excluded.farm_id, device_type = excluded.device_type,
    device_model = excluded.device_model,
    latitude = excluded.latitude, longitude = excluded.longitude;
  RETURN NULL;
END $$;
CREATE TRIGGER device_registered AFTER INSERT ON devices
  FOR EACH ROW EXECUTE FUNCTION record_placement();
-- Named columns: what ingest updates with every batch does not come here.
CREATE TRIGGER device_moved
  AFTER UPDATE OF id, farm_id, device_type, device_model, latitude, longitude ON devices
  FOR EACH ROW WHEN (
    (OLD.id, OLD.farm_id, OLD.device_type, OLD.device_model, OLD.latitude, OLD.longitude)
    IS DISTINCT FROM
    (NEW.id, NEW.farm_id, NEW.device_type, NEW.device_model, NEW.latitude, NEW.longitude))
  EXECUTE FUNCTION record_placement();

-- Archived messages that an asset could not use. The same content takes one row a day.
CREATE TABLE etl_errors (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  asset text NOT NULL,
  day date NOT NULL,
  topic text NOT NULL,
  device_id text,
  payload bytea NOT NULL,
  received_at timestamptz NOT NULL,
  reason text NOT NULL,
  detail text NOT NULL,
  object_key text NOT NULL,
  run_id text NOT NULL,
  occurrences bigint NOT NULL DEFAULT 1,
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'dismissed', 'resolved')),
  payload_sha256 bytea NOT NULL GENERATED ALWAYS AS (sha256(payload)) STORED,
  UNIQUE (asset, day, reason, topic, received_at, payload_sha256)
);
CREATE INDEX etl_errors_state ON etl_errors (state, id);
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    raise RuntimeError("restore a backup instead: this would drop where devices have been")
