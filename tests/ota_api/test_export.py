"""Exports: who may, of which tables, which days and devices, and how much is held in memory."""

import csv
import io
import itertools
import tarfile
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from ota_api.export.batches import GROUP_ROWS, Source, grouped, unify
from ota_api.export.catalogue import TABLES, SqlTable
from ota_api.export.encoding import encode
from ota_api.export.objects import read_tar
from ota_api.export.schemas import ExportFormat
from ota_api.export.service import MOST_AT_ONCE, ExportSlots
from tests.ota_api.conftest import DEVICE_ID, Ota, make_ota_settings, on_s3, running_ota
from tests.servers import MotoServer
from zenthos_core import lake
from zenthos_core.blobs import store_of
from zenthos_core.blobs.s3 import Place
from zenthos_core.database import Database
from zenthos_core.errors import BusyError, ConflictError
from zenthos_core.settings import Settings
from zenthos_core.tokens import Role

DAY = date(2026, 11, 20)
SILVER = "/export/silver/telemetry_cleaned"


@pytest.fixture
def yard(ota_settings: Settings, analytics_url: str) -> Iterator[Ota]:
    """A server with both databases; devices and days are up to the test."""
    update = {"analytics_database_url": SecretStr(analytics_url)}
    with running_ota(ota_settings.model_copy(update=update)) as running:
        yield running


def store_rows(ota: Ota, rows: list[dict[str, Any]], day: date, **types: pa.DataType) -> None:
    """Put rows of silver/telemetry_cleaned into the lake."""
    buffer = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        table = table.set_column(
            table.schema.get_field_index(name), name, table.column(name).cast(kind)
        )
    pq.write_table(table, buffer)
    key = lake.day_key("telemetry_cleaned", day)
    store_of(ota.settings).put(lake.SILVER, key, buffer.getvalue())


def row(device_id: str, day: date, **more: Any) -> dict[str, Any]:
    time = datetime(day.year, day.month, day.day, 5, tzinfo=UTC)
    return {"message_id": bytes(range(16)), "device_id": device_id, "time": time, **more}


def fetch(ota: Ota, path: str, role: Role = Role.VIEWER, **query: Any) -> httpx.Response:
    return ota.send("GET", path, role, params=query)


def table_of(answer: httpx.Response) -> pa.Table:
    assert answer.status_code == 200, answer.text
    return pq.read_table(io.BytesIO(answer.content))


def days(table: pa.Table) -> list[date]:
    return [time.date() for time in table.column("time").to_pylist()]


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.ADMIN])
def test_anyone_who_may_look_may_export(yard: Ota, role: Role) -> None:
    yard.register()
    answer = fetch(yard, "/export/ops/devices", role)
    assert table_of(answer).column("id").to_pylist() == [DEVICE_ID]
    assert answer.headers["content-disposition"] == 'attachment; filename="devices.parquet"'


def test_a_device_may_not(yard: Ota) -> None:
    for path in ("/export", "/export/ops/devices", SILVER):
        assert yard.send("GET", path, Role.DEVICE).status_code == 403
        assert yard.send("GET", path, None).status_code == 401


def test_the_list_holds_what_can_be_asked_for(yard: Ota) -> None:
    items = fetch(yard, "/export").json()["items"]
    assert [item["name"] for item in items] == sorted(TABLES)
    by_name = {item["name"]: item for item in items}
    assert by_name["bronze/logs"]["formats"] == ["tar"]
    assert by_name["ops/devices"]["range_of"] is None
    assert by_name["analytics/telemetry_daily"]["range_of"] == "day of day"


def test_what_nobody_may_take_away(yard: Ota) -> None:
    """No table of secrets or unread payloads, and no free-form column."""
    yard.register()
    for name in ("quarantine", "raw_messages", "releases", "users", "refresh_tokens", "forwarders"):
        assert fetch(yard, f"/export/ops/{name}").status_code == 404
    assert "metadata" not in table_of(fetch(yard, "/export/ops/devices")).schema.names
    for table in TABLES.values():
        if isinstance(table, SqlTable) and table.database is Database.OPS:
            assert table.columns, "columns of the operational database are named one by one"


def test_an_unknown_table_is_told_which_there_are(yard: Ota) -> None:
    answer = fetch(yard, "/export/telemetry")
    assert answer.status_code == 404
    assert "there are analytics/etl_runs, " in answer.json()["detail"]


