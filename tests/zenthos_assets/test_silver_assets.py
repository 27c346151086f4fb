"""The silver layer as Dagster runs and shows it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from tests.zenthos_assets.conftest import RECEIVED, Farmyard, reading
from tests.zenthos_assets.test_silver_days import archive, silver_bytes
from zenthos_assets.automation import RANGE_END, RANGE_START
from zenthos_assets.definitions import build_definitions
from zenthos_assets.silver.checks import SILVER_CHECKS, SILVER_KEY, freshness

FIRST = datetime(2026, 11, 18, tzinfo=UTC)
DAY = str(FIRST.date())
CLEANED = "silver/telemetry_cleaned"


def build(
    yard: Farmyard, *days: str, shards: int = 1, force: bool = False
) -> dg.ExecuteInProcessResult:
    """Run the silver layer for a range of days."""
    definitions = build_definitions(yard.platform, shards=shards)
    graph = definitions.resolve_asset_graph()
    keys = [
        key
        for key in graph.materializable_asset_keys
        if graph.get(key).group_name in {"silver", "silver_shards"}
    ]
    ops = {f"silver__{name}": {"config": {"force": force}} for name in ("telemetry_cleaned",)}
    return definitions.resolve_job_def("daily").execute_in_process(
        instance=yard.instance,
        asset_selection=keys,
        tags={RANGE_START: days[0], RANGE_END: days[-1]},
        run_config={"ops": ops},
        raise_on_error=False,
    )


def described(result: dg.ExecuteInProcessResult, asset: str = CLEANED) -> dict[str, dict[str, Any]]:
    """Metadata by partition."""
    key = dg.AssetKey.from_user_string(asset)
    return {
        str(event.partition): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key == key
    }


def failed(result: dg.ExecuteInProcessResult) -> set[str]:
    return {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}


def hourly() -> list[bytes]:
    return [reading("soil-1", FIRST + timedelta(hours=hour)) for hour in range(24)]


def test_a_partition_shows_its_counts_and_pictures(farmyard: Farmyard) -> None:
    archive(farmyard, [*hourly(), *hourly()[:2]])
    result = build(farmyard, DAY)
    assert result.success
    assert not failed(result)
    shown = described(result)[DAY]
    counts = [shown[n] for n in ("dagster/row_count", "received", "duplicate", "quarantined")]
    assert counts == [24, 26, 2, 0]
    assert not shown["unchanged"]
    for picture in ("readings_by_hour", "gaps", "distribution"):
        assert "data:image/png;base64," in shown[picture]
    again = described(build(farmyard, DAY))[DAY]
    assert again["unchanged"]
    assert again["dagster/row_count"] == 24
    assert not described(build(farmyard, DAY, force=True))[DAY]["unchanged"]


def test_columns_have_units_and_origins(farmyard: Farmyard) -> None:
    spec = build_definitions(farmyard.platform).resolve_asset_graph().get(SILVER_KEY)
    columns = spec.metadata["dagster/column_schema"].columns
    assert all(
        column.description
        for column in columns
        if column.name not in {"firmware_version", "model_version"}
    )
    lineage = spec.metadata["dagster/column_lineage"].deps_by_column
    assert lineage["temperature"][0].asset_key.path == ["bronze", "telemetry"]
    assert lineage["weather_condition"][0].asset_key.path == ["silver", "weather_hourly"]


def test_three_shards_give_the_same_bytes(farmyard: Farmyard) -> None:
    farmyard.register(*(f"field-{n}" for n in range(5)))
    archive(farmyard, [reading(f"field-{n}", FIRST + timedelta(hours=n)) for n in range(5)])
    assert build(farmyard, DAY).success
    whole = silver_bytes(farmyard)
    result = build(farmyard, DAY, shards=3)
    assert result.success
    assert silver_bytes(farmyard) == whole
    assert described(result)[DAY]["dagster/row_count"] == 5
    pieces = [described(result, f"silver_shards/telemetry_cleaned_{n}")[DAY] for n in range(3)]
    assert sum(piece["dagster/row_count"] for piece in pieces) == 5


def test_warnings_block_nothing(farmyard: Farmyard) -> None:
    hot = reading("soil-1", FIRST, sensors={"temperature": 99.0})
    archive(farmyard, [hot, reading("stranger", FIRST)])
    result = build(farmyard, DAY)
    assert result.success
    assert failed(result) == {"values_in_range", "few_unusable", "devices_registered"}


def test_a_loss_blocks(farmyard: Farmyard) -> None:
    archive(farmyard, hourly())
    farmyard.execute("UPDATE bronze_days SET row_count = 25")
    assert failed(build(farmyard, DAY)) == {"nothing_lost"}
    assert failed(build(farmyard, DAY)) == {"nothing_lost"}  # it is not taken for unchanged
    assert [spec.name for spec in SILVER_CHECKS if spec.blocking] == [
        "message_id_unique",
        "nothing_lost",
    ]


def test_a_day_without_readings_is_built(farmyard: Farmyard) -> None:
    result = build(farmyard, DAY)
    assert result.success
    assert described(result)[DAY]["dagster/row_count"] == 0
    assert not failed(result)


@pytest.mark.parametrize("built", [False, True])
def test_freshness_asks_for_the_last_day_that_was_due(farmyard: Farmyard, built: bool) -> None:
    due = (datetime.now(UTC) - timedelta(hours=3)).replace(hour=12) - timedelta(days=1)
    key = str(due.date())
    archive(farmyard, [reading("soil-1", due)], at=max(due, RECEIVED).replace(minute=30))
    if built:
        assert build(farmyard, key).success
    outcome = freshness(farmyard.platform)
    assert isinstance(outcome, dg.AssetCheckResult)
    assert outcome.passed is built
