"""Objects read as one are those read one after the other, row for row."""

import json
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zenthos_assets.bronze_messages import EPOCH_S, outbox, payload_lists
from zenthos_assets import parquet
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.bronze.together import read_together
from zenthos_core.errors import ArchiveError


def telemetry(number: int, **fields: Any) -> bytes:
    message = {
        "message_id": str(UUID(int=number)),
        "device_id": "soil-1",
        "timestamp": EPOCH_S + number,
        "sensors": {"temperature": 20.5},
        **fields,
    }
    return json.dumps(message).encode()


def check(objects: dict[str, bytes], buckets: tuple[int, int] | None = None) -> pl.DataFrame:
    """Both ways, compared."""
    readings, malformed = read_together(objects, buckets)
    one_by_one = [(key, read_telemetry(data, buckets)) for key, data in objects.items()]
    assert readings.to_dicts() == [r for _, part in one_by_one for r in part.readings.to_dicts()]
    assert malformed.to_dicts() == [
        {**row, "object_key": key} for key, part in one_by_one for row in part.malformed.to_dicts()
    ]
    return readings


def archived(*batches: list[bytes]) -> dict[str, bytes]:
    return {str(n): codec.encode(outbox(payloads)) for n, payloads in enumerate(batches)}


@settings(max_examples=60, deadline=None)
@given(st.lists(payload_lists, min_size=1, max_size=4))
def test_rule_1_whatever_the_payloads(batches: list[list[bytes]]) -> None:
    check(archived(*(batch or [b"{}"] for batch in batches)))


def test_rule_2_other_templates_and_columns_are_one_table() -> None:
    batches = [
        [telemetry(n, seq=n) for n in range(10)],
        [telemetry(n, backlog=True, sensors={"humidity": 40.0 + n}) for n in range(10, 20)],
        [telemetry(n, firmware_version="v1.2.3") for n in range(20, 30)],
    ]
    readings = check(archived(*batches))
    assert readings["backlog"].sum() == 10
    assert readings["seq"].count() == 10
    assert readings["firmware_version"].count() == 10
    check(archived(*batches), (0, 30_000))


def test_rule_2_columns_of_other_kinds_are_read_apart() -> None:
    batches = [
        [telemetry(n, sensors={"temperature": n + 0.25}) for n in range(5)],
        [telemetry(n, sensors={"temperature": n + 0.125}) for n in range(5, 10)],
        [telemetry(n, sensors={"temperature": n + 0.5}) for n in range(10, 15)],
    ]
    assert check(archived(*batches))["temperature"].sum() == sum(range(15)) + 5 * 0.875


def test_rule_3_one_doubtful_object_among_others() -> None:
    broken = [telemetry(7, seq=-1), telemetry(8, sensors={"temperature": "warm"}), b"nothing"]
    readings = check(archived([telemetry(1)], [telemetry(2), *broken], [telemetry(3)]))
    assert len(readings) == 3


def test_an_object_of_rows_as_they_are_among_others() -> None:
    objects = archived([telemetry(1)], [telemetry(2)])
    plain = {"plain": parquet.encode(outbox([telemetry(4), telemetry(5)]))}
    check({**objects, **plain, **{f"{key} again": data for key, data in objects.items()}})
    assert len(read_together({})[0]) == 0


def test_a_damaged_object_is_named() -> None:
    objects = archived([telemetry(1)], [telemetry(2)])
    objects["1"] = objects["1"][:-9]
    with pytest.raises(ArchiveError, match="zenthos-bronze/1 is damaged"):
        read_together(objects)
