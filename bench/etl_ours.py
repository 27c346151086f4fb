"""The lineage's own contender: the functions that the assets call, without Dagster and Postgres."""

from pathlib import Path

from bench.etl_contender import DAILY, FEATURES, HOURLY, SILVER, Stages, check, run
from bench.etl_day import DAY, read_irrigated_days, read_reference
from zenthos_assets import parquet
from zenthos_assets.gold.checks import FEATURE_RANGES, ROLLUP_RANGES, problems
from zenthos_assets.gold.compute import feature_days, rollup_days
from zenthos_assets.gold.transforms import Period
from zenthos_assets.silver.build import build_days
from zenthos_core import lake
from zenthos_core.blobs import FolderStore


def contend(folder: Path, stages: Stages) -> None:
    """Silver, hourly, daily, features."""
    store = FolderStore(folder)
    counted: list[int] = []
    stages.timed("silver", lambda: counted.append(_silver(store, folder)))
    stages.timed("hourly", lambda: _roll(store, "hour", counted[0]))
    stages.timed("daily", lambda: _roll(store, "day", counted[0]))
    stages.timed("features", lambda: _features(store, folder))


def _silver(store: FolderStore, folder: Path) -> int:
    """How many readings are kept."""
    keys = list(store.keys(lake.BRONZE, "telemetry/"))
    reference = read_reference(folder)
    built = build_days(
        store, [DAY], keys, reference, key_of=lambda day: lake.day_key(SILVER[1], day)
    )
    counts = built.tally.counts[DAY]
    check(holds=not built.tally.repeated and not counts.quarantined, what="message_id_unique")
    return counts.kept


def _roll(store: FolderStore, period: Period, rows: int) -> None:
    place, time = (HOURLY, "bucket") if period == "hour" else (DAILY, "day")
    frame = rollup_days(store, [DAY], {DAY: rows}, period)
    store.put(place[0], lake.day_key(place[1], DAY), parquet.encode(frame))
    check(holds=frame["sample_count"].sum() == rows, what="reconciles_with_silver")
    check(holds=not problems(frame, ("device_id", time), ROLLUP_RANGES), what="rollups_valid")


def _features(store: FolderStore, folder: Path) -> None:
    features = feature_days(store, DAY, DAY, read_irrigated_days(folder))
    store.put(FEATURES[0], lake.day_key(FEATURES[1], DAY), parquet.encode(features))
    wrong = problems(features, ("device_id", "date"), FEATURE_RANGES)
    check(holds=not wrong, what="features_valid")


if __name__ == "__main__":
    run(contend)
