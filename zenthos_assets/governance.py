"""Who waits for whom, what is tried again, what is rebuilt by itself: by layer, set in one place.

1. Runs of one pool follow each other, runs of different pools go side by side (`dagster.yaml`): a
   long backfill makes no archive wait. A run counts for every pool that its steps name.
2. A step of a layer that reads or writes databases and the lake is tried again after an error: a
   connection that was lost or a store that was away may be there again. What a check refuses is
   final.
3. Silver and gold are rebuilt by the condition of conditions.py.
"""

from collections.abc import Mapping
from typing import Final

import dagster as dg
from dagster_shared.record import replace

from zenthos_assets.conditions import with_condition

POOLS: Final[Mapping[str, str]] = {
    "bronze": "archive",
    "silver_shards": "build",
    "silver": "build",
    "gold": "build",
    "trends": "maintenance",
    "ml": "train",
    "release": "train",
    "maintenance": "maintenance",
}
"""Pool of each group of assets."""

RETRIED: Final = frozenset({"bronze", "silver_shards", "silver", "gold", "trends"})
"""Groups whose steps may be repeated at no cost: they give the same objects and rows."""

RETRIES: Final = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)


def governed(definitions: dg.Definitions, retries: dg.RetryPolicy | None) -> dg.Definitions:
    """The same definitions, each asset with the pool, retries and condition of its layer."""
    assets = [
        _governed(asset.map_asset_specs(with_condition), retries)
        if isinstance(asset, dg.AssetsDefinition)
        else asset
        for asset in definitions.assets or ()
    ]
    return replace(definitions, assets=assets)


def _governed(asset: dg.AssetsDefinition, retries: dg.RetryPolicy | None) -> dg.AssetsDefinition:
    groups = set(asset.group_names_by_key.values())
    pool = next((POOLS[group] for group in groups if group in POOLS), None)
    attributes = asset.get_attributes_dict()
    op = attributes["node_def"]
    if pool is None or not isinstance(op, dg.OpDefinition):
        return asset
    attributes["node_def"] = dg.OpDefinition(
        compute_fn=op.compute_fn,
        name=op.name,
        ins=op.ins,
        outs=op.outs,
        description=op.description,
        config_schema=op.config_schema,
        required_resource_keys=set(op.required_resource_keys),
        tags=op.tags,
        retry_policy=op.retry_policy or (retries if groups <= RETRIED else None),
        code_version=op._version,
        pool=op.pool or pool,
    )
    return dg.AssetsDefinition.dagster_internal_init(**attributes)
