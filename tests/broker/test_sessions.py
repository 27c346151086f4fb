"""When a session ends: rules 3 and 4 of the plugin, on a running broker."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.broker.clients import ACCEPTED, NOT_AUTHORIZED, Client, answer, wait_until
from tests.servers import TokenBroker
from zenthos_core import tokens
from zenthos_core.revocations import renew_tokens, revoke_tokens

DEVICE, OTHER = "field-sensor-001", "field-sensor-002"
SOON_S = 2.5
"""The broker looks once a second."""


def device(broker: TokenBroker, device_id: str = DEVICE, **options: object) -> Client:
    return Client(broker, device_id, broker.token(device_id), **options)  # type: ignore[arg-type]


def replace_key(broker: TokenBroker) -> None:
    """As an operator would after the old one has leaked."""
    private = tokens.generate_private_key()
    (broker.keys / "token.pem").write_bytes(private)
    replace(broker.keys / "token.pub.pem", tokens.public_pem(private))


def replace(path: Path, content: bytes) -> None:
    """Never seen half written."""
    replacement = path.with_suffix(".new")
    replacement.write_bytes(content)
    replacement.replace(path)


def admits(broker: TokenBroker, token: str, device_id: str = DEVICE) -> bool:
    return answer(broker, device_id, token) == ACCEPTED


def test_a_session_ends_when_its_token_expires(token_broker: TokenBroker) -> None:
    will = f"zenthos/esp32-s3/{DEVICE}/status"
    brief = token_broker.token(DEVICE, valid_s=8)
    with (
        Client(token_broker, token_broker.username, token_broker.password) as ingest,
        device(token_broker, OTHER) as other,
        Client(token_broker, DEVICE, brief, will=will) as client,
    ):
        ingest.subscribe("zenthos/#")
        time.sleep(1)
        assert client.connected
        wait_until(lambda: client.ended is not None)
        wait_until(lambda: ingest.received == [(will, b"gone")])
        assert other.connected
    assert not admits(token_broker, brief)
    assert f"{DEVICE} leaves: token expired" in token_broker.log


def test_a_session_ends_when_its_token_is_revoked(token_broker: TokenBroker) -> None:
    token = token_broker.token(DEVICE)
    will = f"zenthos/esp32-s3/{DEVICE}/status"
    with (
        Client(token_broker, token_broker.username, token_broker.password) as ingest,
        device(token_broker, OTHER) as other,
        Client(token_broker, DEVICE, token, will=will) as client,
    ):
        ingest.subscribe("zenthos/#")
        revoke_tokens(token_broker.revocations_file, [DEVICE], now=time.time())
        wait_until(lambda: client.ended is not None)
        assert not admits(token_broker, token)
        assert other.connected
        assert other.publish(f"zenthos/esp32-s3/{OTHER}/telemetry") == 0
        wait_until(lambda: bool(ingest.received))
        assert [topic for topic, _ in ingest.received] == [f"zenthos/esp32-s3/{OTHER}/telemetry"]
    later = token_broker.token(DEVICE, now=time.time() + 5)
    assert admits(token_broker, later)


def test_a_new_token_ends_the_earlier_ones(token_broker: TokenBroker) -> None:
    earlier = token_broker.token(DEVICE, now=time.time() - 1)
    with Client(token_broker, DEVICE, earlier) as client:
        issued_at = renew_tokens(token_broker.revocations_file, DEVICE, now=time.time())
        wait_until(lambda: client.ended is not None)
    assert not admits(token_broker, earlier)
    assert admits(token_broker, token_broker.token(DEVICE, now=issued_at))


def test_many_revoked_at_once_all_leave(token_broker: TokenBroker) -> None:
    names = [f"device-{number}" for number in range(50)]
    clients = [device(token_broker, name).__enter__() for name in names]
    revoke_tokens(token_broker.revocations_file, names[:49], now=time.time())
    wait_until(lambda: all(client.ended is not None for client in clients[:49]))
    assert clients[49].connected
    for client in clients:
        client.close()


def test_a_replaced_key_holds_at_once(token_broker: TokenBroker) -> None:
    old = token_broker.token(DEVICE)
    with device(token_broker) as client:
        replace_key(token_broker)
        wait_until(lambda: client.ended is not None)
    assert admits(token_broker, token_broker.token(DEVICE))
    assert not admits(token_broker, old)


def test_the_same_key_written_anew_disturbs_nobody(token_broker: TokenBroker) -> None:
    public = token_broker.keys / "token.pub.pem"
    with device(token_broker) as client:
        public.write_bytes(public.read_bytes())
        time.sleep(SOON_S)
        assert client.connected


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_damaged_key_file_leaves_the_old_key_in_force(
    token_broker: TokenBroker, content: bytes | None
) -> None:
    public = token_broker.keys / "token.pub.pem"
    good = public.read_bytes()
    with device(token_broker) as client:
        public.unlink() if content is None else public.write_bytes(content)
        wait_until(lambda: f"zenthos: {public}: " in token_broker.log)
        assert client.connected
        assert admits(token_broker, token_broker.token(OTHER), OTHER)
    public.write_bytes(good)
    replace_key(token_broker)
    wait_until(lambda: admits(token_broker, token_broker.token(DEVICE)))


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"field-sensor-001\n",
        b"field-sensor-001 \n",
        b"field-sensor-001  99999999999\n",
        b"field-sensor-001 99999999999 \n",
        b"field-sensor-001 -1\n",
        b"field-sensor-001 9999999999999\n",
        b"field-sensor-002 1\n\nfield-sensor-001 1\n",
        b"Field 1\n",
        b"a" * 64 + b" 1\n",
        b"field-sensor-002 1\nfield-sensor-0\0",
        b"\xff" * 1000,
    ],
)
def test_a_damaged_list_leaves_the_old_one_in_force(
    token_broker: TokenBroker, content: bytes | None
) -> None:
    path, revoked = token_broker.revocations_file, token_broker.token(DEVICE)
    revoke_tokens(path, [DEVICE], now=time.time())
    wait_until(lambda: not admits(token_broker, revoked))
    with device(token_broker, OTHER) as other:
        path.unlink() if content is None else replace(path, content)
        wait_until(lambda: f"zenthos: {path}: " in token_broker.log)
        assert not admits(token_broker, revoked)
        assert other.connected


def test_the_later_of_two_lines_counts_and_the_last_may_lack_its_end(
    token_broker: TokenBroker,
) -> None:
    soon = int(time.time()) + 1000
    text = f"{DEVICE} 1\n{OTHER} 5\n{DEVICE} {soon}\n{DEVICE} 2\n{OTHER} {soon}"
    token_broker.revocations_file.write_text(text)
    wait_until(lambda: not admits(token_broker, token_broker.token(DEVICE)))
    assert not admits(token_broker, token_broker.token(OTHER), OTHER)
    assert admits(token_broker, token_broker.token("field-sensor-003"), "field-sensor-003")


def test_an_emptied_list_lets_them_in_again(token_broker: TokenBroker) -> None:
    revoked = token_broker.token(DEVICE)
    revoke_tokens(token_broker.revocations_file, [DEVICE], now=time.time())
    wait_until(lambda: not admits(token_broker, revoked))
    token_broker.revocations_file.write_text("")
    wait_until(lambda: admits(token_broker, revoked))


def test_a_device_that_connects_again_has_one_session(token_broker: TokenBroker) -> None:
    """The newer connection lives by its own token, not by that of the one it replaced."""
    expires = int(time.time()) + 8
    brief = token_broker.token(DEVICE, now=expires - 8, valid_s=8)
    with Client(token_broker, DEVICE, brief) as first, device(token_broker) as second:
        wait_until(lambda: first.ended is not None)
        time.sleep(max(0.0, expires - time.time()) + SOON_S)
        assert second.connected
        revoke_tokens(token_broker.revocations_file, [DEVICE], now=time.time())
        wait_until(lambda: second.ended is not None)


def test_a_replaced_long_session_ends_with_the_newer_brief_token(
    token_broker: TokenBroker,
) -> None:
    brief = token_broker.token(DEVICE, valid_s=8)
    with device(token_broker) as first, Client(token_broker, DEVICE, brief) as second:
        wait_until(lambda: first.ended is not None)
        wait_until(lambda: second.ended is not None)


def test_a_device_refused_beside_itself_keeps_its_session(token_broker: TokenBroker) -> None:
    with device(token_broker) as client:
        assert answer(token_broker, DEVICE, "wrong") == NOT_AUTHORIZED
        time.sleep(0.3)
        assert client.connected
        revoke_tokens(token_broker.revocations_file, [DEVICE], now=time.time())
        wait_until(lambda: client.ended is not None)


def test_a_reload_disturbs_nobody_present_or_absent(token_broker: TokenBroker) -> None:
    """SIGHUP makes Mosquitto ask about every client again, those that are away included."""
    topic = f"zenthos/esp32-s3/{OTHER}/ack"
    with device(token_broker, OTHER, clean_start=False) as away:
        assert away.subscribe(topic) == 1
    with device(token_broker) as client:
        os.kill(token_broker.pid, signal.SIGHUP)
        time.sleep(SOON_S)
        assert client.connected
        with Client(token_broker, token_broker.username, token_broker.password) as ingest:
            assert ingest.publish(topic, b"kept") == 0
        with device(token_broker, OTHER, clean_start=False) as back:
            wait_until(lambda: back.received == [(topic, b"kept")])
        revoke_tokens(token_broker.revocations_file, [DEVICE], now=time.time())
        wait_until(lambda: client.ended is not None)


def test_what_waits_for_an_absent_device_survives_a_restart(token_broker: TokenBroker) -> None:
    topic = f"zenthos/esp32-s3/{DEVICE}/ack"
    with device(token_broker, clean_start=False) as client:
        assert client.subscribe(topic) == 1
    token_broker.restart()
    assert admits(token_broker, token_broker.token(OTHER), OTHER)  # it listens to signals, too
    os.kill(token_broker.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert f"{DEVICE} refused" not in token_broker.log
    with Client(token_broker, token_broker.username, token_broker.password) as ingest:
        assert ingest.publish(topic, b"kept") == 0
    with device(token_broker, clean_start=False) as back:
        wait_until(lambda: back.received == [(topic, b"kept")])


@pytest.mark.parametrize("name", ["token.pub.pem", "revocations"])
def test_without_its_files_the_broker_does_not_start(
    token_broker: TokenBroker, name: str, tmp_path: Path
) -> None:
    token_broker.stop()
    missing = {"token.pub.pem": token_broker.keys / name}.get(name, token_broker.revocations_file)
    missing.unlink()
    done = subprocess.run(
        token_broker.broker.command(),
        env=token_broker.broker.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert f"zenthos: {missing}: No such file or directory" in done.stderr
    token_broker.broker.folder.joinpath("revocations").touch()
    (token_broker.keys / "token.pub.pem").write_bytes(
        tokens.public_pem((token_broker.keys / "token.pem").read_bytes())
    )
