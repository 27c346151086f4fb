"""Which plane a day comes from, by rule; and pages of readings of both."""

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ota_api.history.merge import (
    Cursor,
    choose_resolution,
    describe_parts,
    key_of,
    merge,
)
from ota_api.history.schemas import HistoryPoint, Resolution
from ota_api.planes import DayPlan, Plane, describe_missing, in_ranges, plan_days
from tests.ota_api.planes import TODAY, ago, at
from zenthos_core.errors import InvalidInputError

FARM = UUID(int=1)


def plan(*days: date, built: dict[date, datetime], archived: tuple[date, ...] = ()) -> DayPlan:
    return plan_days(days, TODAY, 7, built, archived)


def after_its_end(day: date) -> datetime:
    return at(day, 24)


def test_rule_1_today_comes_from_the_hot_plane_whatever_gold_has() -> None:
    assert plan(TODAY, built={TODAY: after_its_end(TODAY)}).hot == [TODAY]


def test_rule_2_a_past_day_comes_from_gold_once_built_after_its_end() -> None:
    day = ago(1)
    assert plan(day, built={day: after_its_end(day)}).gold == [day]
    assert plan(day, built={day: at(day, 23.9)}).hot == [day]


def test_rule_3_another_past_day_comes_from_the_hot_plane_while_that_is_whole() -> None:
    assert plan(ago(8), ago(7), ago(1), built={}) == DayPlan([ago(8)], [ago(7), ago(1)], [])


def test_rule_4_an_old_day_is_missing_where_it_is_archived_and_was_never_built() -> None:
    days = (ago(30), ago(20), ago(10))
    found = plan(*days, built={ago(10): at(ago(10), 3)}, archived=(ago(20), ago(10)))
    assert found == DayPlan(list(days), [], [ago(20)])


def test_ranges_of_days() -> None:
    assert in_ranges([ago(1), ago(5), ago(2), ago(1)]) == [(ago(5), ago(5)), (ago(2), ago(1))]
    [missing] = describe_missing([ago(2), ago(1)], "retention", "field-1")
    assert missing.export == (
        "/export/silver/telemetry_cleaned?from=2026-11-26&to=2026-11-27&device=field-1"
    )


def point(plane: Plane, second: int, number: int) -> HistoryPoint:
    return HistoryPoint(
        time=at(TODAY) + timedelta(seconds=second),
        plane=plane,
        farm_id=FARM,
        message_id=UUID(int=number + 1),
        values={},
    )


readings = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), unique_by=lambda r: r[1])


@given(readings, readings, st.integers(1, 7), st.data())
def test_rules_1_to_3_pages_hold_every_reading_once_in_order(
    hot_readings: list[tuple[int, int]],
    cold_readings: list[tuple[int, int]],
    limit: int,
    data: st.DataObject,
) -> None:
    """Some messages are in both planes, under the same time or, with a bad clock, another."""
    shared = data.draw(st.lists(st.sampled_from(hot_readings), unique=True)) if hot_readings else []
    hot = sorted((point(Plane.HOT, *reading) for reading in hot_readings), key=key_of)
    taken = {number for _, number in shared}
    both = [*shared, *(r for r in cold_readings if r[1] not in taken)]
    cold = sorted((point(Plane.ANALYTICAL, *reading) for reading in both), key=key_of)
    in_hot = {p.message_id for p in hot if p.message_id}
    pages: list[HistoryPoint] = []
    after = None
    for _ in range(200):
        sides = [
            [p for p in side if after is None or key_of(p) > after][: limit + 1]
            for side in (hot, cold)
        ]
        page, after = merge(sides[0], sides[1], limit, in_hot)
        assert len(page) <= limit
        pages += page
        if after is None:
            break
    expected = sorted([*hot, *(p for p in cold if p.message_id not in in_hot)], key=key_of)
    assert [(p.plane, *key_of(p)) for p in pages] == [(p.plane, *key_of(p)) for p in expected]


@pytest.mark.parametrize(
    ("days", "interval_s", "expected"),
    [
        (1, None, Resolution.RAW),
        (1, 60, Resolution.RAW),
        (7, 60, Resolution.HOURLY),
        (7, 600, Resolution.RAW),
        (83, 300, Resolution.HOURLY),
        (84, 300, Resolution.DAILY),
        (400, 86_400, Resolution.RAW),
    ],
)
def test_rule_4_auto_is_the_finest_of_few_enough_points(
    days: int, interval_s: float | None, expected: Resolution
) -> None:
    assert choose_resolution(timedelta(days=days), interval_s) is expected


def test_a_cursor_comes_back_as_it_was() -> None:
    cursor = Cursor(Resolution.RAW, at(TODAY) + timedelta(microseconds=1), UUID(int=7))
    assert Cursor.decode(cursor.encode()) == cursor
    for wrong in ("", "raw.1", "raw.-1." + "0" * 32, "weekly.1." + "0" * 32, "raw.1." + "g" * 32):
        with pytest.raises(InvalidInputError, match="next"):
            Cursor.decode(wrong)


def test_parts_say_what_came_from_which_plane() -> None:
    points = [point(Plane.ANALYTICAL, 1, 1), point(Plane.HOT, 2, 2), point(Plane.HOT, 3, 3)]
    parts = [(p.plane, p.first, p.last, p.points) for p in describe_parts(points)]
    assert parts == [
        (Plane.ANALYTICAL, points[0].time, points[0].time, 1),
        (Plane.HOT, points[1].time, points[2].time, 2),
    ]
