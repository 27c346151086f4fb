"""The connection to a real broker, and to a script where a real one does not say such things."""

import socket
import threading
import time

import pytest

from ingest.subscriber import Broker, Subscriber
from tests.ingest.devices import PublishingDevice
from tests.ingest.messages import DEVICE, topic
from tests.servers import MosquittoServer
from zenthos_core.mqtt import MqttError, Publish


def account(server: MosquittoServer, password: str | None = None) -> Broker:
    return Broker(
        server.host, server.port, server.username, password or server.password, "zenthos-ingest-1"
    )


def receive(subscriber: Subscriber, count: int) -> list[Publish]:
    deadline, messages = time.monotonic() + 10, []
    while len(messages) < count and time.monotonic() < deadline:
        messages += subscriber.receive(count - len(messages), 2**20, 0.02)
    return messages


def test_what_is_not_acknowledged_comes_again(fleet_broker: MosquittoServer) -> None:
    first = Subscriber(account(fleet_broker))
    with PublishingDevice(fleet_broker, DEVICE) as device:
        for n in range(5):
            device.publish(topic(), b"%d" % n)
        device.flush()
    messages = receive(first, 5)
    assert [m.payload for m in messages] == [b"0", b"1", b"2", b"3", b"4"]
    first.acknowledge([m.packet_id for m in messages[:3]])
    first.close()
    time.sleep(0.2)  # Mosquitto forgets what it has not read when a successor connects
    again = Subscriber(account(fleet_broker))
    messages = receive(again, 2)
    again.close()
    assert [(m.payload, m.flags & 8) for m in messages] == [(b"3", 8), (b"4", 8)]


def test_limits_leave_the_rest_for_later(fleet_broker: MosquittoServer) -> None:
    subscriber = Subscriber(account(fleet_broker))
    with PublishingDevice(fleet_broker, DEVICE) as device:
        for _ in range(10):
            device.publish(topic(), b"x" * 100)
        device.flush()
    time.sleep(0.2)
    assert len(subscriber.receive(3, 2**20, 0.02)) == 3
    assert len(receive(subscriber, 7)) == 7
    subscriber.close()


def test_a_wrong_password_is_refused(mosquitto: MosquittoServer) -> None:
    with pytest.raises(MqttError, match="refuses the connection: not authorized"):
        Subscriber(account(mosquitto, "wrong"))


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ("20 03 00 88 00", "refuses the connection: server unavailable"),
        ("20 03 00 00 00 90 04 0001 00 8f", "refuses the subscription: topic filter invalid"),
        ("20 03 00 00 00 e0 01 8b", "ends the connection: server shutting down"),
        ("20 01 00", "unexpected packet"),
    ],
)
def test_what_the_broker_refuses_is_an_error(answers: str, error: str) -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(bytes.fromhex(answers))
            while connection.recv(4096):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = threading.Thread(target=answer, args=[server])
        broker.start()
        with pytest.raises(MqttError, match=error):
            Subscriber(Broker("127.0.0.1", server.getsockname()[1], "u", "p", "c"))
        broker.join()


def test_a_broker_that_hangs_is_noticed(mosquitto: MosquittoServer) -> None:
    subscriber = Subscriber(account(mosquitto), keep_alive_s=2)
    mosquitto.pause()
    try:
        with pytest.raises(TimeoutError, match="does not answer"):
            receive(subscriber, 1)
    finally:
        mosquitto.resume()
        subscriber.close()


def test_pings_keep_an_idle_connection(mosquitto: MosquittoServer) -> None:
    subscriber = Subscriber(account(mosquitto), keep_alive_s=1)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert subscriber.receive(1, 1, 0.02) == []
    subscriber.close()
