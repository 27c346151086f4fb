"""Partitions and how they hang together. Nothing else belongs here."""

import warnings
from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise

import dagster as dg

warnings.filterwarnings("ignore", category=dg.BetaWarning)  # dagster is pinned

HOURLY = dg.HourlyPartitionsDefinition("2026-01-01-00:00", timezone="UTC", end_offset=1)
"""Hours of receipt; the running hour may be archived too."""

DAILY = dg.DailyPartitionsDefinition("2020-01-01", timezone="UTC", end_offset=1)
"""Days of readings; the running day may be built too."""

ONE_RUN = dg.BackfillPolicy.single_run()
"""A date range is one run: 72 partitions in 2 s instead of half a second each."""


SAME_DAY = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
"""A day shows the hours in which most of it arrives: those of today may be still to come, and
readings older than the archive came later. What a day really reads, `bronze_days` says."""


def window_of(days: int) -> dg.TimeWindowPartitionMapping:
    """A day depends on itself and the days before it, `days` in all."""
    return dg.TimeWindowPartitionMapping(
        start_offset=-(days - 1), allow_nonexistent_upstream_partitions=True
    )


def days_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> list[date]:
    """The days of a run, in order."""
    return sorted(map(date.fromisoformat, context.partition_keys))


def ranges_of(days: Iterable[date]) -> list[tuple[date, date]]:
    """Runs of consecutive days as (first, last)."""
    ordered = sorted(set(days))
    if not ordered:
        return []
    breaks = [(a, b) for a, b in pairwise(ordered) if b - a > timedelta(days=1)]
    firsts = [ordered[0], *(b for _, b in breaks)]
    lasts = [*(a for a, _ in breaks), ordered[-1]]
    return list(zip(firsts, lasts, strict=True))