def test_a_range_includes_both_its_days(yard: Ota) -> None:
    all_days = [DAY + timedelta(days=n) for n in range(4)]
    for day in all_days:
        store_rows(yard, [row("a", day)], day)
    store_of(yard.settings).put(lake.SILVER, "telemetry_cleaned/_pieces/2026/11/20.0.parquet", b"-")
    store_of(yard.settings).put(lake.SILVER, "telemetry_cleaned_2/2026/11/20.parquet", b"-")
    assert days(table_of(fetch(yard, SILVER))) == all_days
    assert days(table_of(fetch(yard, SILVER, **{"from": all_days[1]}))) == all_days[1:]
    assert days(table_of(fetch(yard, SILVER, to=all_days[1]))) == all_days[:2]
    middle = {"from": all_days[1], "to": all_days[2]}
    assert days(table_of(fetch(yard, SILVER, **middle))) == all_days[1:3]


def test_a_range_of_nothing_says_what_there_is(yard: Ota) -> None:
    answer = fetch(yard, SILVER)
    assert (answer.status_code, "none is yet" in answer.text) == (404, True)
    store_rows(yard, [row("a", DAY)], DAY)
    answer = fetch(yard, SILVER, **{"from": "2027-01-01"})
    assert answer.status_code == 404
    assert "there is 2026-11-20 to 2026-11-20" in answer.json()["detail"]
    answer = fetch(yard, SILVER, **{"from": "2026-11-21", "to": "2026-11-20"})
    assert (answer.status_code, "swap them" in answer.text) == (422, True)
    assert fetch(yard, SILVER, **{"from": "yesterday"}).status_code == 422
    assert fetch(yard, SILVER, since="2026-11-20").status_code == 422


def test_a_day_without_readings_is_a_file_without_rows(yard: Ota) -> None:
    store_rows(yard, [row("a", DAY)], DAY)
    store = store_of(yard.settings)
    empty = io.BytesIO()
    whole = pq.read_table(
        io.BytesIO(store.get(lake.SILVER, "telemetry_cleaned/2026/11/20.parquet"))
    )
    pq.write_table(whole.slice(0, 0), empty)
    store.put(lake.SILVER, "telemetry_cleaned/2026/11/20.parquet", empty.getvalue())
    table = table_of(fetch(yard, SILVER))
    assert (len(table), table.schema.names) == (0, ["message_id", "device_id", "time"])
    assert fetch(yard, SILVER, format="csv").text == '"message_id","device_id","time"\n'


def test_devices_are_chosen(yard: Ota) -> None:
    store_rows(yard, [row(name, DAY) for name in "abc"], DAY)
    table = table_of(fetch(yard, SILVER, device=["a", "c", "x"]))
    assert table.column("device_id").to_pylist() == ["a", "c"]
    yard.register()
    assert len(table_of(fetch(yard, "/export/ops/devices", device=DEVICE_ID))) == 1
    answer = fetch(yard, "/export/ops/devices", device="other")
    assert (answer.status_code, answer.json()["detail"]) == (404, "no rows of other in devices")
    answer = fetch(yard, "/export/ops/farms", device=DEVICE_ID)
    assert (answer.status_code, "not by device" in answer.text) == (404, True)
    answer = fetch(yard, "/export/ops/farms", to=DAY)
    assert (answer.status_code, "leave `from` and `to` out" in answer.text) == (404, True)


def test_columns_that_came_later_are_null_before(yard: Ota) -> None:
    store_rows(yard, [row("a", DAY, soil=1)], DAY)
    later = DAY + timedelta(days=1)
    store_rows(yard, [row("a", later, soil=2.5, weather="rain")], later)
    table = table_of(fetch(yard, SILVER))
    assert table.column("soil").to_pylist() == [1.0, 2.5]
    assert table.column("weather").to_pylist() == [None, "rain"]


def test_a_column_that_changed_its_type_names_the_day(yard: Ota) -> None:
    store_rows(yard, [row("a", DAY, soil=1.5)], DAY)
    later = DAY + timedelta(days=1)
    store_rows(yard, [row("a", later, soil="wet")], later)
    answer = fetch(yard, SILVER)
    assert answer.status_code == 409
    assert "telemetry_cleaned/2026/11/21.parquet" in answer.json()["detail"]


def test_types_of_polars_become_plain(yard: Ota) -> None:
    kinds = {"device_id": pa.large_string(), "message_id": pa.large_binary()}
    words = pa.dictionary(pa.int8(), pa.string())
    store_rows(yard, [row("a", DAY, quality="ok")], DAY, quality=words, **kinds)
    schema = table_of(fetch(yard, SILVER)).schema
    assert [str(field.type) for field in schema] == [
        "binary",
        "string",
        "timestamp[us, tz=UTC]",
        "string",
    ]


def test_csv(yard: Ota) -> None:
    rows = [row("a", DAY, soil=1.5, note='a "word",\nand more'), row("b", DAY, soil=None, note="")]
    store_rows(yard, rows, DAY)
    answer = fetch(yard, SILVER, format="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert read[0] == {
        "message_id": bytes(range(16)).hex(),
        "device_id": "a",
        "time": "2026-11-20 05:00:00.000000Z",
        "soil": "1.5",
        "note": 'a "word",\nand more',
    }
    assert read[1]["soil"] == read[1]["note"] == ""


