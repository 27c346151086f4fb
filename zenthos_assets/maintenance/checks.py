"""Do the backups restore, is the lake intact, was every table reached?"""

from collections.abc import Sequence

import dagster as dg

from zenthos_assets.maintenance.backup import Backup
from zenthos_assets.maintenance.vacuum import Vacuumed

RESTORES = "restores_to_the_same"
REACHED = "every_table_reached"
INTACT = "sampled_objects_intact"


def restores_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Blocking: a backup that does not restore is none."""
    return dg.AssetCheckSpec(
        RESTORES,
        asset=asset,
        blocking=True,
        description="Restored beside the original, every table has the same rows.",
    )


def restores(backup: Backup) -> dg.AssetCheckResult:
    """The outcome of `restores_spec`."""
    differing = backup.differing
    return dg.AssetCheckResult(
        check_name=RESTORES,
        passed=not differing,
        description=f"not as they were: {', '.join(differing)}" if differing else None,
        metadata={"differing": differing, "tables": len(backup.original)},
    )


def reached_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """A table may be in use for once; each week is a fault."""
    return dg.AssetCheckSpec(
        REACHED, asset=asset, description="No table was locked or took longer than is allowed."
    )


def reached(tables: Sequence[Vacuumed]) -> dg.AssetCheckResult:
    """The outcome of `reached_spec`."""
    left_out = [f"{t.table}: {t.outcome}" for t in tables if t.left_out]
    return dg.AssetCheckResult(
        check_name=REACHED,
        passed=not left_out,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(left_out) or None,
        metadata={"left_out": left_out},
    )


def intact_spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """Blocking: the lake is the only place where archived messages are."""
    return dg.AssetCheckSpec(
        INTACT,
        asset=asset,
        blocking=True,
        description="Sampled archive objects have their recorded rows and SHA-256.",
    )


def intact(broken: Sequence[str]) -> dg.AssetCheckResult:
    """The outcome of `intact_spec`."""
    return dg.AssetCheckResult(
        check_name=INTACT,
        passed=not broken,
        description=f"missing or changed: {', '.join(broken)}" if broken else None,
        metadata={"broken": list(broken)},
    )
