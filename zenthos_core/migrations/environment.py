"""Runs one database's migrations in one transaction, under an advisory lock."""

from alembic import context
from sqlalchemy import create_engine, pool, text

LOCK_KEY = 7_205_759
LOCK_TIMEOUT = "10s"


def run() -> None:
    """Apply what `zenthos_core.database.migrate` asked for."""
    url = context.config.attributes["url"].replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        context.configure(connection=connection)
        context.run_migrations()