def test_csv_of_what_csv_cannot_hold(yard: Ota) -> None:
    store_rows(yard, [row("a", DAY, features=[1.0, 2.0])], DAY)
    answer = fetch(yard, SILVER, format="csv")
    assert (answer.status_code, "features: ask for parquet" in answer.text) == (409, True)
    assert table_of(fetch(yard, SILVER)).column("features").to_pylist() == [[1.0, 2.0]]


def test_formats_are_those_of_the_table(yard: Ota) -> None:
    assert "not as tar" in fetch(yard, SILVER, format="tar").json()["detail"]
    answer = fetch(yard, "/export/bronze/telemetry", format="csv")
    assert (answer.status_code, "comes as tar" in answer.text) == (409, True)
    assert fetch(yard, SILVER, format="xlsx").status_code == 422


def test_bronze_comes_as_it_is_stored(yard: Ota) -> None:
    store = store_of(yard.settings)
    stored = {
        "telemetry/2026/11/20/05.parquet": b"one" * 200,
        "telemetry/2026/11/20/05.1.parquet": bytes(512),
        "telemetry/2026/11/20/06.parquet": b"",
    }
    for key, data in {**stored, "telemetry/2026/11/21/00.parquet": b"no"}.items():
        store.put(lake.BRONZE, key, data)
    answer = fetch(yard, "/export/bronze/telemetry", **{"from": DAY, "to": DAY})
    assert answer.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive}
    assert found == stored
    answer = fetch(yard, "/export/bronze/telemetry", device="a")
    assert (answer.status_code, "leave `device` out" in answer.text) == (409, True)


def fill_analytics(ota: Ota) -> None:
    url = ota.settings.analytics_database_url.get_secret_value()
    with psycopg.connect(url) as connection:
        for n, device in itertools.product(range(3), "ba"):
            time = datetime(2026, 11, 20 + n, tzinfo=UTC)
            connection.execute(
                "INSERT INTO telemetry_hourly (bucket, device_id, farm_id, sample_count, soil_avg)"
                " VALUES (%s, %s, gen_random_uuid(), 4, 1.5)",
                [time, device],
            )
            connection.execute(
                "INSERT INTO ml_features (device_id, date, days_since_rain) VALUES (%s, %s, %s)",
                [device, time.date(), None if n else 3],
            )
        connection.execute(
            "INSERT INTO etl_runs (asset, partition, input_checksum, output_checksum, rows_in,"
            " rows_out, duration_s, run_id) VALUES ('a', 'b', '', '', 1, 1, 0.5, 'r')"
        )


def test_analytical_tables(yard: Ota) -> None:
    fill_analytics(yard)
    table = table_of(fetch(yard, "/export/analytics/telemetry_hourly", to="2026-11-21"))
    assert table.column("device_id").to_pylist() == ["a", "b", "a", "b"]
    assert str(table.schema.field("bucket").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("farm_id").type) == "string"
    only = table_of(fetch(yard, "/export/analytics/ml_features", device="b"))
    assert only.column("date").to_pylist() == [DAY + timedelta(days=n) for n in range(3)]
    assert only.column("days_since_rain").to_pylist() == [3, None, None]
    text = fetch(yard, "/export/analytics/ml_features", format="csv").content
    assert pa_csv.read_csv(io.BytesIO(text)).num_rows == 6
    assert len(table_of(fetch(yard, "/export/analytics/etl_runs"))) == 1
    answer = fetch(yard, "/export/analytics/telemetry_hourly", **{"from": "2026-12-01"})
    assert answer.status_code == 404
    assert "it holds 2026-11-20 to 2026-11-22" in answer.json()["detail"]
    answer = fetch(yard, "/export/analytics/telemetry_daily")
    assert (answer.status_code, "it is empty" in answer.text) == (404, True)


def test_operational_tables(yard: Ota) -> None:
    yard.register()
    url = yard.settings.database_url.get_secret_value()
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO ledger (day, device_id, stored) VALUES (%s, 'd', 5)", [DAY])
        connection.execute(
            "INSERT INTO irrigation_events (farm_id, timestamp, duration_minutes)"
            " SELECT id, '2026-11-20 06:00Z', 30 FROM farms"
        )
    farms = table_of(fetch(yard, "/export/ops/farms"))
    assert farms.column("name").to_pylist() == ["North"]
    ledger = table_of(fetch(yard, "/export/ops/ledger", **{"from": DAY, "to": DAY}))
    assert ledger.column("received").to_pylist() == [5]
    events = table_of(fetch(yard, "/export/ops/irrigation_events"))
    assert events.column("duration_minutes").to_pylist() == [30]


