"""What the UI says of gold is what there is."""

import dagster as dg
import pytest

from tests.conftest import ROOT
from tests.zenthos_assets.conftest import Farmyard
from tests.zenthos_assets.lake import GOLD
from zenthos_assets.definitions import build_definitions
from zenthos_assets.gold.assets import IRRIGATION_EVENTS
from zenthos_assets.resources import Platform

WITHOUT_SOURCE = {"weeks"}
EACH = pytest.mark.parametrize("asset", GOLD, ids=lambda asset: asset.op.name)


def metadata(asset: dg.AssetsDefinition) -> dict[str, object]:
    return {k: getattr(v, "value", v) for k, v in asset.metadata_by_key[asset.key].items()}


def columns(key: dg.AssetKey) -> set[str] | None:
    """Columns of an asset, by its own metadata."""
    graph = build_definitions(Platform()).resolve_asset_graph()
    schema = graph.get(key).metadata.get("dagster/column_schema")
    value = getattr(schema, "value", schema)
    return {column.name for column in value.columns} if value else None


@EACH
def test_columns_are_those_of_the_table(asset: dg.AssetsDefinition, farmyard: Farmyard) -> None:
    found = metadata(asset)
    schema = found["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    table = str(found["dagster/table_name"]).rsplit(".", 1)[1]
    query = f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
    assert {c.name for c in schema.columns} == {n for (n,) in farmyard.query_analytics(query)}
    text = (ROOT / "docs/reference/analytics.md").read_text()
    assert f"`{table}`" in text


@EACH
def test_every_column_says_what_it_is_computed_from(asset: dg.AssetsDefinition) -> None:
    found = metadata(asset)
    lineage, schema = found["dagster/column_lineage"], found["dagster/column_schema"]
    assert isinstance(lineage, dg.TableColumnLineage)
    assert isinstance(schema, dg.TableSchema)
    assert {c.name for c in schema.columns} - WITHOUT_SOURCE == set(lineage.deps_by_column)
    sources = {dep for deps in lineage.deps_by_column.values() for dep in deps}
    keys = {dep.asset_key for dep in sources}
    assert keys <= {dep.asset_key for spec in asset.specs for dep in spec.deps}
    for key in keys - {IRRIGATION_EVENTS.key}:
        named = {dep.column_name for dep in sources if dep.asset_key == key}
        assert named <= (columns(key) or set())


@EACH
def test_it_is_described_owned_and_checked(asset: dg.AssetsDefinition) -> None:
    [spec] = asset.specs
    assert spec.description
    assert spec.owners
    assert spec.kinds
    text = (ROOT / "docs/reference/lineage.md").read_text()
    assert f"`{spec.key.to_user_string()}`" in text
    assert asset.check_keys
    assert all(f"`{key.name}`" in text for key in asset.check_keys)
