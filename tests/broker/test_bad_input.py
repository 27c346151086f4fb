"""Whatever is thrown at the broker, it stays up and lets nobody in by it."""

import random
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.broker.clients import ACCEPTED, answer
from tests.servers import TokenBroker

DEVICE = "field-sensor-001"
PROTOCOLS = (4, 5)


def connect_packet(client_id: bytes, username: bytes, password: bytes, protocol: int) -> bytes:
    """CONNECT with any bytes as its fields, which no library would send."""
    fields = [struct.pack(">H", len(part)) + part for part in (client_id, username, password)]
    properties = b"\x00" if protocol == 5 else b""
    body = b"\x00\x04MQTT" + bytes((protocol, 0xC2)) + b"\x00\x3c" + properties + b"".join(fields)
    return b"\x10" + varint(len(body)) + body


def varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number % 128 | 128)
        number //= 128
    return bytes([*digits, number])


def accepts(broker: TokenBroker, packet: bytes) -> bool:
    with socket.create_connection((broker.host, broker.port), timeout=5) as connection:
        try:
            connection.sendall(packet)
            connection.shutdown(socket.SHUT_WR)
            received = connection.recv(64)
        except OSError:  # the broker has closed the connection already
            return False
    return received.startswith(b"\x20") and received[3] == 0


def awkward(good: bytes, rng: random.Random) -> Iterator[bytes]:
    """Strings made to upset a parser of names and tokens."""
    yield from (b"", b"\x00", b".", b"..", b"...", b"\xff" * 100, b"%s%n%s%n", b"A" * 65_535)
    yield from (b"." * 4096, b"A." * 2048, b"e30.e30.", b"e30.e30.AAAA", good + b"\x00", good[:-1])
    yield from (b"\x00" + good, good.replace(b".", b"\x00"), good.replace(b".", b"=."), good * 9)
    for _ in range(40):
        yield rng.randbytes(rng.choice((1, 10, 500, 4095, 4096, 4097, 20_000)))
    for _ in range(40):
        changed = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        if bytes(changed) != good:
            yield bytes(changed)


def opened(broker: TokenBroker, packets: Iterator[bytes]) -> list[bytes]:
    return [packet[:200] for packet in packets if accepts(broker, packet)]


def test_the_packet_made_by_hand_is_right(shared_broker: TokenBroker) -> None:
    token, name = shared_broker.token(DEVICE).encode(), DEVICE.encode()
    for protocol in PROTOCOLS:
        assert accepts(shared_broker, connect_packet(name, name, token, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_awkward_tokens(shared_broker: TokenBroker, protocol: int) -> None:
    rng, name = random.Random(1), DEVICE.encode()
    good = shared_broker.token(DEVICE).encode()
    # Mosquitto hands a password over as a C string: what follows a NUL is not part of it.
    tokens = [token for token in awkward(good, rng) if token.partition(b"\0")[0] != good]
    packets = (connect_packet(name, name, token, protocol) for token in tokens)
    assert opened(shared_broker, packets) == []
    assert answer(shared_broker, DEVICE, good.decode()) == ACCEPTED


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_awkward_names(shared_broker: TokenBroker, protocol: int) -> None:
    rng, name = random.Random(2), DEVICE.encode()
    good = shared_broker.token(DEVICE).encode()
    names = [odd for odd in awkward(name, rng) if odd != name]
    packets = [connect_packet(odd, odd, good, protocol) for odd in names]
    packets += [connect_packet(name, odd, good, protocol) for odd in names]
    packets += [connect_packet(odd, name, good, protocol) for odd in names]
    assert opened(shared_broker, iter(packets)) == []
    assert answer(shared_broker, DEVICE, good.decode()) == ACCEPTED


def test_packets_cut_short_and_noise(shared_broker: TokenBroker) -> None:
    rng, name = random.Random(3), DEVICE.encode()
    whole = connect_packet(name, name, shared_broker.token(DEVICE).encode(), 5)
    cut = (whole[: rng.randrange(len(whole))] for _ in range(50))
    assert opened(shared_broker, cut) == []
    assert opened(shared_broker, (rng.randbytes(300) for _ in range(50))) == []
    assert answer(shared_broker, DEVICE, shared_broker.token(DEVICE)) == ACCEPTED
