"""Publishing some messages as an account of its own, each of them acknowledged."""

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from zenthos_core import mqtt
from zenthos_core.errors import ZenthosError
from zenthos_core.mqtt import Message
from zenthos_core.settings import Settings

TIMEOUT_S: Final = 15.0
KEEP_ALIVE_S: Final = 60
CHUNK_BYTES: Final = 65_536


def publish(settings: Settings, messages: Sequence[Message]) -> None:
    """Publish messages one by one; returns once the broker has taken them all.

    Raises:
        ZenthosError: where the broker cannot be reached, or refuses; what came before is published.
    """
    with _connected(settings) as (connection, packets):
        for number, message in enumerate(messages):
            packet_id = number % mqtt.MAX_PACKET_IDS + 1
            connection.sendall(mqtt.encode_publish(message, packet_id))
            _expect(packets, mqtt.Puback, message.topic)
        connection.sendall(mqtt.DISCONNECT)


@contextmanager
def _connected(settings: Settings) -> Iterator[tuple[socket.socket, Iterator[mqtt.Packet]]]:
    address = settings.mqtt_host, settings.mqtt_port
    try:
        with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
            hello = mqtt.encode_connect(
                f"resend-{secrets.token_hex(4)}",
                settings.mqtt_replay_username,
                settings.mqtt_replay_password.get_secret_value(),
                keep_alive_s=KEEP_ALIVE_S,
                clean_start=True,
            )
            connection.sendall(hello)
            packets = _packets(connection)
            _expect(packets, mqtt.Connack, settings.mqtt_replay_username)
            yield connection, packets
    except OSError as error:
        raise ZenthosError(
            f"the broker at {address[0]}:{address[1]} fails (is the stack up?): {error}"
        ) from None


def _packets(connection: socket.socket) -> Iterator[mqtt.Packet]:
    reader = mqtt.PacketReader()
    while data := connection.recv(CHUNK_BYTES):
        yield from reader.feed(data)
    raise ConnectionError("it closed the connection")


def _expect(
    packets: Iterator[mqtt.Packet], kind: type[mqtt.Puback | mqtt.Connack], what: str
) -> None:
    for packet in packets:
        reason = getattr(packet, "reason", 0)
        if reason >= mqtt.REFUSED:
            raise ZenthosError(f"the broker refuses {what}: {mqtt.reason_text(reason)}")
        if isinstance(packet, kind):
            return
