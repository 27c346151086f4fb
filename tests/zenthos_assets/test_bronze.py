"""Draining the outbox: nothing lost, nothing doubled, whatever is interrupted."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import dagster as dg
import psycopg
import pytest

from tests.zenthos_assets.conftest import HOUR_KEY, RECEIVED, Farmyard, reading
from zenthos_assets.bronze import codec, outbox
from zenthos_assets.bronze.telemetry_days import TELEMETRY_DAYS_KEY, recent_days
from zenthos_assets.bronze.transforms import counts_by
from zenthos_core import lake
from zenthos_core.errors import ArchiveError
from zenthos_core.topics import MessageType

DAY = datetime(2026, 11, 19, tzinfo=UTC)
HOUR = RECEIVED.replace(minute=0)


def payloads(count: int, start: datetime = DAY) -> list[bytes]:
    return [reading("soil-1", start + timedelta(minutes=n)) for n in range(count)]


def archived(yard: Farmyard) -> list[bytes]:
    keys = [key for (key,) in yard.execute("SELECT object_key FROM bronze_objects ORDER BY part")]
    frames = [codec.decode(yard.store.get(lake.BRONZE, key)) for key in keys]
    return [payload for frame in frames for payload in frame["payload"]]


def waiting(yard: Farmyard) -> int:
    return int(yard.execute("SELECT count(*) FROM raw_messages")[0][0])


def test_archives_every_byte_and_empties_the_outbox(farmyard: Farmyard) -> None:
    sent = payloads(50)
    farmyard.receive(sent)
    assert farmyard.run("archive", HOUR_KEY).success
    assert archived(farmyard) == sent
    assert waiting(farmyard) == 0
    days = farmyard.execute("SELECT day, row_count FROM bronze_days")
    assert days == [(DAY.date(), 50)]


def test_each_message_type_has_its_own_table(farmyard: Farmyard) -> None:
    for kind in ("telemetry", "status", "inference", "logs"):
        farmyard.receive([b'{"kind": "%s"}' % kind.encode()], message_type=kind)
    assert farmyard.run("archive", HOUR_KEY).success
    keys = [key for (key,) in farmyard.execute("SELECT object_key FROM bronze_objects ORDER BY 1")]
    assert keys == [
        f"{kind}/2026/11/20/05.parquet" for kind in ("inference", "logs", "status", "telemetry")
    ]


def test_what_comes_later_goes_to_the_next_part(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    farmyard.run("archive", HOUR_KEY)
    farmyard.receive(payloads(2, DAY + timedelta(hours=5)))
    farmyard.run("archive", HOUR_KEY)
    assert len(archived(farmyard)) == 5
    assert farmyard.store.exists(lake.BRONZE, "telemetry/2026/11/20/05.1.parquet")


def test_an_hour_without_messages_gets_no_object(farmyard: Farmyard) -> None:
    assert farmyard.run("archive", HOUR_KEY).success
    assert farmyard.execute("SELECT count(*) FROM bronze_objects") == [(0,)]
    assert list(farmyard.store.keys(lake.BRONZE)) == []


def test_large_hours_are_split_into_parts(farmyard: Farmyard) -> None:
    sent = payloads(5)
    farmyard.receive(sent)
    with farmyard.platform.ops() as connection:
        sizes = []
        while part := outbox.archive_part(
            connection, farmyard.store, "telemetry", HOUR, run_id="r", limit=2
        ):
            sizes.append(part.row_count)
    assert sizes == [2, 2, 1]
    assert archived(farmyard) == sent


def test_a_crash_between_writing_and_commit_loses_and_doubles_nothing(farmyard: Farmyard) -> None:
    sent = payloads(10)
    farmyard.receive(sent)

    class Crash(BaseException):
        """What a killed process looks like from inside."""

    class CrashingStore(type(farmyard.store)):  # type: ignore[misc]
        def get(self, bucket: str, key: str) -> bytes:
            raise Crash

    with farmyard.platform.ops() as connection, pytest.raises(Crash):
        outbox.archive_part(
            connection, CrashingStore(farmyard.store.root), "telemetry", HOUR, run_id="r"
        )
    assert waiting(farmyard) == 10
    assert farmyard.execute("SELECT count(*) FROM bronze_objects") == [(0,)]
    orphan = farmyard.store.get(lake.BRONZE, lake.bronze_key("telemetry", HOUR, 0))
    assert farmyard.run("archive", HOUR_KEY).success
    assert archived(farmyard) == sent
    assert waiting(farmyard) == 0
    assert farmyard.store.get(lake.BRONZE, lake.bronze_key("telemetry", HOUR, 0)) == orphan


def test_an_object_that_reads_back_otherwise_deletes_nothing(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(4))

    class LyingStore(type(farmyard.store)):  # type: ignore[misc]
        def put(self, bucket: str, key: str, data: bytes) -> None:
            short = codec.encode(codec.decode(data).head(3))
            super().put(bucket, key, short)

    with farmyard.platform.ops() as connection, pytest.raises(ArchiveError):
        outbox.archive_part(
            connection, LyingStore(farmyard.store.root), "telemetry", HOUR, run_id="r"
        )
    assert waiting(farmyard) == 4


def test_rows_that_commit_during_an_archive_stay_for_the_next_part(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    late = payloads(2, DAY + timedelta(hours=1))

    class SlowStore(type(farmyard.store)):  # type: ignore[misc]
        def put(self, bucket: str, key: str, data: bytes) -> None:
            farmyard.receive(late)
            super().put(bucket, key, data)

    with farmyard.platform.ops() as connection:
        outbox.archive_part(
            connection, SlowStore(farmyard.store.root), "telemetry", HOUR, run_id="r"
        )
    assert waiting(farmyard) == 2
    farmyard.run("archive", HOUR_KEY)
    assert len(archived(farmyard)) == 5


def test_an_empty_past_partition_is_dropped(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(1))
    assert farmyard.run("archive", HOUR_KEY).success
    assert farmyard.execute("SELECT to_regclass('raw_messages_2026112005')") == [(None,)]


def test_an_hour_is_dropped_though_it_was_archived_before_it_was_past(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(1))
    with farmyard.platform.ops() as connection:
        outbox.archive_part(connection, farmyard.store, "telemetry", HOUR, run_id="r")
        outbox.drop_empty_partitions(connection, HOUR + timedelta(minutes=65))
        assert farmyard.execute("SELECT to_regclass('raw_messages_2026112005') IS NULL") == [
            (False,)
        ]
    next_hour = RECEIVED + timedelta(hours=1)
    farmyard.receive(payloads(1), at=next_hour)
    assert farmyard.run("archive", f"{next_hour:%Y-%m-%d-%H}:00").success
    assert farmyard.execute("SELECT to_regclass('raw_messages_2026112005')") == [(None,)]


@pytest.mark.parametrize("left", [*MessageType, "unheard-of"])
def test_a_partition_with_an_unarchived_message_of_any_type_is_kept(
    farmyard: Farmyard, left: str
) -> None:
    for kind in (*MessageType, "unheard-of"):
        farmyard.receive([b"{}"], message_type=kind)
    with farmyard.platform.ops() as connection:
        for kind in {*MessageType, "unheard-of"} - {left}:
            outbox.archive_part(connection, farmyard.store, kind, HOUR, run_id="r")
        outbox.drop_empty_partitions(connection, HOUR + timedelta(days=1))
        assert not outbox.drop_empty_partition(connection, HOUR, HOUR + timedelta(days=1))
    assert farmyard.execute("SELECT message_type FROM raw_messages") == [(left,)]


def test_a_partition_is_kept_while_running_in_use_or_not_empty(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(1))
    with farmyard.platform.ops() as connection:
        later = HOUR + timedelta(days=1)
        assert not outbox.drop_empty_partition(connection, HOUR, HOUR + timedelta(minutes=90))
        assert not outbox.drop_empty_partition(connection, HOUR, later)
        assert not outbox.drop_empty_partition(connection, HOUR - timedelta(hours=1), later)
        farmyard.execute("DELETE FROM raw_messages")
        with psycopg.connect(farmyard.ops_url) as reader:
            reader.execute("SELECT count(*) FROM raw_messages_2026112005")
            assert not outbox.drop_empty_partition(connection, HOUR, later)
        assert outbox.drop_empty_partition(connection, HOUR, later)


def test_a_partition_that_fills_while_its_lock_is_waited_for_is_kept(
    farmyard: Farmyard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "DROP_LOCK_TIMEOUT", "30s")
    farmyard.receive(payloads(1))
    with farmyard.platform.ops() as connection, ThreadPoolExecutor(1) as executor:
        outbox.archive_part(connection, farmyard.store, "telemetry", HOUR, run_id="r")
        with psycopg.connect(farmyard.ops_url) as ingest:
            ingest.execute(
                "INSERT INTO raw_messages (message_type, topic, payload, received_at, qos)"
                " VALUES ('telemetry', 'zenthos/esp32-s3/x/telemetry', '{}', %s, 1)",
                [RECEIVED],
            )
            later = HOUR + timedelta(days=1)
            dropped = executor.submit(outbox.drop_empty_partition, connection, HOUR, later)
            while not farmyard.execute("SELECT 1 FROM pg_locks WHERE NOT granted"):
                assert not dropped.done()
        assert not dropped.result()
    assert waiting(farmyard) == 1


def test_a_second_run_of_the_hour_overwrites_nothing(farmyard: Farmyard) -> None:
    sent = payloads(3)
    farmyard.receive(sent[:2])

    class RivalStore(type(farmyard.store)):  # type: ignore[misc]
        """Another run of the hour comes between the writing of an object and its commit."""

        def put(self, bucket: str, key: str, data: bytes) -> None:
            super().put(bucket, key, data)
            farmyard.receive(sent[2:])
            with pytest.raises(psycopg.errors.LockNotAvailable):
                outbox.archive_part(rival, farmyard.store, "telemetry", HOUR, run_id="rival")

    with farmyard.platform.ops() as connection, farmyard.platform.ops() as rival:
        rival.execute("SET lock_timeout = '200ms'")
        rival.commit()
        outbox.archive_part(
            connection, RivalStore(farmyard.store.root), "telemetry", HOUR, run_id="r"
        )
    assert archived(farmyard) == sent[:2]


def test_an_hour_that_keeps_filling_is_left_after_a_part_that_is_not_full(
    farmyard: Farmyard,
) -> None:
    farmyard.receive(payloads(5))

    class BusyStore(type(farmyard.store)):  # type: ignore[misc]
        def put(self, bucket: str, key: str, data: bytes) -> None:
            farmyard.receive(payloads(1))
            super().put(bucket, key, data)

    with farmyard.platform.ops() as connection:
        store = BusyStore(farmyard.store.root)
        parts = outbox.archive_hour(connection, store, "telemetry", HOUR, run_id="r", limit=3)
        assert [part.row_count for part in islice(parts, 9)] == [3, 3, 1]
    assert waiting(farmyard) == 1


def announced(yard: Farmyard) -> list[tuple[str | None, int]]:
    """Announcements of days, oldest first: partition and readings."""
    found = yard.instance.fetch_materializations(TELEMETRY_DAYS_KEY, limit=100, ascending=True)
    events = [record.asset_materialization for record in found.records]
    return [(e.partition, e.metadata["dagster/row_count"].value) for e in events if e]


def test_each_day_that_an_archive_touches_is_announced_and_no_other(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    farmyard.receive([reading("soil-1", DAY - timedelta(days=8))])
    assert farmyard.run("archive", HOUR_KEY).success
    assert announced(farmyard) == [("2026-11-11", 1), ("2026-11-19", 3)]
    farmyard.receive(payloads(2, DAY + timedelta(hours=1)))
    farmyard.receive([b"{}"], message_type="logs")
    assert farmyard.run("archive", HOUR_KEY).success
    assert farmyard.run("archive", HOUR_KEY).success
    assert announced(farmyard)[2:] == [("2026-11-19", 5)]


def test_days_that_a_killed_run_did_not_announce_are_announced_by_the_next(
    farmyard: Farmyard,
) -> None:
    farmyard.receive(payloads(3))
    with farmyard.platform.ops() as connection:
        outbox.archive_part(connection, farmyard.store, "telemetry", HOUR, run_id="killed")
    assert farmyard.run("archive", "2026-11-20-06:00").success
    assert announced(farmyard) == [("2026-11-19", 3)]


def test_a_day_that_has_not_begun_is_announced_later(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    with farmyard.platform.ops() as connection:
        outbox.archive_part(connection, farmyard.store, "telemetry", HOUR, run_id="r")
        yesterday = DAY.date() - timedelta(days=1)
        assert recent_days(connection, yesterday, run_id="r") == []
        assert [day.readings for day in recent_days(connection, DAY.date(), run_id="r")] == [3]


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What the materializations of an asset say, all partitions together."""
    events = result.asset_materializations_for_node(f"bronze__{asset}")
    return {name: value.value for event in events for name, value in event.metadata.items()}


