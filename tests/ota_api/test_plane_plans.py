"""How the database answers on 100 devices' week: by index, never by reading a whole day."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncCursor

from ota_api.analytics import repository as analytics
from ota_api.history import repository as history
from ota_api.history.fields import STATISTICS
from ota_api.history.merge import Cursor
from ota_api.history.repository import Question
from ota_api.history.schemas import Resolution
from ota_api.lineage import repository as lineage
from tests.ota_api.planes import TODAY, ago, at, day_partition

FARMS = 20
DEVICES = 100
FARM = UUID(int=3)
FILL = f"""
INSERT INTO farms (id, name) SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid,
  'farm ' || n FROM generate_series(0, {FARMS - 1}) n;
INSERT INTO devices (id, farm_id, device_model, device_type)
  SELECT 'd' || n, ('00000000-0000-0000-0000-' || lpad(to_hex(n % {FARMS}), 12, '0'))::uuid,
  'esp32-s3', 'soil' FROM generate_series(1, {DEVICES}) n;
INSERT INTO telemetry_hot (time, message_id, device_id, farm_id, received_at, soil_moisture)
  SELECT t, gen_random_uuid(), d.id, d.farm_id, t, 40 FROM devices d,
  generate_series('{ago(6)} 00:00Z'::timestamptz, '{TODAY} 12:00Z', '5 minutes') t;
INSERT INTO inference_results
  (time, message_id, device_id, model_version, result, confidence, received_at)
  SELECT t, gen_random_uuid(), d.id, 'm-' || (extract(epoch FROM t)::bigint / 86400 % 50), '{{}}',
  0.5, t FROM devices d,
  generate_series('{ago(200)} 00:00Z'::timestamptz, '{TODAY} 00:00Z', '8 hours') t;
ANALYZE;
"""
ASKED = Question("d7", at(ago(2), 0), at(TODAY), list(STATISTICS), None, 500)
AFTER = Question(
    "d7", at(ago(2), 0), at(TODAY), list(STATISTICS), Cursor(Resolution.RAW, at(ago(1)), FARM), 500
)


class ExplainingCursor(AsyncCursor[Any]):
    """Keeps the plan of whatever it executes."""

    plans: ClassVar[list[str]] = []

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        await super().execute(b"EXPLAIN " + query, params, **options)
        lines = [str(row) for row in await self.fetchall()]
        type(self).plans.append("\n".join(lines))
        return await super().execute(query, params, **options)


@pytest.fixture(scope="module")
def populated(postgres: Any) -> str:
    from tests.conftest import migrated_database
    from zenthos_core.database import Database

    url = migrated_database(postgres, Database.OPS)
    with psycopg.connect(url, options="-c timezone=UTC") as connection:
        for days in range(7):
            connection.execute(day_partition("telemetry_hot", at(ago(days))).encode())
        connection.execute(FILL.encode())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return url


Ask = Callable[[AsyncConnection], Awaitable[Any]]
DAYS = [ago(2), ago(1), TODAY]
QUESTIONS: dict[str, Ask] = {
    "readings": lambda c: history.hot_readings(c, ASKED),
    "further readings": lambda c: history.hot_readings(c, AFTER),
    "hours": lambda c: history.hot_rollups(c, ASKED, Resolution.HOURLY, DAYS),
    "farm": lambda c: analytics.sum_hot(c, FARM, [f"d{n}" for n in range(3, 100, 20)], DAYS),
    "predictions of a model": lambda c: lineage.predictions_of(c, ["m-7"]),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_question_reads_a_whole_table(populated: str, name: str) -> None:
    async def ask() -> Any:
        connection = await AsyncConnection.connect(
            populated, cursor_factory=ExplainingCursor, options="-c timezone=UTC"
        )
        async with connection:
            return await QUESTIONS[name](connection)

    ExplainingCursor.plans = []
    found = asyncio.run(ask())
    assert found, "the question finds something"
    [plan] = ExplainingCursor.plans
    assert "Seq Scan on telemetry_hot" not in plan, plan
    assert "Seq Scan on inference_results" not in plan, plan
    assert f"telemetry_hot_{ago(4):%Y%m%d}" not in plan, "days that are not asked for are not read"


def test_messages_that_the_hot_plane_has_are_found_by_index(populated: str) -> None:
    async def ask() -> Any:
        connection = await AsyncConnection.connect(populated, cursor_factory=ExplainingCursor)
        async with connection:
            points = await history.hot_readings(connection, ASKED)
            suspect = [p.model_copy(update={"clock_suspect": True}) for p in points]
            ExplainingCursor.plans = []
            return await history.known_to_hot(connection, "d7", suspect), points

    known, points = asyncio.run(ask())
    assert known == {point.message_id for point in points}
    assert points[-1].time - points[0].time > timedelta(days=1)
    assert [plan for plan in ExplainingCursor.plans if "Seq Scan on telemetry_hot" in plan] == []
