"""The listener for TLS: what connects to it and what does not."""

import socket
import ssl

import pytest

from tests.broker.clients import ACCEPTED, NOT_AUTHORIZED, Client
from tests.broker.forging import claims, signed
from tests.servers import TokenBroker
from zenthos_core import mqtt

DEVICE = "field-sensor-001"


def trusting(broker: TokenBroker) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(broker.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return context


def handshake(broker: TokenBroker, context: ssl.SSLContext, name: str = "localhost") -> str | None:
    with (
        socket.create_connection((broker.host, broker.tls_port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        return secured.version()


def test_a_device_connects_and_publishes(shared_broker: TokenBroker) -> None:
    with Client(
        shared_broker,
        DEVICE,
        shared_broker.token(DEVICE),
        port=shared_broker.tls_port,
        tls=trusting(shared_broker),
    ) as client:
        assert client.answer == ACCEPTED
        assert client.publish(f"zenthos/esp32-s3/{DEVICE}/telemetry") in (0, 16)


def test_it_checks_tokens_too(shared_broker: TokenBroker) -> None:
    with Client(
        shared_broker,
        DEVICE,
        signed("none", claims(DEVICE)) + "AAAA",
        port=shared_broker.tls_port,
        tls=trusting(shared_broker),
    ) as client:
        assert client.answer == NOT_AUTHORIZED


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_its_certificate_names_loopback(shared_broker: TokenBroker, name: str) -> None:
    assert handshake(shared_broker, trusting(shared_broker), name) == "TLSv1.3"


def test_its_certificate_names_nothing_else(shared_broker: TokenBroker) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(shared_broker, trusting(shared_broker), "broker.example")


def test_who_does_not_know_the_ca_refuses(shared_broker: TokenBroker) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(shared_broker, ssl.create_default_context())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_versions_before_1_2_are_refused(
    shared_broker: TokenBroker, version: ssl.TLSVersion
) -> None:
    context = trusting(shared_broker)
    context.minimum_version, context.maximum_version = version, version
    context.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL itself would not offer them
    with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
        handshake(shared_broker, context)


def test_version_1_2_is_not(shared_broker: TokenBroker) -> None:
    context = trusting(shared_broker)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(shared_broker, context) == "TLSv1.2"


def test_plain_text_is_refused(shared_broker: TokenBroker) -> None:
    hello = mqtt.encode_connect(
        DEVICE, DEVICE, shared_broker.token(DEVICE), keep_alive_s=0, clean_start=True
    )
    with socket.create_connection(
        (shared_broker.host, shared_broker.tls_port), timeout=5
    ) as connection:
        connection.sendall(hello)
        try:
            received = connection.recv(100)
        except ConnectionResetError:
            received = b""
    assert received[:1] in (b"", b"\x15")  # the end, or the alert of a TLS server; no CONNACK
