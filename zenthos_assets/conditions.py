"""When a day is built again without a schedule. Free of assets; definitions.py attaches it.

1. Late data: a day that was built is built again when what it is made of changes: its readings in
   the archive (`bronze/telemetry_days`), or a day of silver or gold that its window sees.
2. A day that was never built, and the running one, wait for `daily_build`.
3. Healing: a day whose run failed is tried once more, and then once a night, until it succeeds;
   it does not count as late meanwhile.
4. A day waits while it, or what it is made of, is being built, and while a blocking check of that
   has failed, in whichever run.
"""

from typing import Final

import dagster as dg

from zenthos_assets.partitions import DAILY

NIGHTLY: Final = "30 3 * * *"
"""After `daily_build`, which may have healed it."""

REBUILT: Final = ("silver", "silver_shards", "gold")
"""Groups whose assets have the condition, where they have a partition a day."""

SOURCES: Final = dg.AssetSelection.assets("bronze/telemetry_days") | dg.AssetSelection.groups(
    *REBUILT
)
"""What has a partition a day. A change of an unpartitioned source would ask for every day."""

_when = dg.AutomationCondition

# Each side of `since` alone: joined by `|` they would lose the times by which Dagster tells which
# came first within a tick (dagster 1.13, boolean_operators.py).
_CHANGED: Final = (
    _when.any_deps_match(_when.newly_updated())
    .allow(SOURCES)
    .since(_when.newly_updated())
    .with_label("source_changed")
)
_WILL_CHANGE: Final = (
    _when.any_deps_match(_when.will_be_requested()).allow(SOURCES).with_label("source_will_change")
)

# A tick later: an archive changes a day several times, and whoever started it may build the day.
_SETTLED: Final = (_CHANGED & ~_CHANGED.newly_true()).with_label("source_changed_and_settled")

_LATE: Final = (
    ~_when.missing() & ~_when.execution_failed() & (_SETTLED | _WILL_CHANGE)
).with_label("late_data")

_NIGHT: Final[dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey]] = _when.cron_tick_passed(
    NIGHTLY
)

# True from the first failure to the next success or night.
_FAILED_ONCE: Final = _when.execution_failed().since(_when.newly_updated() | _NIGHT)

# A tick later: a request of the tick before, whose run failed at once, is not the healing.
_HEALING: Final = (
    (_FAILED_ONCE & ~_FAILED_ONCE.newly_true())
    .newly_true()
    .since_last_handled()
    .with_label("healing")
)

REBUILD: Final = (
    (_LATE | _HEALING)
    & ~_when.in_latest_time_window()
    & ~_when.in_progress()
    & ~_when.any_deps_in_progress()
    & _when.all_deps_blocking_checks_passed()
).with_label("late_data_or_healing")
"""The condition of every asset of silver and gold that has a partition a day."""


def with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
    """An asset of silver or gold with the condition; any other as it is."""
    if spec.group_name not in REBUILT or spec.partitions_def != DAILY:
        return spec
    return spec.replace_attributes(automation_condition=REBUILD)
