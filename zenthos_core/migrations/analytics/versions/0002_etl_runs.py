"""What each partition was built from, so that unchanged input is skipped."""

from alembic import op

revision = "0002"
down_revision = "0001"

UPGRADE = """
CREATE TABLE etl_runs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  asset text NOT NULL,
  partition text NOT NULL,
  input_checksum text NOT NULL,
  output_checksum text NOT NULL,
  rows_in bigint NOT NULL,
  rows_out bigint NOT NULL,
  rows_duplicate bigint NOT NULL DEFAULT 0,
  rows_quarantined bigint NOT NULL DEFAULT 0,
  duration_s double precision NOT NULL,
  run_id text NOT NULL,
  finished_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX etl_runs_partition ON etl_runs (asset, partition, id DESC);
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    raise RuntimeError("restore a backup instead: this would drop the history of builds")
