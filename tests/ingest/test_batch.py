"""decode and batch: every message ends exactly once in the ledger."""

import json
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.batch import DAY_S, Batch, LedgerKey, build_batch, utc_day
from ingest.decode import decode, is_downward
from ingest.limits import LATE_S, Bucket, RateLimiter
from ingest.pgcopy import postgres_us
from tests.ingest.messages import (
    BAD,
    DEVICE,
    NOW,
    REGISTRY,
    SENSORS,
    inference,
    log,
    publish,
    status,
    telemetry,
    topic,
)
from zenthos_core.errors import InvalidMessageError
from zenthos_core.mqtt import Publish

HOT_DAYS = 7
DAY = int(NOW // DAY_S)
KEY = (DAY, DEVICE)

REASONS = {reason for reason, _, _ in BAD.values()}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([DEVICE, "field-02", str(uuid.uuid4()), "online", 10**400, -(2**70)]),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=10), children, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        *("message_id", "device_id", "sensors", "timestamp", "firmware_version", "seq", "backlog"),
        *("status", "uptime_seconds", "free_heap_bytes", "boot_count", "reset_reason"),
        *("model_version", "result", "confidence", "features", "level", "message"),
        "signal_strength",
    ]
)
MAKERS = st.sampled_from([telemetry, status, inference, log])
TYPES = st.sampled_from(["telemetry", "status", "inference", "logs", "ota", "weather"])


@st.composite
def any_message(draw: st.DrawFn) -> Publish:
    """From a perfect message over one with a field replaced by anything to plain noise."""
    to = draw(TYPES.map(topic) | st.binary(max_size=30) | st.just(topic(device_id="stranger")))
    document: dict[str, Any] = json.loads(draw(MAKERS)())
    document |= draw(st.dictionaries(FIELDS, JSON, max_size=2))
    encoded = json.dumps(document).encode()
    payload = draw(st.just(encoded) | st.binary(max_size=50) | JSON.map(json.dumps).map(str.encode))
    return publish(payload, to, received_at=NOW + draw(st.floats(0, 2 * DAY_S)))


def total(batch: Batch) -> tuple[int, int, int, int]:
    return (
        len(batch.pending),
        batch.duplicate.total(),
        batch.quarantined.total(),
        batch.rate_limited.total(),
    )


def pending(batch: Batch) -> Counter[LedgerKey]:
    return Counter(key for key, _ in batch.pending.values())


def packed(batch: Batch) -> dict[str, int]:
    """How many rows each table is given."""
    return {name: len(rows) for name, (rows, _) in batch.tables.items() if rows}


@given(st.lists(any_message(), max_size=8))
@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text takes a second
def test_every_message_ends_exactly_once(messages: list[Publish]) -> None:
    batch = build_batch(messages, REGISTRY, HOT_DAYS)
    ours = [m for m in messages if not is_downward(m.topic)]
    assert batch.received == len(ours)
    assert len(batch.pending) == sum(packed(batch).values())
    occurrences = sum(item.occurrences for item in batch.quarantine.values())
    assert batch.quarantined.total() == occurrences == batch.reasons.total()
    assert len(batch.raw) + occurrences == len(ours)


@given(any_message())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_decode_raises_nothing_but_invalid_message(message: Publish) -> None:
    try:
        _, device, decoded = decode(message, REGISTRY)
    except InvalidMessageError as error:
        assert error.reason in REASONS  # noqa: PT017
    else:
        assert decoded.device_id == device.id


@given(st.lists(st.sampled_from([telemetry(), telemetry(), status(), inference()]), max_size=12))
def test_the_same_message_id_in_a_batch_is_a_duplicate(payloads: list[bytes]) -> None:
    types = {"sensors": "telemetry", "status": "status", "result": "inference"}
    messages = [
        publish(p, topic(next(t for field, t in types.items() if field in json.loads(p))))
        for p in payloads
    ]
    batch = build_batch(messages, REGISTRY, HOT_DAYS)
    assert batch.duplicate.total() == len(payloads) - len(set(payloads))
    assert len(batch.raw) == len(payloads)


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_quarantined_with_its_reason(what: str) -> None:
    reason, to, payload = BAD[what]
    good = [publish(telemetry()), publish(telemetry())]
    batch = build_batch([good[0], publish(payload, to), good[1]], REGISTRY, HOT_DAYS)
    assert batch.reasons == {reason: 1}
    assert total(batch) == (2, 0, 1, 0)


def test_what_names_no_registered_device_is_counted_apart() -> None:
    stranger = publish(telemetry(device_id="stranger"), topic(device_id="stranger"))
    nowhere = publish(telemetry(), b"elsewhere")
    broken = publish(b"{", topic())
    batch = build_batch([stranger, nowhere, broken], REGISTRY, HOT_DAYS)
    assert batch.quarantined == {(DAY, ""): 2, KEY: 1}


@pytest.mark.parametrize("kind", ["ota", "ack"])
def test_what_goes_down_to_devices_is_not_counted(kind: str) -> None:
    batch = build_batch([publish(b"anything", topic(kind))], REGISTRY, HOT_DAYS)
    assert batch.received == 0
    assert batch.raw == []


def test_a_reading_older_than_the_hot_window_goes_to_the_outbox_alone() -> None:
    old = publish(telemetry(timestamp=NOW - (HOT_DAYS + 1) * DAY_S))
    batch = build_batch([old], REGISTRY, HOT_DAYS)
    assert total(batch) == (1, 0, 0, 0)
    assert len(batch.raw) == 1
    assert packed(batch) == {"cold_messages": 1}
    assert batch.devices[DEVICE].reading is None


