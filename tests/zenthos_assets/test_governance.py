"""Pools and retries of every layer, and what is tried again."""

import dagster as dg
import pytest

from zenthos_assets.definitions import defs
from zenthos_assets.governance import POOLS, RETRIED, RETRIES, governed


def assets() -> list[dg.AssetsDefinition]:
    return [asset for asset in defs().assets or () if isinstance(asset, dg.AssetsDefinition)]


def test_rule_1_every_asset_is_in_the_pool_of_its_layer() -> None:
    assert assets()
    for asset in assets():
        [group] = set(asset.group_names_by_key.values())
        assert asset.op.pool == POOLS[group], asset.key


def test_rule_2_steps_that_may_be_repeated_are() -> None:
    for asset in assets():
        [group] = set(asset.group_names_by_key.values())
        assert (asset.op.retry_policy == RETRIES) is (group in RETRIED), asset.key


def test_an_asset_keeps_what_it_says_of_itself() -> None:
    @dg.asset(
        group_name="gold", pool="own", retry_policy=dg.RetryPolicy(max_retries=7), code_version="3"
    )
    def particular() -> None:
        pass

    [kept] = governed(dg.Definitions(assets=[particular]), RETRIES).assets or ()
    assert isinstance(kept, dg.AssetsDefinition)
    policy = kept.op.retry_policy
    assert (kept.op.pool, policy and policy.max_retries) == ("own", 7)
    assert kept.code_versions_by_key == {dg.AssetKey("particular"): "3"}


@pytest.mark.parametrize(("raises", "tries", "succeeds"), [(True, 3, True), (False, 1, False)])
def test_rule_2_an_error_is_tried_again_what_a_check_refuses_is_not(
    raises: bool, tries: int, succeeds: bool
) -> None:
    attempts = []

    @dg.asset(group_name="gold", check_specs=[dg.AssetCheckSpec("ok", asset="a", blocking=True)])
    def a() -> dg.MaterializeResult:  # type: ignore[type-arg]
        attempts.append(1)
        if raises and len(attempts) < 3:
            raise ConnectionError("the database is away")
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=raises)])

    at_once = dg.RetryPolicy(max_retries=RETRIES.max_retries)
    definitions = governed(dg.Definitions(assets=[a]), at_once)
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(raise_on_error=False)
    assert (len(attempts), result.success) == (tries, succeeds)
