"""Are the readings of a run's days once there, decodable and plausible?"""

from dataclasses import dataclass

import dagster as dg
import polars as pl

from zenthos_assets.silver.order import count_repeated

SILVER_KEY = dg.AssetKey(["silver", "telemetry_cleaned"])
MAX_BAD_SHARE = 0.2


@dataclass
class SilverTally:
    """What a run has seen, summed over its groups of days."""

    rows: int = 0
    duplicates: int = 0
    malformed: int = 0
    repeated_ids: int = 0
    out_of_range: int = 0
    unplaced: int = 0

    def add(self, cleaned: pl.DataFrame, *, received: int, malformed: int) -> None:
        """Count a group: what it received for its days, and what came of that."""
        self.rows += len(cleaned)
        self.duplicates += received - len(cleaned)
        self.malformed += malformed
        self.repeated_ids += count_repeated(cleaned)
        self.out_of_range += cleaned.filter(pl.col("quality") != "").height
        self.unplaced += cleaned["farm_id"].null_count()


SILVER_CHECKS = [
    dg.AssetCheckSpec(
        "message_id_unique", asset=SILVER_KEY, blocking=True, description="No reading is twice in."
    ),
    dg.AssetCheckSpec(
        "nothing_malformed",
        asset=SILVER_KEY,
        blocking=True,
        description="Every archived payload decodes: ingest has quarantined the others.",
    ),
    dg.AssetCheckSpec(
        "devices_registered",
        asset=SILVER_KEY,
        blocking=True,
        description="Every reading's device is in the registry, with its farm.",
    ),
    dg.AssetCheckSpec(
        "values_in_range",
        asset=SILVER_KEY,
        description=f"At most {MAX_BAD_SHARE:.0%} of readings have an implausible value.",
    ),
]


def silver_results(tally: SilverTally) -> list[dg.AssetCheckResult]:
    """The outcome of SILVER_CHECKS."""
    share = tally.out_of_range / tally.rows if tally.rows else 0.0
    return [
        dg.AssetCheckResult(
            check_name="message_id_unique",
            passed=tally.repeated_ids == 0,
            metadata={"repeated": tally.repeated_ids},
        ),
        dg.AssetCheckResult(
            check_name="nothing_malformed",
            passed=tally.malformed == 0,
            metadata={"malformed": tally.malformed},
        ),
        dg.AssetCheckResult(
            check_name="devices_registered",
            passed=tally.unplaced == 0,
            metadata={"unplaced": tally.unplaced},
        ),
        dg.AssetCheckResult(
            check_name="values_in_range",
            passed=share <= MAX_BAD_SHARE,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"out_of_range": tally.out_of_range, "share": share},
        ),
    ]