def test_a_database_that_is_away_is_an_answer(tmp_path: Path, ops_url: str) -> None:
    with running_ota(make_ota_settings(tmp_path, ops_url)) as ota:
        answer = fetch(ota, "/export/analytics/etl_runs")
    assert answer.status_code == 503
    assert "database cannot be reached" in answer.json()["detail"]


def counted(rows_each: int, pulled: list[int]) -> Source:
    schema = pa.schema([("n", pa.int64())])

    def batches() -> Generator[pa.RecordBatch, None, None]:
        for number in itertools.count():
            pulled.append(number)
            yield pa.RecordBatch.from_pydict({"n": range(rows_each)}, schema)

    return Source(schema, batches())


@pytest.mark.parametrize("format_", [ExportFormat.PARQUET, ExportFormat.CSV])
def test_no_more_is_read_than_the_next_piece_takes(format_: ExportFormat) -> None:
    """A table without end is exported piece by piece, each of about GROUP_ROWS rows."""
    pulled: list[int] = []
    chunks = encode(counted(GROUP_ROWS // 4, pulled), format_)
    for number, chunk in enumerate(itertools.islice(chunks, 6), 1):
        assert chunk
        assert len(pulled) == 4 * number
    chunks.close()


def test_small_batches_make_groups_of_a_good_size() -> None:
    schema = pa.schema([("n", pa.int64())])
    batch = pa.RecordBatch.from_pydict({"n": [1]}, schema)
    batches = (one for one in [batch] * 7)
    assert [len(table) for table in grouped(Source(schema, batches), 3)] == [3, 3, 1]


def test_objects_are_opened_one_after_the_other(yard: Ota) -> None:
    store = store_of(yard.settings)
    opened: list[Any] = []

    class Watching(type(store)):  # type: ignore[misc]
        def open(self, bucket: str, key: str) -> Any:
            assert all(file.closed for file in opened)
            opened.append(super().open(bucket, key))
            return opened[-1]

    keys = [f"t/2026/11/20/{n:02}.parquet" for n in range(5)]
    for key in keys:
        store.put(lake.BRONZE, key, bytes(10))
    for number, _ in enumerate(read_tar(Watching(store.root), lake.BRONZE, keys[:3])):
        assert len(opened) <= number + 1
    assert len(opened) == 3


def test_unifying_keeps_order_and_widens() -> None:
    one = pa.schema([("a", pa.int32()), ("b", pa.string())])
    two = pa.schema([("b", pa.large_string()), ("c", pa.null()), ("a", pa.float64())])
    assert unify([("one", one), ("two", two)]) == pa.schema(
        [("a", pa.float64()), ("b", pa.string()), ("c", pa.null())]
    )
    with pytest.raises(ConflictError, match="from two on"):
        unify([("one", one), ("two", pa.schema([("b", pa.int64())]))])


def test_slots_are_counted() -> None:
    slots = ExportSlots(1)
    with slots.take(), pytest.raises(BusyError, match="ask again later"), slots.take():
        pass
    with slots.take():
        pass


def large_days(ota: Ota, count: int) -> Sequence[date]:
    """Days whose export is far more than sockets hold."""
    found = [DAY + timedelta(days=n) for n in range(count)]
    for day in found:
        rows = [row(f"{n:06}-{day}", day, noise=str(n * n)) for n in range(30_000)]
        store_rows(ota, rows, day)
    return found


def test_a_reader_that_leaves_makes_room(yard: Ota) -> None:
    large_days(yard, 10)
    path, headers = f"{SILVER}?format=csv", yard.headers(Role.VIEWER)
    running = [yard.http.stream("GET", path, headers=headers) for _ in range(MOST_AT_ONCE)]
    answers = [one.__enter__() for one in running]
    assert {answer.status_code for answer in answers} == {200}
    refused = fetch(yard, SILVER)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    for one in running:
        one.__exit__(None, None, None)
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while fetch(yard, "/export/silver/telemetry_cleaned", device="x").status_code == 503:
        assert datetime.now(UTC) < deadline


def test_the_lake_on_s3(ota_settings: Settings, s3: MotoServer, s3_place: Place) -> None:
    with running_ota(on_s3(ota_settings, s3, s3_place)) as ota:
        for n in range(3):
            store_rows(ota, [row("a", DAY + timedelta(days=n))], DAY + timedelta(days=n))
        assert len(table_of(fetch(ota, SILVER, to="2026-11-21"))) == 2
        store_of(ota.settings).put(lake.BRONZE, "logs/2026/11/20/05.parquet", b"x")
        assert fetch(ota, "/export/bronze/logs").status_code == 200
