"""The running service between a real broker and a real Postgres."""

import gzip
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.ingest.conftest import IngestProcess
from tests.ingest.devices import PASSWORD, PublishingDevice
from tests.ingest.messages import BAD, DEVICE, telemetry, topic
from tests.servers import MosquittoServer
from tests.waiting import wait_until

RECEIVED_2 = r"messages_received_total{[^}]*} 2\.0"
COUNTED = "SELECT coalesce(sum(received), 0)::int FROM ledger"


def await_counted(database: psycopg.Connection, messages: int) -> None:
    wait_until(lambda: database.execute(COUNTED).fetchone() == (messages,))


def test_bad_input_is_quarantined_and_the_rest_stored(
    database: psycopg.Connection, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    # The broker's access rules keep a device to its own id and level: what is wrong in the topic
    # comes from the device that may publish it.
    senders = {to.split(b"/")[2].decode(): to for _, to, _ in BAD.values() if to.count(b"/") == 3}
    devices = {name: PublishingDevice(fleet_broker, name) for name in senders}
    sent = [item for item in BAD.values() if item[1].count(b"/") == 3]
    with devices[DEVICE], devices["stranger"]:
        for _, to, payload in sent:
            devices[DEVICE].publish(topic(), telemetry(timestamp=time.time()))
            devices[to.split(b"/")[2].decode()].publish(to, payload)
        for device in devices.values():
            device.flush()
    await_counted(database, 2 * len(sent))
    reasons = database.execute("SELECT reason, count(*) FROM quarantine GROUP BY 1").fetchall()
    assert dict(reasons) == Counter(reason for reason, _, _ in sent)
    payloads = database.execute("SELECT payload FROM quarantine").fetchall()
    assert {p for (p,) in payloads} == {payload for _, _, payload in sent}
    assert database.execute("SELECT count(*) FROM telemetry_hot").fetchone() == (len(sent),)
    wait_until(ingest.is_ready)


def test_metrics_count_every_outcome(
    database: psycopg.Connection, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    reading = telemetry(timestamp=time.time())
    with PublishingDevice(fleet_broker, DEVICE) as device:
        for payload in (reading, reading, b"{"):
            device.publish(topic(), payload)
        device.flush()
    await_counted(database, 3)
    wait_until(lambda: 'outcome="quarantined"' in ingest.get("/metrics")[1])
    page = ingest.get("/metrics")[1]
    for outcome in ("stored", "duplicate", "quarantined"):
        assert re.search(rf'messages_ingested_total{{[^}}]*"{outcome}"[^}}]*}} 1.0', page)
    assert "zenthos_middleware_messages_received_total{" in page
    assert "zenthos_middleware_ingest_latency_ms_bucket{" in page
    assert "zenthos_middleware_db_write_latency_ms_bucket{" in page
    assert 'reason="malformed_json"} 1.0' in page


def test_what_goes_down_to_devices_is_acknowledged_and_not_kept(
    database: psycopg.Connection, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    with PublishingDevice(fleet_broker, DEVICE) as device:
        for kind in ("ota", "ack"):
            device.publish(topic(kind), b"anything")
        device.flush()
        wait_until(lambda: re.search(RECEIVED_2, ingest.get("/metrics")[1]) is not None)
    ingest.restart()
    with PublishingDevice(fleet_broker, DEVICE) as device:
        device.publish(topic(), telemetry(timestamp=time.time()))
        device.flush()
    await_counted(database, 1)
    page = ingest.get("/metrics")[1]
    assert re.search(RECEIVED_2, page) is None  # nothing came again
    assert database.execute("SELECT count(*) FROM raw_messages").fetchone() == (1,)


class Collector(BaseHTTPRequestHandler):
    """An OTLP receiver that remembers what each path was sent."""

    received: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.received[self.path] = self.received.get(self.path, b"") + body
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no news."""


def test_traces_and_metrics_go_to_the_collector_and_logs_name_the_trace(
    tmp_path: Path, ops_url: str, database: psycopg.Connection, fleet_broker: MosquittoServer
) -> None:
    database.execute("ALTER TABLE telemetry_hot ADD CHECK (temperature <> 99)")
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        ingest = IngestProcess(
            tmp_path,
            ops_url,
            fleet_broker,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_TRACES_SAMPLER="always_on",
        )
        ingest.start()
        with PublishingDevice(fleet_broker, DEVICE) as device:
            device.publish(topic(), telemetry(timestamp=time.time(), sensors={"temperature": 99}))
            device.flush()
        await_counted(database, 1)
        ingest.stop()
        collector.shutdown()
    traces, metrics = (Collector.received[f"/v1/{kind}"] for kind in ("traces", "metrics"))
    for name in (b"zenthos-ingest", b"mqtt.receive", b"decode", b"db.write"):
        assert name in traces
    for name in ("messages_received", "messages_ingested", "validation_errors"):
        assert f"zenthos.middleware.{name}".encode() in metrics
    lines = [json.loads(line) for line in ingest.log.read_text().splitlines()]
    (refusal,) = [line for line in lines if "refuses a message" in line["message"]]
    assert bytes.fromhex(refusal["trace_id"]) in traces


def test_a_traced_message_has_a_span_in_its_devices_trace(
    tmp_path: Path, ops_url: str, database: psycopg.Connection, fleet_broker: MosquittoServer
) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = ("traceparent", f"00-{trace_id}-00f067aa0ba902b7-01")
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever).start()
        ingest = IngestProcess(
            tmp_path,
            ops_url,
            fleet_broker,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_port}",
        )
        ingest.start()
        device = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        device.username_pw_set(DEVICE, PASSWORD)
        device.connect(fleet_broker.host, fleet_broker.port)
        device.loop_start()
        payload = telemetry(timestamp=time.time())
        device.publish(topic().decode(), payload, qos=1, properties=properties)
        await_counted(database, 1)
        device.loop_stop()
        ingest.stop()
        collector.shutdown()
    traces = Collector.received["/v1/traces"]
    assert bytes.fromhex(trace_id) in traces
    assert b"middleware.handle" in traces


def test_a_device_over_its_limit_is_kept_out_of_the_hot_tables(
    tmp_path: Path, ops_url: str, database: psycopg.Connection, fleet_broker: MosquittoServer
) -> None:
    ingest = IngestProcess(
        tmp_path,
        ops_url,
        fleet_broker,
        ZENTHOS_INGEST_RATE_PER_S="0.001",
        ZENTHOS_INGEST_BURST="20",
    )
    ingest.start()
    with (
        PublishingDevice(fleet_broker, DEVICE) as flood,
        PublishingDevice(fleet_broker, "field-02") as other,
    ):
        for _ in range(100):
            flood.publish(topic(), telemetry(timestamp=time.time()))
        other.publish(
            topic(device_id="field-02"), telemetry(device_id="field-02", timestamp=time.time())
        )
        flood.flush()
        other.flush()
        await_counted(database, 101)
    counts = "SELECT device_id, stored, rate_limited FROM ledger ORDER BY 1"
    assert database.execute(counts).fetchall() == [(DEVICE, 20, 80), ("field-02", 1, 0)]
    assert database.execute("SELECT count(*) FROM telemetry_hot").fetchone() == (21,)
    assert database.execute("SELECT count(*) FROM raw_messages").fetchone() == (101,)
    wait_until(lambda: 'outcome="rate_limited"' in ingest.get("/metrics")[1])
    ingest.stop()


def test_one_worker_counts_the_fleet(
    database: psycopg.Connection, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    with PublishingDevice(fleet_broker, DEVICE) as device:
        device.publish(topic(), telemetry(timestamp=time.time()))
        device.flush()
        await_counted(database, 1)
    today = time.gmtime().tm_yday
    wait_until(lambda: "zenthos_devices_online_count{" in ingest.get("/metrics")[1])
    page = ingest.get("/metrics")[1]
    assert re.search(r"zenthos_devices_online_count{[^}]*} 1\.0", page)
    stored = re.search(r'zenthos_ledger_messages_today{[^}]*outcome="stored"[^}]*} 1\.0', page)
    assert stored or time.gmtime().tm_yday != today


def test_health_pages(ingest: IngestProcess) -> None:
    assert ingest.get("/health") == (200, '{"status":"ok"}')
    assert ingest.get("/health/ready") == (200, '{"status":"ready"}')
    assert ingest.get("/elsewhere")[0] == 404


def test_it_is_not_ready_without_a_broker(
    mosquitto: MosquittoServer, ingest: IngestProcess
) -> None:
    mosquitto.stop()
    wait_until(lambda: ingest.get("/health/ready")[0] == 503)
    mosquitto.start()
    wait_until(ingest.is_ready)


def test_a_stop_keeps_the_session_and_a_start_takes_it_up(
    database: psycopg.Connection, fleet_broker: MosquittoServer, ingest: IngestProcess
) -> None:
    ingest.stop()
    with PublishingDevice(fleet_broker, DEVICE) as device:
        for _ in range(100):
            device.publish(topic(), telemetry(timestamp=time.time()))
        device.flush()
    ingest.start()
    await_counted(database, 100)
    assert database.execute("SELECT count(*) FROM telemetry_hot").fetchone() == (100,)


@pytest.mark.parametrize(
    ("name", "value", "word"), [("ZENTHOS_HOT_DAYS", "0", "HOT_DAYS"), ("port", "", "METRICS_PORT")]
)
def test_a_wrong_setting_is_said_in_one_line(
    tmp_path: Path, ingest: IngestProcess, name: str, value: str, word: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ingest"],
        env={
            name: value,
            "ZENTHOS_INGEST_METRICS_PORT": str(ingest.port),
            "ZENTHOS_INGEST_SPOOL_DIR": str(tmp_path / "another"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert word in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys, ingest.service, ingest.__main__;"
        "heavy = {'dagster', 'polars', 'fastapi', 'tensorflow', 'mlflow', 'numpy', 'pandas'};"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("\n", "")
