"""The connection to a real broker, and to a script where a real one does not say such things."""

import itertools
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest import subscriber as subscriber_module
from ingest.subscriber import Broker, Subscriber
from tests.ingest.devices import PublishingDevice
from tests.ingest.messages import DEVICE, topic
from tests.servers import MosquittoServer
from zenthos_core import mqtt
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
    time.sleep(1)  # Mosquitto forgets what it has not read when a successor connects
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


def test_nothing_follows_an_acknowledgement_that_left_in_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscriber_module, "SEND_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        port = server.getsockname()[1]
        with ThreadPoolExecutor(1) as executor:
            accepted = executor.submit(_accept, server)
            subscriber = Subscriber(Broker("127.0.0.1", port, "u", "p", "c"))
            connection, greeting = accepted.result()
        with pytest.raises(TimeoutError):
            subscriber.acknowledge(itertools.chain.from_iterable([range(1, 65_536)] * 40))
        with pytest.raises(OSError, match="closed"):
            subscriber.receive(1, 1, 0.02)
        subscriber.close()
        with connection:
            while data := connection.recv(2**20):
                greeting += data
    acknowledgements = greeting[greeting.index(mqtt.encode_pubacks([1])) :]
    whole = mqtt.encode_pubacks(range(1, 65_536))
    assert (
        acknowledgements
        == (whole * (len(acknowledgements) // len(whole) + 1))[: len(acknowledgements)]
    )


def _accept(server: socket.socket) -> tuple[socket.socket, bytes]:
    """A broker that lets the client in and reads no more."""
    connection, _ = server.accept()
    connection.sendall(bytes.fromhex("20 03 00 00 00 90 04 0001 00 01"))
    return connection, connection.recv(4096)


def test_a_retained_message_comes_once_and_says_so(fleet_broker: MosquittoServer) -> None:
    subscriber = Subscriber(account(fleet_broker))
    with PublishingDevice(fleet_broker, DEVICE) as device:
        device.publish(topic(), b"kept", retain=True)
        device.flush()
    (message,) = receive(subscriber, 1)
    subscriber.acknowledge([message.packet_id])
    subscriber.close()
    assert message.flags & 1
    again = Subscriber(account(fleet_broker))
    assert again.receive(1, 1, 0.02) == []
    again.close()


def test_pings_keep_an_idle_connection(mosquitto: MosquittoServer) -> None:
    subscriber = Subscriber(account(mosquitto), keep_alive_s=1)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert subscriber.receive(1, 1, 0.02) == []
    subscriber.close()


def test_acknowledging_nothing_postpones_no_ping() -> None:
    heard = bytearray()

    def listen(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(bytes.fromhex("20 03 00 00 00 90 04 0001 00 01"))
            while data := connection.recv(4096):
                heard.extend(data)

    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = threading.Thread(target=listen, args=[server])
        broker.start()
        address = ("127.0.0.1", server.getsockname()[1])
        subscriber = Subscriber(Broker(*address, "u", "p", "c"), keep_alive_s=1)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            subscriber.acknowledge([])  # as a replay of the spool does
            subscriber.keep_alive()
            time.sleep(0.05)
        subscriber.close()
        broker.join()
    assert heard.endswith(mqtt.PINGREQ + mqtt.DISCONNECT)
