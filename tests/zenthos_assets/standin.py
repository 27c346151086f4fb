"""A small code location with the rules of the real one, driven by files in a folder.

Where `fail` exists, cleaning fails; where `unsound` does, its check refuses; while `hold` does,
features wait. An archive holds readings of the days in `days`; builds append lines to `builds`.
"""

import os
import time
from pathlib import Path

import dagster as dg

from zenthos_assets.alerts import alert_on_failure
from zenthos_assets.automation import late_data_and_healing
from zenthos_assets.governance import governed
from zenthos_assets.partitions import DAILY, HOURLY, ONE_RUN, window_of
from zenthos_assets.resources import Platform

FOLDER = "STANDIN_FOLDER"
DAYS = dg.AssetKey(["bronze", "telemetry_days"])
TELEMETRY = dg.AssetKey(["bronze", "telemetry"])
CLEANED = dg.AssetKey(["silver", "telemetry_cleaned"])
HOURLY_ROLLUP = dg.AssetKey(["gold", "telemetry_hourly"])
DAILY_ROLLUP = dg.AssetKey(["gold", "telemetry_daily"])
FEATURES = dg.AssetKey(["gold", "ml_features"])
BUILT = (CLEANED, HOURLY_ROLLUP, DAILY_ROLLUP, FEATURES)


def folder() -> Path:
    """Where the files lie by which tests drive the assets."""
    return Path(os.environ[FOLDER])


def built(key: dg.AssetKey, deps: list[dg.AssetDep | dg.AssetKey]) -> dg.AssetsDefinition:
    """A daily asset of silver or gold with a blocking check."""

    @dg.asset(
        key=key,
        deps=deps,
        partitions_def=DAILY,
        backfill_policy=ONE_RUN,
        group_name=key.path[0],
        check_specs=[dg.AssetCheckSpec("sound", asset=key, blocking=True)],
    )
    def build(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        keys = context.partition_keys
        with (folder() / "builds").open("a") as file:
            file.write(f"{key.to_user_string()} {keys[0]} {keys[-1]} {context.run.run_id}\n")
        if key == CLEANED and (folder() / "fail").exists():
            raise RuntimeError("the store is away")
        while key == FEATURES and (folder() / "hold").exists():
            time.sleep(0.1)
        sound = not (key == CLEANED and (folder() / "unsound").exists())
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=sound)])

    return build


@dg.asset(key=TELEMETRY, partitions_def=HOURLY, backfill_policy=ONE_RUN, group_name="bronze")
def telemetry(context: dg.AssetExecutionContext) -> None:
    """An archive whose object holds readings of the days that `days` names."""
    for day in (folder() / "days").read_text().split():
        context.log_event(dg.AssetMaterialization(DAYS, partition=day))


def standin(retries: dg.RetryPolicy | None = None) -> dg.Definitions:
    """The lineage from the archive to features."""
    definitions = dg.Definitions(
        assets=[
            telemetry,
            dg.AssetSpec(DAYS, deps=[TELEMETRY], partitions_def=DAILY, group_name="bronze"),
            built(CLEANED, [DAYS]),
            built(HOURLY_ROLLUP, [CLEANED]),
            built(DAILY_ROLLUP, [CLEANED]),
            built(
                FEATURES,
                [
                    dg.AssetDep(HOURLY_ROLLUP, partition_mapping=window_of(7)),
                    dg.AssetDep(DAILY_ROLLUP, partition_mapping=window_of(31)),
                ],
            ),
        ],
        jobs=[
            dg.define_asset_job("archive", dg.AssetSelection.groups("bronze")),
            dg.define_asset_job("daily", dg.AssetSelection.groups("silver", "gold")),
        ],
        sensors=[late_data_and_healing, alert_on_failure],
        resources={"platform": Platform()},
        executor=dg.in_process_executor,
    )
    return governed(definitions, retries)


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads."""
    return standin()
