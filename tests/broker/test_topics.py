"""What a device may do: rules 6 and 7 of the plugin, both ways."""

import pytest

from tests.broker.clients import NOT_AUTHORIZED, Client, wait_until
from tests.servers import TokenBroker

DEVICE, OTHER, MODEL = "field-sensor-001", "field-sensor-002", "esp32-s3"
OWN = f"zenthos/{MODEL}/{DEVICE}"
GRANTED = 1
DELIVERED = 0


def device(broker: TokenBroker, device_id: str = DEVICE, **options: str) -> Client:
    return Client(broker, device_id, broker.token(device_id), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("last", ["telemetry", "status", "inference", "logs"])
def test_a_device_publishes_under_its_own_id(
    shared_broker: TokenBroker, platform: Client, last: str
) -> None:
    with device(shared_broker) as client:
        assert client.publish(f"{OWN}/{last}", b"1") == DELIVERED
    wait_until(lambda: platform.received == [(f"{OWN}/{last}", b"1")])


def test_an_unknown_model_is_for_ingest_to_judge(
    shared_broker: TokenBroker, platform: Client
) -> None:
    with device(shared_broker) as client:
        assert client.publish(f"zenthos/ÄÖ/{DEVICE}/telemetry") == DELIVERED


FOREIGN = [
    f"zenthos/{MODEL}/{OTHER}/telemetry",
    f"zenthos/{MODEL}/{DEVICE}-2/telemetry",
    f"zenthos/{MODEL}/{DEVICE[:-1]}/telemetry",
    f"zenthos/{DEVICE}/{OTHER}/telemetry",
    f"zenthos/{MODEL}/{OTHER}/{DEVICE}/telemetry",
    f"{OWN}/ota",
    f"{OWN}/ack",
    f"{OWN}/other",
    f"{OWN}/telemetry/more",
    f"{OWN}/telemetry/",
    f"{OWN}/",
    OWN,
    f"{OWN}-telemetry",
    f"zenthos/{DEVICE}/telemetry",
    f"/zenthos/{MODEL}/{DEVICE}/telemetry",
    f"Zenthos/{MODEL}/{DEVICE}/telemetry",
    f"other/{MODEL}/{DEVICE}/telemetry",
    "zenthos",
    "zenthos/",
    "$SYS/broker/clients/total",
    "$CONTROL/dynamic-security/v1",
    f"$share/ingest/zenthos/{MODEL}/{DEVICE}/telemetry",
]


@pytest.mark.parametrize("topic", FOREIGN)
def test_a_device_publishes_nowhere_else(
    shared_broker: TokenBroker, platform: Client, topic: str
) -> None:
    with device(shared_broker) as client:
        assert client.publish(topic) == NOT_AUTHORIZED
    assert platform.received == []


@pytest.mark.parametrize("last", ["ota", "ack"])
@pytest.mark.parametrize("model", [MODEL, "+"])
@pytest.mark.parametrize("wildcard", ["#", "+", ""])
def test_a_device_receives_what_is_meant_for_it(
    shared_broker: TokenBroker, platform: Client, last: str, model: str, wildcard: str
) -> None:
    with device(shared_broker) as client, device(shared_broker, OTHER) as other:
        for each, device_id in ((client, DEVICE), (other, OTHER)):
            assert each.subscribe(f"zenthos/{model}/{device_id}/{wildcard or last}") == GRANTED
        platform.publish(f"{OWN}/{last}", b"1")
        platform.publish(f"zenthos/{MODEL}/{OTHER}/{last}", b"2")
        wait_until(lambda: client.received == [(f"{OWN}/{last}", b"1")])
        wait_until(lambda: other.received == [(f"zenthos/{MODEL}/{OTHER}/{last}", b"2")])


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/#",
        "zenthos/#",
        "zenthos/+/#",
        "zenthos/+/+/ota",
        f"zenthos/{MODEL}/#",
        f"zenthos/{MODEL}/+/ota",
        f"zenthos/{MODEL}/{OTHER}/ota",
        f"zenthos/{MODEL}/{OTHER}/#",
        f"+/{MODEL}/{DEVICE}/ota",
        OWN,
        f"{OWN}/ota/#",
        "$SYS/#",
        "$SYS/broker/version",
        f"$share/ingest/{OWN}/ota",
        "$share/ingest/zenthos/#",
    ],
)
def test_a_device_subscribes_to_nothing_else(shared_broker: TokenBroker, topic_filter: str) -> None:
    with device(shared_broker) as client:
        assert client.subscribe(topic_filter) == NOT_AUTHORIZED
        assert client.connected


def test_what_devices_send_does_not_come_back_to_them(
    shared_broker: TokenBroker, platform: Client
) -> None:
    """Else a device that subscribes and goes away would fill the broker with its own readings."""
    with device(shared_broker) as client:
        assert client.subscribe(f"{OWN}/#") == GRANTED
        assert client.publish(f"{OWN}/telemetry") == DELIVERED
        assert platform.publish(f"{OWN}/ack", b"last") == DELIVERED
        wait_until(lambda: bool(client.received))
        assert client.received == [(f"{OWN}/ack", b"last")]


def test_ingest_publishes_acknowledgements_alone(shared_broker: TokenBroker) -> None:
    for topic in (f"{OWN}/ota", f"{OWN}/telemetry", "zenthos/ack"):
        with Client(shared_broker, shared_broker.username, shared_broker.password) as ingest:
            assert ingest.publish(topic) == NOT_AUTHORIZED


def test_replay_publishes_telemetry_alone(shared_broker: TokenBroker, platform: Client) -> None:
    with Client(shared_broker, "svc-replay", shared_broker.replay_password) as replay:
        assert replay.publish(f"{OWN}/telemetry", b"1") == DELIVERED
        wait_until(lambda: platform.received == [(f"{OWN}/telemetry", b"1")])
    for topic in (f"{OWN}/ota", f"{OWN}/ack", f"{OWN}/status", "zenthos/telemetry"):
        with Client(shared_broker, "svc-replay", shared_broker.replay_password) as replay:
            assert replay.publish(topic) == NOT_AUTHORIZED


def test_a_last_will_on_its_own_topic_is_published(
    shared_broker: TokenBroker, platform: Client
) -> None:
    with device(shared_broker, will=f"{OWN}/status") as client:
        client.cut()
        wait_until(lambda: platform.received == [(f"{OWN}/status", b"gone")])


@pytest.mark.parametrize("topic", [f"zenthos/{MODEL}/{OTHER}/status", f"{OWN}/ota", "$SYS/x"])
def test_a_last_will_on_a_foreign_topic_is_not(
    shared_broker: TokenBroker, platform: Client, topic: str
) -> None:
    gone = f"Client {DEVICE} closed its connection"
    with device(shared_broker, OTHER, will=f"zenthos/{MODEL}/{OTHER}/status") as marker:
        with device(shared_broker, will=topic) as client:
            before = shared_broker.log.count(gone)
            client.cut()
            wait_until(lambda: shared_broker.log.count(gone) > before)
        marker.cut()  # its will comes after the other one would have
        wait_until(lambda: bool(platform.received))
    assert platform.received == [(f"zenthos/{MODEL}/{OTHER}/status", b"gone")]
