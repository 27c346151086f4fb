"""Weekly maintenance as assets, so that sizes and durations can be followed from week to week."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
import psycopg
from psycopg.conninfo import conninfo_to_dict

from zenthos_assets.maintenance import checks
from zenthos_assets.maintenance.backup import (
    HOT_TABLES,
    Backup,
    back_up,
    backup_name,
    remove_old,
)
from zenthos_assets.maintenance.vacuum import Vacuumed, vacuum_tables
from zenthos_assets.resources import Platform
from zenthos_core import lake
from zenthos_core.blobs import BlobStore
from zenthos_core.database import Database
from zenthos_core.errors import BlobNotFoundError
from zenthos_core.settings import Settings

SAMPLED_OBJECTS: Final = 200
LARGEST_TABLES: Final = 50
"""Rows of a table in the UI."""

GROUP: Final = "maintenance"
LAKE_KEY: Final = dg.AssetKey([GROUP, "lake_sample"])
OWNERS: Final = ["team:platform"]


def vacuum_asset(database: Database) -> dg.AssetsDefinition:
    """VACUUM and ANALYZE of one database."""
    key = dg.AssetKey([GROUP, f"vacuum_{database}"])

    @dg.asset(
        key=key,
        group_name=GROUP,
        kinds={"postgres"},
        owners=OWNERS,
        description=f"Dead rows removed from zenthos_{database}, and its statistics renewed.",
        check_specs=[checks.reached_spec(key)],
    )
    def vacuum(platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with _connect(platform, database) as connection:
            connection.autocommit = True
            tables = vacuum_tables(connection)
        return dg.MaterializeResult(
            metadata=describe_vacuum(tables), check_results=[checks.reached(tables)]
        )

    return vacuum


def backup_asset(database: Database) -> dg.AssetsDefinition:
    """A verified backup of one database."""
    key = dg.AssetKey([GROUP, f"backup_{database}"])

    @dg.asset(
        key=key,
        group_name=GROUP,
        kinds={"postgres"},
        owners=OWNERS,
        description=f"A backup of zenthos_{database}, restored beside it and compared.",
        check_specs=[checks.restores_spec(key)],
    )
    def backup(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg]
        settings = platform.settings
        url = _url(settings, database)
        name = str(conninfo_to_dict(url)["dbname"])
        folder = settings.backup_dir or settings.home / "backups"
        leave_out = () if settings.backup_hot else HOT_TABLES
        path = folder / backup_name(name, datetime.now(UTC))
        made = back_up(url, path, programs=settings.postgres_bin, leave_out=leave_out)
        if not made.differing:
            removed = remove_old(folder, name, settings.backups_kept)
            context.log.info("removed %s", [old.name for old in removed])
        return dg.MaterializeResult(
            metadata=describe_backup(made), check_results=[checks.restores(made)]
        )

    return backup


@dg.asset(
    key=LAKE_KEY,
    group_name=GROUP,
    kinds={"parquet"},
    owners=OWNERS,
    description="Archive objects drawn at random, read and compared with their record.",
    check_specs=[checks.intact_spec(LAKE_KEY)],
)
def lake_sample(platform: Platform) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The lake is the backup of every message: nothing else holds what has been archived."""
    with platform.ops() as connection:
        recorded = sample_objects(connection, SAMPLED_OBJECTS)
    store = platform.store()
    broken = [key for key, _, digest in recorded if not intact(store, key, digest)]
    return dg.MaterializeResult(
        metadata={"objects": len(recorded), "size_bytes": sum(size for _, size, _ in recorded)},
        check_results=[checks.intact(broken)],
    )


def sample_objects(connection: psycopg.Connection, count: int) -> list[tuple[str, int, str]]:
    """(key, bytes, SHA-256) of recorded archive objects, other ones each time."""
    return connection.execute(
        "SELECT object_key, size_bytes, sha256 FROM bronze_objects ORDER BY random() LIMIT %s",
        [count],
    ).fetchall()


def intact(store: BlobStore, key: str, digest: str) -> bool:
    """Whether an archive object is there and what was written."""
    try:
        return hashlib.sha256(store.get(lake.BRONZE, key)).hexdigest() == digest
    except BlobNotFoundError:
        return False


def describe_vacuum(tables: Sequence[Vacuumed]) -> dict[str, dg.MetadataValue[Any] | int | float]:
    """Sums, and the tables with most dead rows."""
    worst = sorted(tables, key=lambda t: (-t.dead_before, -t.size_bytes))[:LARGEST_TABLES]
    rows = [
        dg.TableRecord(
            {
                "table": t.table,
                "outcome": t.outcome,
                "dead_rows_before": t.dead_before,
                "dead_rows_after": t.dead_after,
                "size_bytes": t.size_bytes,
                "seconds": round(t.seconds, 2),
            }
        )
        for t in worst
    ]
    return {
        "tables": len(tables),
        "dead_rows_before": sum(t.dead_before for t in tables),
        "dead_rows_after": sum(t.dead_after for t in tables),
        "seconds": round(sum(t.seconds for t in tables), 2),
        **({"by_table": dg.MetadataValue.table(rows)} if rows else {}),
    }


def describe_backup(backup: Backup) -> dict[str, dg.MetadataValue[Any] | int | float]:
    """Size, durations, and the rows of each table as they were and as they came back."""
    rows = [
        dg.TableRecord(
            {
                "table": name,
                "rows": original.rows,
                "rows_restored": backup.restored[name].rows if name in backup.restored else -1,
                "same": backup.restored.get(name) == original,
            }
        )
        for name, original in backup.original.items()
    ]
    return {
        "path": dg.MetadataValue.path(str(backup.path)),
        "size_bytes": backup.size_bytes,
        "dump_seconds": round(backup.dump_s, 2),
        "restore_seconds": round(backup.restore_s, 2),
        "dagster/row_count": sum(original.rows for original in backup.original.values()),
        "by_table": dg.MetadataValue.table(rows),
    }


def _connect(platform: Platform, database: Database) -> psycopg.Connection:
    connections: dict[Database, Callable[[], psycopg.Connection]] = {
        Database.OPS: platform.ops,
        Database.ANALYTICS: platform.analytics,
    }
    return connections[database]()


def _url(settings: Settings, database: Database) -> str:
    urls = {
        Database.OPS: settings.database_url,
        Database.ANALYTICS: settings.analytics_database_url,
    }
    return urls[database].get_secret_value()


MAINTENANCE_ASSETS: Final = [
    *(vacuum_asset(database) for database in Database),
    *(backup_asset(database) for database in Database),
    lake_sample,
]
