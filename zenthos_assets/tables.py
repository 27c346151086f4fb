"""Column descriptions of tables, for the catalogue."""

from collections.abc import Mapping

import dagster as dg
import polars as pl


def column_schema(schema: pl.Schema, descriptions: Mapping[str, str]) -> dg.TableSchema:
    """The schema of a frame with what each column means."""
    return dg.TableSchema(
        [
            dg.TableColumn(name, str(dtype), description=descriptions.get(name))
            for name, dtype in schema.items()
        ]
    )


def column_lineage(sources: Mapping[str, tuple[dg.AssetKey, list[str]]]) -> dg.TableColumnLineage:
    """Which columns of which asset each column is computed from."""
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=key, column_name=name) for name in names]
            for column, (key, names) in sources.items()
        }
    )
