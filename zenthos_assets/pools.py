"""Who waits for whom, and what is tried again; set here for whole layers. Nothing else belongs here.

1. Runs of one pool follow each other, runs of different pools go side by side (`dagster.yaml`): a
   long backfill makes no archive wait. A run counts for every pool that its steps name.
2. A step of a layer that reads or writes databases and the lake is tried again after an error: a
   connection that was lost or a store that was away may be there again. What a check refuses is
   final.
"""

from collections.abc import Mapping
from typing import Final

import dagster as dg

POOLS: Final[Mapping[str, str]] = {
    "bronze": "archive",
    "silver_shards": "build",
    "silver": "build",
    "gold": "build",
    "trends": "build",
    "ml": "train",
    "release": "train",
    "maintenance": "maintenance",
}
"""Pool of each group of assets."""

RETRIED: Final = frozenset({"bronze", "silver_shards", "silver", "gold", "trends"})
"""Groups whose steps may be repeated at no cost: they give the same objects and rows."""

RETRIES: Final = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)


def governed(asset: dg.AssetsDefinition, retries: dg.RetryPolicy | None) -> dg.AssetsDefinition:
    """The same asset, in the pool of its group and with the retries of its layer."""
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
        code_version=op.version,
        pool=op.pool or pool,
    )
    return dg.AssetsDefinition.dagster_internal_init(**attributes)