def test_a_run_shows_rows_bytes_ratio_and_pictures(farmyard: Farmyard) -> None:
    sent = payloads(120)
    farmyard.receive(sent)
    shown = metadata(farmyard.run("archive", HOUR_KEY), "telemetry")
    [key] = farmyard.store.keys(lake.BRONZE)
    size = len(farmyard.store.get(lake.BRONZE, key))
    assert shown["dagster/row_count"] == 120
    assert shown["payload_bytes"] == sum(map(len, sent))
    assert (shown["size_bytes"], shown["objects"]) == (size, [key])
    assert shown["ratio"] == round(sum(map(len, sent)) / size, 2)
    assert "image/png" in shown["messages_by_minute"]
    assert "image/png" in shown["sizes"]


def test_a_run_of_several_hours_shows_messages_by_hour(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    farmyard.receive(payloads(4), at=RECEIVED + timedelta(hours=2))
    shown = metadata(farmyard.run("archive", HOUR_KEY, "2026-11-20-08:00"), "telemetry")
    assert "image/png" in shown["messages_by_hour"]
    assert "messages_by_minute" not in shown


def test_counts_are_summed_over_spans_without_gaps() -> None:
    minutes = {RECEIVED: 2, RECEIVED + timedelta(minutes=2): 3}
    assert list(counts_by([minutes, minutes], 60).values()) == [4, 0, 6]
    assert counts_by([minutes], 3600) == {HOUR: 5}
    assert counts_by([], 60) == {}
