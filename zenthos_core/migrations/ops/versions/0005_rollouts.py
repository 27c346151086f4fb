"""Rollouts and their deployments, alerts, what is known of uploads, keys and webhooks."""

from alembic import op

revision = "0005"
down_revision = "0004"

UPGRADE = """
-- The newest second that a token was issued at, by whichever server: what is voided includes it.
-- NULL before 0005.
ALTER TABLE devices ADD COLUMN token_issued_at timestamptz;

-- SHA-1 and MD5 are for clients of the DDI protocol that know nothing better; NULL before 0005.
ALTER TABLE releases
  ADD COLUMN sha1 text,
  ADD COLUMN md5 text,
  ADD COLUMN reissue_of uuid REFERENCES releases(id),
  ADD COLUMN withdrawn_at timestamptz,
  ADD COLUMN withdrawn_by text,
  ADD COLUMN withdrawal_reason text;

-- A reissue is an older binary under a new signed counter: the one way back.
ALTER TABLE release_targets
  ADD COLUMN reissue boolean NOT NULL DEFAULT false,
  DROP CONSTRAINT release_targets_device_model_kind_name_version_key;
DROP INDEX release_targets_firmware;
CREATE UNIQUE INDEX release_targets_version ON release_targets (device_model, kind, name, version)
  WHERE NOT reissue;
-- A firmware version names one image of a device model, whatever its kind and name.
CREATE UNIQUE INDEX release_targets_firmware ON release_targets (device_model, version)
  WHERE kind <> 'model' AND NOT reissue;

-- Percentages of `phases` rise; `phase` counts from 1. Who is in: rollout_bucket.
CREATE TABLE rollouts (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  release_id uuid NOT NULL,
  device_model text NOT NULL,
  farm_id uuid REFERENCES farms(id),
  tag text,
  phases double precision[] NOT NULL CHECK (cardinality(phases) BETWEEN 1 AND 20),
  control_percentage double precision NOT NULL DEFAULT 0
    CHECK (control_percentage BETWEEN 0 AND 50),
  success_threshold double precision NOT NULL
    CHECK (success_threshold > 0 AND success_threshold <= 1),
  error_threshold double precision NOT NULL CHECK (error_threshold >= 0 AND error_threshold < 1),
  min_devices int NOT NULL CHECK (min_devices >= 1),
  timeout_s int NOT NULL CHECK (timeout_s > 0),
  state text NOT NULL DEFAULT 'created'
    CHECK (state IN ('created', 'running', 'paused', 'finished', 'aborted')),
  phase int NOT NULL DEFAULT 1 CHECK (phase BETWEEN 1 AND cardinality(phases)),
  paused_reason text,
  rollback_of uuid REFERENCES rollouts(id),
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  phase_started_at timestamptz,
  ended_at timestamptz,
  FOREIGN KEY (release_id, device_model) REFERENCES release_targets (release_id, device_model)
);
CREATE INDEX rollouts_release ON rollouts (release_id, device_model);
CREATE UNIQUE INDEX rollouts_open ON rollouts (release_id, device_model)
  WHERE state IN ('created', 'running', 'paused');

-- What was decided last while it ran, that it waits too: apart, since each evaluation writes it.
CREATE TABLE rollout_evaluations (
  rollout_id uuid PRIMARY KEY REFERENCES rollouts(id) ON DELETE CASCADE,
  at timestamptz NOT NULL,
  action text NOT NULL,
  reasons jsonb NOT NULL
);

-- 0 to 9,999: the first 8 bytes of sha256(rollout id || device id) as a number, mod 10,000. With
-- its first bit flipped the number fits a bigint, 2^63 less. One expression of immutable parts is
-- inlined: convert_to is none, and ids of devices have nothing that a cast would unescape.
CREATE FUNCTION rollout_bucket(rollout_id uuid, device_id text) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (((
    ('x' || left(encode(sha256((rollout_id::text || device_id)::bytea), 'hex'), 16)
    )::bit(64)::bigint # (-9223372036854775808)) % 10000 + 10000 + 5808) % 10000)::int
$$;

-- A device's part in a rollout, from the first offer on. DDI calls it an action.
CREATE TABLE deployments (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  rollout_id uuid NOT NULL REFERENCES rollouts(id) ON DELETE CASCADE,
  device_id text NOT NULL REFERENCES devices(id),
  phase int NOT NULL,
  state text NOT NULL DEFAULT 'pending' CHECK (state IN (
    'pending', 'downloading', 'installing', 'rebooting',
    'success', 'failure', 'already-installed', 'aborted', 'timed_out')),
  stage text,
  reason text,
  previous_version text,
  report_counter bigint NOT NULL DEFAULT 0,
  confirmed_at timestamptz,  -- the signed version and hash were reported after the boot
  offered_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL,
  UNIQUE (rollout_id, device_id)
) WITH (fillfactor = 70);
CREATE INDEX deployments_device ON deployments (device_id, id);
CREATE INDEX deployments_open ON deployments (rollout_id, changed_at)
  WHERE state IN ('pending', 'downloading', 'installing', 'rebooting');
-- Given up after the boot was confirmed: readings may prove it all the same.
CREATE INDEX deployments_unproven ON deployments (confirmed_at)
  WHERE state IN ('timed_out', 'aborted') AND confirmed_at IS NOT NULL;
CREATE TABLE deployment_events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  deployment_id bigint NOT NULL REFERENCES deployments(id) ON DELETE CASCADE,
  at timestamptz NOT NULL,
  state text NOT NULL,
  stage text,
  reason text,
  detail jsonb
);
CREATE INDEX deployment_events_deployment ON deployment_events (deployment_id, id);

-- Another role ends sessions too.
ALTER TABLE sessions DROP CONSTRAINT sessions_end_reason_check, ADD CHECK (
  end_reason IN ('logout', 'token_reused', 'disabled', 'password_changed', 'role_changed'));

-- Predictions of a device since its update.
CREATE INDEX inference_results_device ON inference_results (device_id, time);

-- When the device last asked for the latest firmware and for the latest model; written in batches.
ALTER TABLE devices ADD COLUMN checked_in_at timestamptz,
  ADD COLUMN model_checked_in_at timestamptz;

-- Changes with releases and rollouts: what a server has read of them holds while it is the same.
CREATE TABLE catalogue (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version bigint NOT NULL DEFAULT 1
);
INSERT INTO catalogue DEFAULT VALUES;
CREATE FUNCTION change_catalogue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE catalogue SET version = version + 1;
  RETURN NULL;
END $$;
CREATE TRIGGER releases_changed AFTER INSERT OR UPDATE OR DELETE ON releases
  FOR EACH STATEMENT EXECUTE FUNCTION change_catalogue();
CREATE TRIGGER release_targets_changed AFTER INSERT OR UPDATE OR DELETE ON release_targets
  FOR EACH STATEMENT EXECUTE FUNCTION change_catalogue();
CREATE TRIGGER rollouts_changed AFTER INSERT OR UPDATE OR DELETE ON rollouts
  FOR EACH STATEMENT EXECUTE FUNCTION change_catalogue();

-- What was published before is offered to as many as its publisher said.
INSERT INTO rollouts (release_id, device_model, phases, success_threshold, error_threshold,
    min_devices, timeout_s, state, created_by, created_at, started_at, phase_started_at, ended_at)
  SELECT r.id, t.device_model, ARRAY[r.rollout_percentage], 0.9, 0.1, 1, 86400, 'finished',
    r.published_by, r.uploaded_at, r.uploaded_at, r.uploaded_at, r.uploaded_at
  FROM releases r JOIN release_targets t ON t.release_id = r.id WHERE r.rollout_percentage > 0;

-- One open alert of a type for a subject, such as `device field-1`; raised again, it counts.
CREATE TABLE alerts (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  alert_type text NOT NULL,
  severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
  subject text NOT NULL,
  device_id text REFERENCES devices(id),
  farm_id uuid REFERENCES farms(id),
  rollout_id uuid REFERENCES rollouts(id) ON DELETE CASCADE,
  message text NOT NULL,
  evidence jsonb NOT NULL DEFAULT '{}',
  occurrences bigint NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_raised_at timestamptz NOT NULL DEFAULT now(),
  acknowledged_at timestamptz,
  acknowledged_by text,
  resolved_at timestamptz,
  resolved_by text
);
CREATE UNIQUE INDEX alerts_open ON alerts (alert_type, subject) WHERE resolved_at IS NULL;
CREATE INDEX alerts_farm ON alerts (farm_id, created_at);
CREATE INDEX alerts_device ON alerts (device_id, created_at);
CREATE INDEX alerts_newest ON alerts (created_at, id);

-- What is asked of a farm's past, and of what a model has said.
CREATE INDEX device_placements_farm ON device_placements (farm_id, device_id);
CREATE INDEX inference_results_model ON inference_results (model_version, time);
CREATE INDEX bronze_days_object ON bronze_days (object_key);

-- Objects that are being written: one without a release in the end is removed.
CREATE TABLE uploads (
  object_key text PRIMARY KEY,
  started_at timestamptz NOT NULL
);

-- Every keys.json that was accepted: a lower version is not accepted any more.
CREATE TABLE trusted_key_versions (
  version bigint PRIMARY KEY,
  sha256 bytea NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now()
);

-- Deliveries of GitHub's webhook; the body is known by its hash, whatever id it comes under.
CREATE TABLE webhook_deliveries (
  id uuid PRIMARY KEY,
  body_sha256 bytea NOT NULL UNIQUE,
  repository text NOT NULL,
  tag text NOT NULL,
  assets jsonb NOT NULL,
  state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'published', 'failed')),
  detail text NOT NULL DEFAULT '',
  attempts int NOT NULL DEFAULT 0,
  received_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (received_at)
  WHERE state = 'pending';
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    raise RuntimeError("restore a backup instead: this would drop rollouts, deployments and alerts")
