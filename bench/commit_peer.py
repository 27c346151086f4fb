"""The peer of latency: one message, one INSERT, one commit, one acknowledgement.

`python -m bench.commit_peer PORT USER PASSWORD DATABASE_URL` runs it with paho until its standard
input ends. It does the least that a subscriber can which neither loses nor doubles a message.
"""

import json
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import psycopg

from bench.messages import HOST
from bench.process import BenchError, wait_for_release

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

TABLE: Final = "peer_readings"
SESSION: Final = "bench-commit-peer"
COUNTED: Final = "SELECT count(*) FROM peer_readings"
DESCRIPTION: Final = "paho: one message, INSERT … ON CONFLICT DO NOTHING, commit, acknowledge"
CREATE: Final = """
CREATE TABLE peer_readings (
  message_id uuid PRIMARY KEY, device_id text NOT NULL, time timestamptz NOT NULL,
  sensors jsonb NOT NULL
)
"""
_INSERT: Final = """
INSERT INTO peer_readings VALUES (%s, %s, to_timestamp(%s), %s::jsonb) ON CONFLICT DO NOTHING
"""
SUBSCRIBE_S: Final = 30.0


def require_paho() -> None:
    """BenchError where the peer cannot run."""
    if find_spec("paho") is None:
        raise BenchError(
            "the peer needs paho-mqtt, which `make setup` installs: pip install 'paho-mqtt>=2.2'"
        )


def make_client(connection: psycopg.Connection, subscribed: threading.Event) -> "Client":
    """A client with a persistent session that stores each message before it acknowledges it."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    def on_message(client: "Client", _: Any, message: "MQTTMessage") -> None:
        reading = json.loads(message.payload)
        row = [reading[name] for name in ("message_id", "device_id", "timestamp")]
        connection.execute(_INSERT, [*row, json.dumps(reading["sensors"])])
        client.ack(message.mid, message.qos)

    def on_connect(client: "Client", *_: Any) -> None:
        client.subscribe("zenthos/#", qos=1)

    client = Client(CallbackAPIVersion.VERSION2, SESSION, clean_session=False, manual_ack=True)
    client.on_message = on_message
    client.on_connect = on_connect
    client.on_subscribe = lambda *_: subscribed.set()
    return client


def main() -> None:
    """Subscribe, report ready, store until released."""
    port, user, password, url = sys.argv[1:5]
    subscribed = threading.Event()
    with psycopg.connect(url, autocommit=True) as connection:
        client = make_client(connection, subscribed)
        client.username_pw_set(user, password)
        client.connect(HOST, int(port))
        client.loop_start()
        if not subscribed.wait(SUBSCRIBE_S):
            sys.exit("the broker did not accept the subscription")
        wait_for_release()
        client.disconnect()
        client.loop_stop()


if __name__ == "__main__":
    main()
