"""`zenthos export` and `zenthos token`, against the real server."""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.ota_api.conftest import Ota, make_ota_settings, running_ota
from tests.servers import find_free_port
from tests.zenthos_assets.conftest import RECEIVED, reading
from zenthos_assets import parquet
from zenthos_assets.bronze import codec
from zenthos_assets.bronze.transforms import SCHEMA
from zenthos_cli.main import app
from zenthos_core import lake, tokens
from zenthos_core.blobs import store_of
from zenthos_core.tokens import Role

DAY = date(2026, 11, 20)
Zenthos = Callable[..., Result]


@pytest.fixture
def served(tmp_path: Path, ops_url: str) -> Iterator[Ota]:
    with running_ota(make_ota_settings(tmp_path / "ota", ops_url)) as running:
        for n in range(3):
            day = DAY + timedelta(days=n)
            frame = pl.DataFrame({"device_id": ["a", "b"], "day": [day] * 2, "soil": [1.5, None]})
            key = lake.day_key("telemetry_daily", day)
            store_of(running.settings).put(lake.GOLD, key, parquet.encode(frame))
        yield running


@pytest.fixture
def zenthos(served: Ota, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Zenthos:
    """The command in an empty folder, with a viewer's token."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("ZENTHOS_OTA_URL", served.settings.ota_url)
    monkeypatch.setenv("ZENTHOS_TOKEN", served.token(Role.VIEWER))
    return lambda *arguments: CliRunner().invoke(app, [*arguments])


def names() -> list[str]:
    return [path.name for path in Path().iterdir()]


def test_a_range_of_a_table_into_a_file(zenthos: Zenthos) -> None:
    options = ["--from", "2026-11-21", "--to", "2026-11-22", "--device", "a", "--out", "x.parquet"]
    done = zenthos("export", "gold/telemetry_daily", *options)
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("wrote ")
    read = pl.read_parquet("x.parquet")
    assert read["day"].to_list() == [DAY + timedelta(days=n) for n in (1, 2)]
    assert names() == ["x.parquet"]


def test_the_name_of_the_file_says_the_format(zenthos: Zenthos) -> None:
    assert zenthos("export", "gold/telemetry_daily", "--out", "x.csv").exit_code == 0
    assert Path("x.csv").read_text().splitlines()[:2] == [
        '"device_id","day","soil"',
        '"a",2026-11-20,1.5',
    ]
    assert zenthos("export", "gold/telemetry_daily", "--out", "y").exit_code == 0
    assert pq.read_metadata("y").num_rows == 6


def test_standard_output(zenthos: Zenthos) -> None:
    done = zenthos("export", "gold/telemetry_daily", "--format", "csv", "--out", "-")
    assert len(done.stdout.splitlines()) == 7
    done = zenthos("export", "gold/telemetry_daily", "--out", "-")
    assert pq.read_table(io.BytesIO(done.stdout_bytes)).num_rows == 6


def test_the_list(zenthos: Zenthos) -> None:
    shown = zenthos("export", "--list").stdout
    assert "gold/telemetry_daily" in shown
    assert next(line for line in shown.splitlines() if "bronze/logs" in line).split()[-1] == "tar"


def test_mistakes_are_explained(zenthos: Zenthos, monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes = {
        ("nonsense", "--out", "x.csv"): (1, "there are analytics/etl_runs"),
        ("gold/telemetry_daily", "--from", "2027-01-01", "--out", "x"): (1, "there is 2026-11-20"),
        ("gold/telemetry_daily", "--out", "no/such/folder/x"): (1, "cannot write no/such/folder"),
        ("bronze/logs", "--format", "csv", "--out", "x"): (1, "take parquet"),
        ("gold/telemetry_daily",): (2, "--out"),
        ("gold/telemetry_daily", "--out", "x", "--token", "wrong"): (1, "token refused"),
    }
    for arguments, (code, words) in mistakes.items():
        done = zenthos("export", *arguments)
        assert (done.exit_code, words in done.stderr) == (code, True), (arguments, done.stderr)
    monkeypatch.setenv("ZENTHOS_TOKEN", "")
    assert "`zenthos token NAME`" in zenthos("export", "--list").stderr
    monkeypatch.setenv("ZENTHOS_OTA_URL", f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.setenv("ZENTHOS_TOKEN", "x")
    assert "is the stack up" in zenthos("export", "--list").stderr
    assert names() == []


def test_bronze_is_decoded_on_this_side(zenthos: Zenthos, served: Ota) -> None:
    sent = [
        (f"zenthos/esp32-s3/{device}/telemetry", reading(device, RECEIVED, n), hour)
        for n, (device, hour) in enumerate([("soil-1", 5), ("soil-2", 5), ("soil-1", 6)])
    ]
    for hour in (5, 6):
        at = RECEIVED.replace(hour=hour)
        rows = [(topic, data, at, at, 1, False, False) for topic, data, h in sent if h == hour]
        frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        key = lake.bronze_key("telemetry", at, 0)
        encode = codec.encode if hour == 5 else parquet.encode  # as today, and as before
        store_of(served.settings).put(lake.BRONZE, key, encode(frame))
    assert zenthos("export", "bronze/telemetry", "--out", "all.parquet").exit_code == 0
    read = pl.read_parquet("all.parquet")
    assert sorted(read["payload"].to_list()) == sorted(data for _, data, _ in sent)
    assert read.schema == SCHEMA
    options = ["--device", "soil-2", "--out", "one.parquet"]
    assert zenthos("export", "bronze/telemetry", *options).exit_code == 0
    assert pl.read_parquet("one.parquet")["payload"].to_list() == [sent[1][1]]
    assert zenthos("export", "bronze/telemetry", "--out", "as-stored.tar").exit_code == 0
    assert Path("as-stored.tar").read_bytes()[:9] == b"telemetry"


@contextmanager
def server_that_is_lost(after: bytes) -> Iterator[int]:
    """A server that begins an answer and is gone before its end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65_536)
                head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                client.sendall(head + b"%x\r\n%s\r\n" % (len(after), after))

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("table", ["gold/telemetry_daily", "bronze/telemetry"])
def test_a_server_that_is_lost_in_the_midst_leaves_no_half_file(
    zenthos: Zenthos, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    Path("x.parquet").write_bytes(b"of yesterday")
    with server_that_is_lost(after=bytes(1024)) as port:
        monkeypatch.setenv("ZENTHOS_OTA_URL", f"http://127.0.0.1:{port}")
        done = zenthos("export", table, "--out", "x.parquet")
    assert done.exit_code == 1
    assert "was lost in the midst" in done.stderr
    assert names() == ["x.parquet"]
    assert Path("x.parquet").read_bytes() == b"of yesterday"


def test_tokens_are_made_for_people(zenthos: Zenthos, served: Ota, monkeypatch) -> None:
    settings = served.settings
    monkeypatch.setenv("ZENTHOS_TOKEN_PRIVATE_KEY_FILE", str(settings.token_private_key_file))
    made = zenthos("token", "ada", "--days", "2").stdout.strip()
    public = settings.token_public_key_file.read_bytes()
    identity = tokens.verify(public, made)
    assert (identity.subject, identity.role, identity.scopes) == ("ada", Role.VIEWER, {"read"})
    done = zenthos("export", "gold/telemetry_daily", "--token", made, "--out", "x.csv")
    assert done.exit_code == 0
    operator = tokens.verify(public, zenthos("token", "ci", "--role", "operator").stdout.strip())
    assert (operator.role, operator.scopes) == (Role.OPERATOR, {"read", "publish"})
    assert zenthos("token", "x", "--role", "device").exit_code == 2