def test_each_type_has_its_table() -> None:
    messages = [
        publish(telemetry()),
        publish(inference(), topic("inference")),
        publish(status(), topic("status")),
        publish(log(), topic("logs")),
    ]
    batch = build_batch(messages, REGISTRY, HOT_DAYS)
    assert pending(batch) == {KEY: 4}
    tables = ("telemetry_hot", "inference_results", "device_status", "device_logs")
    assert packed(batch) == dict.fromkeys(tables, 1)
    days = {("telemetry_hot", DAY), ("device_status", DAY), ("device_logs", DAY)}
    assert batch.days == days


def test_over_the_limit_a_message_goes_to_the_outbox_alone() -> None:
    bucket = Bucket(per_s=1, burst=3)
    messages = [publish(telemetry()) for _ in range(5)]
    messages += [publish(telemetry(device_id="field-02"), topic(device_id="field-02"))]
    batch = build_batch(messages, REGISTRY, HOT_DAYS, RateLimiter(bucket, bucket))
    assert total(batch) == (4, 0, 0, 2)
    assert batch.rate_limited == {KEY: 2}
    assert len(batch.raw) == 6
    assert packed(batch) == {"telemetry_hot": 4}


@pytest.mark.parametrize("changes", [{"backlog": True}, {"timestamp": NOW - LATE_S - 1}])
def test_what_is_late_takes_from_the_larger_bucket(changes: dict[str, Any]) -> None:
    messages = [publish(telemetry(**changes)) for _ in range(5)]
    limiter = RateLimiter(live=Bucket(1, 1), late=Bucket(1, 4))
    batch = build_batch(messages, REGISTRY, HOT_DAYS, limiter)
    assert total(batch) == (4, 0, 0, 1)


def test_a_poison_message_that_comes_again_and_again_is_one_row() -> None:
    poison = [publish(b"{", received_at=NOW + second) for second in range(1_000)]
    batch = build_batch(poison, REGISTRY, HOT_DAYS)
    (item,) = batch.quarantine.values()
    assert (item.occurrences, item.publish.received_at) == (1_000, NOW)
    assert item.last_received_at == NOW + 999
    assert batch.quarantined == {KEY: 1_000}


def test_ids_that_devices_ask_for_are_told_by_topic() -> None:
    asked = [str(uuid.uuid4()) for _ in range(3)]
    messages = [
        publish(telemetry(message_id=asked[0], ack=True)),
        publish(telemetry(message_id=asked[0], ack=True)),
        publish(telemetry()),
        publish(log(message_id=asked[1], ack=True), topic("logs")),
        publish(
            telemetry(message_id=asked[2], device_id="field-02", ack=True),
            topic(device_id="field-02"),
        ),
    ]
    assert build_batch(messages, REGISTRY, HOT_DAYS).acks == {
        topic("ack").decode(): [asked[0], asked[0], asked[1]],
        topic("ack", "field-02").decode(): [asked[2]],
    }


def test_the_same_message_id_of_another_device_is_another_message() -> None:
    same = str(uuid.uuid4())
    batch = build_batch(
        [
            publish(telemetry(message_id=same)),
            publish(telemetry(message_id=same, device_id="field-02"), topic(device_id="field-02")),
        ],
        REGISTRY,
        HOT_DAYS,
    )
    assert pending(batch) == {KEY: 1, (DAY, "field-02"): 1}


@given(st.integers(-3, 3), st.floats(-2e-6, 2e-6))
def test_days_begin_where_the_database_lets_them_begin(day: int, offset: float) -> None:
    time = (DAY + day) * DAY_S + offset
    kept = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=postgres_us(time))
    assert utc_day(time) == (kept.date() - date(1970, 1, 1)).days


def test_the_newest_reading_moves_the_state_and_a_backlog_never() -> None:
    newest = publish(telemetry(timestamp=NOW - 1, sensors=SENSORS | {"battery_voltage": 4.0}))
    older = publish(telemetry(timestamp=NOW - 60))
    backlog = publish(telemetry(timestamp=NOW, backlog=True), received_at=NOW + 1)
    batch = build_batch([older, newest, older, backlog], REGISTRY, HOT_DAYS)
    change = batch.devices[DEVICE]
    assert change.reading_at == NOW - 1
    assert change.reading is not None
    assert change.reading.sensors["battery_voltage"] == 4.0
    assert change.seen == NOW + 1


@pytest.mark.parametrize(
    ("timestamp", "doubtful"), [(NOW - 1, False), (NOW + 1, True), (..., True), (0, True)]
)
def test_what_may_be_stored_under_another_time_is_noted(timestamp: float, doubtful: bool) -> None:
    batch = build_batch([publish(telemetry(timestamp=timestamp))], REGISTRY, HOT_DAYS)
    assert bool(batch.tables["telemetry_hot"].doubtful) is doubtful


def test_the_ledger_counts_by_the_day_of_receipt() -> None:
    late = publish(telemetry(timestamp=NOW), received_at=NOW + DAY_S)
    batch = build_batch([publish(telemetry()), late], REGISTRY, HOT_DAYS)
    assert pending(batch) == {KEY: 1, (DAY + 1, DEVICE): 1}
