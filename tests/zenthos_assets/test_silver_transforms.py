"""The rules of silver, against naive implementations."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zenthos_assets.conftest import RECEIVED, reading, topic_of
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.shredded import read_telemetry
from zenthos_assets.bronze.transforms import bucket_of, to_frame
from zenthos_assets.silver.errors import strangers_messages
from zenthos_assets.silver.order import ORDER
from zenthos_assets.silver.reference import (
    IRRIGATION_SCHEMA,
    PLACEMENTS_SCHEMA,
    WEATHER_SCHEMA,
    Reference,
)
from zenthos_assets.silver.source import input_checksums
from zenthos_assets.silver.statistics import describe
from zenthos_assets.silver.tally import BROKEN_SCHEMA, merge, process
from zenthos_assets.silver.transforms import SCHEMA, clean, unregistered

START = datetime(2026, 11, 17, tzinfo=UTC)
DAY = START.date()
NOON = START + timedelta(hours=12)


def archived(*payloads: bytes, at: datetime = RECEIVED) -> pl.DataFrame:
    return to_frame([(topic_of(p, "telemetry"), p, at, at, 1, False, False) for p in payloads])


def parsed(*frames: pl.DataFrame) -> pl.DataFrame:
    return read_telemetry(codec.encode(pl.concat(frames))).readings


def placements(*rows: tuple[str, datetime, str]) -> pl.DataFrame:
    """Rows (device, valid_from, farm)."""
    full = [(device, begin, farm, "soil", "esp32-s3", 39.1, -96.6) for device, begin, farm in rows]
    return pl.DataFrame(full, schema=PLACEMENTS_SCHEMA, orient="row")


def at_farm(*device_ids: str) -> Reference:
    return Reference(placements(*((device, RECEIVED, "north") for device in device_ids)))


def readings_at(*times: datetime, device_id: str = "soil-1") -> pl.DataFrame:
    return parsed(archived(*(reading(device_id, time) for time in times)))


def test_rule_2_a_suspect_clock_gives_way_to_the_time_of_receipt() -> None:
    message = json.loads(reading("soil-1", RECEIVED)) | {"timestamp": 5}
    raw = parsed(archived(json.dumps(message).encode()))
    row = clean(raw, at_farm("soil-1"), [RECEIVED.date()]).row(0, named=True)
    assert (row["time"], row["clock_suspect"], row["quality"]) == (RECEIVED, True, "time")


def test_rule_2_the_last_second_of_a_day_is_its_own() -> None:
    # 23:59:60 has no number of its own: POSIX time gives a leap second that of the next midnight
    midnight = START + timedelta(days=1)
    second_before = midnight - timedelta(seconds=1)
    raw = readings_at(second_before, midnight)
    days = [DAY, midnight.date()]
    for day, time in zip(days, (second_before, midnight), strict=True):
        assert clean(raw, at_farm("soil-1"), [day])["time"].to_list() == [time]
    part = json.loads(reading("soil-1", START)) | {"timestamp": midnight.timestamp() - 0.25}
    raw = parsed(archived(json.dumps(part).encode()))
    assert len(clean(raw, at_farm("soil-1"), [DAY])) == 1


Sent = tuple[int, int, int, float]
"""Device, hour, second of receipt, value."""

SENT = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 4), st.floats(0, 100)),
    max_size=30,
)


def naive_clean(sent: Iterable[Sent], days: Iterable[date]) -> list[tuple[str, datetime, float]]:
    """One by one: the first received of each message, by bucket, device, time and id."""
    first: dict[tuple[str, datetime], tuple[int, float]] = {}
    for device, hour, second, value in sent:
        key = f"soil-{device}", START + timedelta(hours=hour)
        if key not in first or second < first[key][0]:
            first[key] = second, value
    wanted = [(*key, value) for key, (_, value) in first.items() if key[1].date() in set(days)]
    return sorted(wanted, key=lambda row: (bucket_of(row[0]), *row[:2]))


def sent_frame(sent: Iterable[Sent]) -> pl.DataFrame:
    return pl.concat(
        [
            archived(
                reading(
                    f"soil-{device}",
                    START + timedelta(hours=hour),
                    sensors={"soil_moisture": value},
                ),
                at=RECEIVED + timedelta(seconds=second),
            )
            for device, hour, second, value in sent
        ]
        or [archived()]
    )


@settings(max_examples=25, deadline=None)
@given(SENT)
def test_rule_3_the_first_received_of_each_message_remains(sent: list[Sent]) -> None:
    days = [DAY, DAY + timedelta(days=1)]
    cleaned = clean(parsed(sent_frame(sent)), at_farm("soil-0", "soil-1", "soil-2"), days)
    found = cleaned.select("device_id", "time", "soil_moisture").rows()
    assert found == naive_clean(sent, days)
    assert cleaned.schema == SCHEMA
    assert cleaned.equals(cleaned.sort(ORDER))  # rule 8


@settings(max_examples=25, deadline=None)
@given(SENT.filter(bool), st.integers(1, 65_535))
def test_slices_of_buckets_and_days_add_up_to_the_whole(sent: list[Sent], cut: int) -> None:
    data = codec.encode(sent_frame(sent))
    days = [DAY, DAY + timedelta(days=1)]
    reference = at_farm("soil-0", "soil-2")
    none = BROKEN_SCHEMA.to_frame().drop("day")
    whole, tally = process(read_telemetry(data).readings, none, reference, days)
    parts = [
        process(read_telemetry(data, buckets).readings, none, reference, days)
        for buckets in ((0, cut), (cut, 65_536))
    ]
    assert pl.concat([cleaned for cleaned, _ in parts]).equals(whole)
    total = merge(part for _, part in parts)
    assert total.counts == tally.counts
    assert total.statistics.equals(tally.statistics)
    assert total.strangers == tally.strangers == {f"soil-{d}" for d, *_ in sent if d == 1}
    alone = [process(read_telemetry(data).readings, none, reference, [day]) for day in days]
    assert pl.concat([cleaned for cleaned, _ in alone]).sort(ORDER).equals(whole)
    assert sum(count.received for count in tally.counts.values()) == sum(
        1 for _, hour, *_ in sent if hour < 48
    )


def test_rule_3_the_same_message_id_of_another_device_is_another_message() -> None:
    first = reading("soil-1", START)
    raw = parsed(archived(first, first.replace(b"soil-1", b"soil-2")))
    cleaned = clean(raw, at_farm("soil-1", "soil-2"), [DAY])
    assert sorted(cleaned["device_id"]) == ["soil-1", "soil-2"]


def test_rule_3_is_decided_within_a_day_in_whatever_company() -> None:
    undated = json.loads(reading("soil-1", START)) | {"timestamp": 0}
    payload = json.dumps(undated).encode()
    evening, morning = START + timedelta(hours=23), START + timedelta(hours=25)
    raw = parsed(archived(payload, at=evening), archived(payload, at=morning))
    days = [DAY, DAY + timedelta(days=1)]
    both = clean(raw, at_farm("soil-1"), days)
    assert both["time"].to_list() == [evening, morning]
    alone = [clean(raw, at_farm("soil-1"), [day]) for day in days]
    assert pl.concat(alone).equals(both)


def test_rule_4_a_stranger_is_left_out_and_named() -> None:
    raw = parsed(archived(reading("soil-1", START), reading("nobody", START)))
    reference = at_farm("soil-1")
    assert clean(raw, reference, [DAY])["device_id"].to_list() == ["soil-1"]
    assert unregistered(raw, reference.placements)["device_id"].to_list() == ["nobody"]


def test_messages_of_strangers_keep_their_bytes() -> None:
    theirs = reading("nobody", START)
    bronze = archived(reading("soil-1", START), theirs, b"{", reading("nobody", RECEIVED))
    bronze = bronze.with_columns(object_key=pl.lit("key"))
    found = strangers_messages(bronze, ["nobody"], BROKEN_SCHEMA.to_frame(), [DAY])
    assert found["payload"].to_list() == [theirs]
    assert found["reason"].to_list() == ["unregistered_device"]


@pytest.mark.parametrize(
    ("sensors", "named"),
    [
        ({"soil_moisture": 130.0}, "soil_moisture"),
        ({"temperature": -41.0, "humidity": 50.0}, "temperature"),
        ({"rainfall_mm": 61.0, "humidity": -1.0}, "humidity,rainfall_mm"),
        ({"humidity": 100.0, "soil_moisture": 0.0}, ""),
        ({"co2": 1e9}, ""),
    ],
)
def test_rule_5_quality_names_what_is_out_of_range(
    sensors: Mapping[str, float], named: str
) -> None:
    raw = parsed(archived(reading("soil-1", START, sensors=sensors)))
    assert clean(raw, at_farm("soil-1"), [DAY])["quality"].to_list() == [named]


def test_rule_6_a_device_that_was_moved_keeps_its_past() -> None:
    moved = placements(("soil-1", START - timedelta(days=9), "old"), ("soil-1", NOON, "new"))
    raw = readings_at(START, NOON - timedelta(seconds=1), NOON, NOON + timedelta(hours=1))
    cleaned = clean(raw, Reference(moved), [DAY])
    assert cleaned["farm_id"].to_list() == ["old", "old", "new", "new"]


def test_rule_6_the_first_placement_holds_before_it_too() -> None:
    late = placements(("soil-1", NOON, "first"), ("soil-1", RECEIVED, "second"))
    cleaned = clean(readings_at(START), Reference(late), [DAY])
    assert cleaned["farm_id"].to_list() == ["first"]


Move = tuple[int, int, int]
"""Device, hour, farm."""


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(-48, 60), st.integers(0, 9)),
        unique_by=lambda move: move[:2],
    ),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 47)), unique=True),
)
def test_rule_6_as_of_joins_equal_a_search(moves: list[Move], sent: list[tuple[int, int]]) -> None:
    table = placements(
        *((f"soil-{d}", START + timedelta(hours=hour), f"farm {farm}") for d, hour, farm in moves)
    )
    raw = parsed(archived(*(reading(f"soil-{d}", START + timedelta(hours=h)) for d, h in sent)))
    cleaned = clean(raw, Reference(table), [DAY, DAY + timedelta(days=1)])
    naive = {}
    for d, hour in sent:
        own = sorted(move[1:] for move in moves if move[0] == d)
        before = [farm for since, farm in own if since <= hour]
        if own:
            farm = before[-1] if before else own[0][1]
            naive[f"soil-{d}", START + timedelta(hours=hour)] = f"farm {farm}"
    found = {(d, t): farm for d, t, farm in cleaned.select("device_id", "time", "farm_id").rows()}
    assert found == naive


def test_rule_7_weather_of_the_farm_in_that_hour() -> None:
    hours = [(f, START, 0.0, None, None, None, c) for f, c in (("north", "dry"), ("south", "rain"))]
    weather = pl.DataFrame(hours, schema=WEATHER_SCHEMA, orient="row")
    raw = readings_at(START + timedelta(minutes=59), START + timedelta(minutes=60))
    cleaned = clean(raw, Reference(at_farm("soil-1").placements, weather), [DAY])
    assert cleaned["weather_condition"].to_list() == ["dry", None]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["north", "south"]), st.integers(0, 40), st.integers(1, 9))),
    st.lists(st.integers(0, 47), unique=True, max_size=8),
)
def test_rule_7_irrigation_equals_a_search(
    events: list[tuple[str, int, int]], hours: list[int]
) -> None:
    times = [START + timedelta(hours=hour) for hour in hours]
    table = pl.DataFrame(
        [(f, START + timedelta(hours=b), START + timedelta(hours=b + n)) for f, b, n in events],
        schema=IRRIGATION_SCHEMA,
        orient="row",
    )
    reference = Reference(at_farm("soil-1").placements, irrigation=table)
    cleaned = clean(readings_at(*times), reference, [DAY, DAY + timedelta(days=1)])
    naive = {
        START + timedelta(hours=h): any(f == "north" and b <= h < b + n for f, b, n in events)
        for h in hours
    }
    assert dict(cleaned.select("time", "irrigation_event").rows()) == naive


def test_statistics_of_a_day() -> None:
    minutes = (0, 10, 20, 60)
    payloads = []
    for seq, minute in zip((7, 8, 12, 3), minutes, strict=True):
        sensors = {"temperature": 20.0 + minute, "humidity": 130.0}
        message = json.loads(reading("soil-1", START + timedelta(minutes=minute), sensors=sensors))
        payloads.append(json.dumps(message | {"seq": seq}).encode())
    cleaned = clean(parsed(archived(*payloads)), at_farm("soil-1"), [DAY])
    row = describe(cleaned).row(0, named=True)
    assert (row["readings"], row["missing_seq"], row["implausible"]) == (4, 3, 4)
    assert (row["interval_s"], row["longest_gap_s"]) == (600.0, 2400.0)
    assert row["readings_by_hour"] == [3, 1, *[0] * 22]
    assert (row["temperature_min"], row["temperature_max"]) == (20.0, 80.0)
    assert (row["temperature_missing"], row["light_level_missing"]) == (0, 4)
    assert describe(SCHEMA.to_frame()).is_empty()


def checksum_of(reference: Reference, strangers: set[str] | None = None) -> str:
    refused = {DAY: strangers or set[str]()}
    return input_checksums("1", [DAY], [], reference, refused)[str(DAY)]


def test_what_happens_after_a_day_is_none_of_its_input() -> None:
    before = ("soil-1", START - timedelta(days=9), "old")
    base = checksum_of(Reference(placements(before)))
    moved_later = placements(before, ("soil-1", RECEIVED + timedelta(days=1), "new"))
    registered_later = placements(before, ("soil-9", RECEIVED + timedelta(days=1), "old"))
    assert checksum_of(Reference(moved_later)) == base
    assert checksum_of(Reference(registered_later)) == base
    assert checksum_of(Reference(registered_later), {"soil-9"}) != base
    assert checksum_of(Reference(placements(before, ("soil-1", NOON, "new")))) != base
    watered = pl.DataFrame(
        [("old", NOON, NOON + timedelta(hours=1))], schema=IRRIGATION_SCHEMA, orient="row"
    )
    assert checksum_of(Reference(placements(before), irrigation=watered)) != base


def test_message_ids_are_kept_as_16_bytes() -> None:
    raw = readings_at(START)
    assert UUID(bytes=raw["message_id"][0]).version == 5
