"""Are the readings of a run's days all there, once each, and plausible?

1. A blocking check fails where silver is wrong; its days are not recorded, and what reads them
   waits. A warning says that the fleet is odd, and silver says so truly.
2. Days that a run finds unchanged have passed the blocking checks when they were built; the others
   are made anew each time, from the statistics of the days.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg
import polars as pl

from zenthos_assets import runs
from zenthos_assets.executors import ON_ARCHIVE_QUEUE
from zenthos_assets.resources import Platform
from zenthos_assets.silver.day_runs import CLEANED_ASSET, Outcome
from zenthos_assets.silver.errors import UNREGISTERED
from zenthos_assets.silver.examine import (
    BAD_SHARE,
    COVERAGE,
    DAYS_BEFORE,
    MISSING_RISE,
    ODD_RATIOS,
    Findings,
)
from zenthos_assets.silver.source import archived_shares

SILVER_KEY = dg.AssetKey(["silver", "telemetry_cleaned"])
Metadata = str | int | float | dg.MarkdownMetadataValue

MAX_UNUSABLE_SHARE: Final = 0.01
MAX_GAPPY_SHARE: Final = 0.1
SHOWN: Final = 20
"""Rows of a table in the metadata of a check."""

BUILT_BY: Final = timedelta(hours=3)
"""Yesterday is built from 02:00 on; an hour later it must be there."""

_BLOCKING: Final = {
    "message_id_unique": "No reading of a day is twice in.",
    "nothing_lost": "Every archived message is in silver, a duplicate of one that is, or in "
    "etl_errors.",
}
_WARNING: Final = {
    "few_unusable": f"At most {MAX_UNUSABLE_SHARE:.0%} of the messages lie open in etl_errors.",
    "devices_registered": "No message of a device that was never registered lies open.",
    "values_in_range": f"At most {BAD_SHARE:.0%} of a day's readings have an implausible value.",
    "null_rates": f"No sensor is missing {100 * MISSING_RISE:.0f} percentage points more often "
    f"than in the {DAYS_BEFORE} days before.",
    "few_gaps": f"At most {MAX_GAPPY_SHARE:.0%} of the devices sent less than {COVERAGE:.0%} of "
    "their readings.",
    "sensors_move": "No sensor of a device stands still that moved in the days before.",
    "usual_row_count": f"A day has {ODD_RATIOS[0]:g} to {ODD_RATIOS[1]:g} times the median of the "
    f"{DAYS_BEFORE} days before.",
}
SILVER_CHECKS = [
    dg.AssetCheckSpec(name, asset=SILVER_KEY, blocking=blocking, description=description)
    for blocking, group in ((True, _BLOCKING), (False, _WARNING))
    for name, description in group.items()
]


def silver_results(
    outcome: Outcome, found: Findings, unusable: pl.DataFrame
) -> list[dg.AssetCheckResult]:
    """The outcome of SILVER_CHECKS for the days of a run.

    Args:
        outcome: of the run.
        found: of all its days.
        unusable: `reason`, `device_id`, `messages`: what lies open of those days.
    """
    received = sum(build.rows_in for build in outcome.builds.values())
    strangers = unusable.filter(pl.col("reason") == UNREGISTERED)
    share = int(unusable["messages"].sum()) / received if received else 0.0
    gappy_share = len(found.gappy) / found.device_days if found.device_days else 0.0
    return [
        _result("message_id_unique", not outcome.repeated, {"repeated": outcome.repeated}),
        _result("nothing_lost", not outcome.lost, {str(d): why for d, why in outcome.lost.items()}),
        _warning("few_unusable", share <= MAX_UNUSABLE_SHARE, unusable, share=share),
        _warning("devices_registered", strangers.is_empty(), strangers),
        _warning("values_in_range", found.implausible.is_empty(), found.implausible),
        _warning("null_rates", found.missing_values.is_empty(), found.missing_values),
        _warning(
            "few_gaps",
            gappy_share <= MAX_GAPPY_SHARE,
            found.gappy.sort("coverage"),
            share=gappy_share,
        ),
        _warning("sensors_move", found.stuck.is_empty(), found.stuck),
        _warning("usual_row_count", found.odd_counts.is_empty(), found.odd_counts),
    ]


def _result(name: str, passed: bool, metadata: Mapping[str, Metadata]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(check_name=name, passed=passed, metadata=metadata)


def _warning(
    name: str, passed: bool, oddities: pl.DataFrame, *, share: float | None = None
) -> dg.AssetCheckResult:
    """Passed or not, with the first of the oddities."""
    metadata: dict[str, Metadata] = {"found": len(oddities)}
    if share is not None:
        metadata["share"] = share
    if not oddities.is_empty():
        metadata["first"] = table(oddities.head(SHOWN))
    return dg.AssetCheckResult(
        check_name=name, passed=passed, severity=dg.AssetCheckSeverity.WARN, metadata=metadata
    )


def table(frame: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """A small frame as the UI shows it."""
    lines = [frame.columns, ["---"] * frame.width, *frame.rows()]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(map(_text, line))} |" for line in lines))


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def newest_due(now: datetime) -> date:
    """The last day that must have been built by now."""
    return (now.astimezone(UTC) - BUILT_BY).date() - timedelta(days=1)


@dg.asset_check(
    asset=SILVER_KEY,
    description="Yesterday, if anything came of it, has been built by an hour after 02:00.",
    op_tags=ON_ARCHIVE_QUEUE,  # the archive job judges it, every hour
)
def freshness(platform: Platform) -> dg.AssetCheckResult:
    """Whether etl_runs knows the last day that must have been built."""
    due = newest_due(datetime.now(UTC))
    with platform.ops() as connection:
        archived = sum(share.row_count for share in archived_shares(connection, [due]))
    with platform.analytics() as connection:
        built = str(due) in runs.latest_builds(connection, CLEANED_ASSET, [str(due)])
    return dg.AssetCheckResult(
        passed=built or not archived,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"day": str(due), "archived": archived, "built": built},
    )
