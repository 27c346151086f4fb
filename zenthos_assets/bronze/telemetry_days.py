"""`bronze/telemetry_days`: the days that archived telemetry is about. Free of heavy imports.

Bronze is partitioned by the hour of receipt, silver by the day of the reading. Between them stands
this asset, which nothing builds:

1. A run that archives telemetry announces each day whose readings it has touched, as a
   materialization of that day's partition. What depends on a day is then out of date; no other is.
2. The data version of a day is a checksum of the objects that hold readings of it.
3. A day of a recent object whose announced version is another is announced, too: a run that was
   killed after its commit has announced nothing.
4. A day that has not begun (a clock may be ten minutes ahead) is announced once it has.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Final

import dagster as dg
import psycopg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from zenthos_assets.partitions import DAILY, SAME_DAY
from zenthos_core.topics import MessageType

TELEMETRY_KEY: Final = dg.AssetKey(["bronze", MessageType.TELEMETRY.value])
TELEMETRY_DAYS_KEY: Final = dg.AssetKey(["bronze", "telemetry_days"])
RECENT: Final = timedelta(days=3)
"""Rule 3: for so long, a lost announcement is made up for."""

TELEMETRY_DAYS: Final = dg.AssetSpec(
    TELEMETRY_DAYS_KEY,
    deps=[dg.AssetDep(TELEMETRY_KEY, partition_mapping=SAME_DAY)],
    partitions_def=DAILY,
    group_name="bronze",
    kinds={"postgres"},
    owners=["team:platform"],
    description=(
        "Which days the archived readings are about, whenever they arrived. A late reading marks "
        "the day it is about, and what is built from it, out of date."
    ),
    metadata={"table": "bronze_days"},
)

_CONTENTS: Final = """
SELECT d.day, o.sha256, d.row_count, o.object_key
FROM bronze_days d JOIN bronze_objects o USING (object_key)
WHERE o.table_name = %(table)s AND d.day <= %(today)s AND d.day IN (
  SELECT r.day FROM bronze_days r JOIN bronze_objects n USING (object_key)
  WHERE n.table_name = %(table)s AND (n.archived_at > now() - %(recent)s OR n.run_id = %(run_id)s)
) ORDER BY d.day, o.object_key"""


@dataclass(frozen=True)
class Day:
    """What bronze holds of a day."""

    day: date
    version: str
    readings: int
    objects: tuple[str, ...]


def recent_days(connection: psycopg.Connection, today: date, *, run_id: str) -> list[Day]:
    """Days until `today` of which that run, or another of late, has archived readings."""
    scope = {"table": MessageType.TELEMETRY.value, "today": today, "recent": RECENT}
    rows = connection.execute(_CONTENTS, {**scope, "run_id": run_id}).fetchall()
    connection.rollback()  # its snapshot ends here
    return list(_days(rows))


def _days(rows: Sequence[tuple[date, str, int, str]]) -> Iterator[Day]:
    """Rows (day, SHA-256, readings, object key), in order, by day (rule 2)."""
    for day, group in groupby(rows, key=itemgetter(0)):
        mine = list(group)
        digests = sorted(digest for _, digest, _, _ in mine)
        yield Day(
            day,
            hashlib.sha256("\n".join(digests).encode()).hexdigest(),
            sum(count for _, _, count, _ in mine),
            tuple(key for _, _, _, key in mine),
        )


def announced_versions(instance: dg.DagsterInstance, days: Iterable[Day]) -> dict[str, str]:
    """The data version that each day was last announced with."""
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        TELEMETRY_DAYS_KEY,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        [DATA_VERSION_TAG],
        asset_partitions=[str(day.day) for day in days],
    )
    return {partition: found[DATA_VERSION_TAG] for partition, found in tags.items()}


def announcements(days: Iterable[Day], announced: dict[str, str]) -> list[dg.AssetMaterialization]:
    """A materialization of each day that has changed since it was announced (rules 1 and 3)."""
    return [
        dg.AssetMaterialization(
            TELEMETRY_DAYS_KEY,
            partition=str(day.day),
            description=f"{day.readings} readings in {len(day.objects)} objects",
            metadata={"dagster/row_count": day.readings, "objects": list(day.objects[-20:])},
            tags={DATA_VERSION_TAG: day.version},
        )
        for day in days
        if announced.get(str(day.day)) != day.version
    ]
