"""The rules of runs.py, on a real Postgres."""

import threading
from collections.abc import Iterator
from datetime import date

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zenthos_assets.faults import run_program
from zenthos_assets.runs import Build, checksum, exclusive, latest_builds, outdated, record
from zenthos_core.database import connect

DAY = date(2026, 11, 10)
ASSET = "gold/telemetry_hourly"
TEXTS = st.text("ab", max_size=2)


def made(partition: str, input_checksum: str, rows: int = 1) -> Build:
    return Build(partition, input_checksum, f"of {input_checksum}", rows, rows, 0, 0, 0.5)


@pytest.fixture
def connection(analytics_url: str) -> Iterator[psycopg.Connection]:
    with connect(analytics_url, application="test", autocommit=True) as opened:
        yield opened


@given(st.lists(TEXTS), st.lists(TEXTS), TEXTS, TEXTS)
def test_rule_1_the_checksum_knows_the_parts_and_the_code_and_no_order(
    one: list[str], other: list[str], version: str, next_version: str
) -> None:
    same = (version, sorted(one)) == (next_version, sorted(other))
    assert (checksum(version, one) == checksum(next_version, other)) is same


@given(
    st.dictionaries(st.sampled_from("abc"), TEXTS),
    st.dictionaries(st.sampled_from("abc"), TEXTS),
    st.booleans(),
)
def test_rule_2_what_changed_is_out_of_date_and_all_of_it_when_forced(
    inputs: dict[str, str], known: dict[str, str], force: bool
) -> None:
    built = {partition: made(partition, text) for partition, text in known.items()}
    expected = [p for p in sorted(inputs) if force or inputs[p] != known.get(p)]
    assert outdated(inputs, built, force=force) == expected


def test_rule_2_the_newest_row_counts(connection: psycopg.Connection) -> None:
    for input_checksum in ("first", "second"):
        record(connection, ASSET, [made("a", input_checksum), made("b", "x")], run_id="r")
    record(connection, "another", [made("a", "third")], run_id="r")
    found = latest_builds(connection, ASSET, ["a", "b", "c"])
    assert found == {"a": made("a", "second"), "b": made("b", "x")}
    assert latest_builds(connection, ASSET, []) == {}


def test_rule_3_rows_are_written_in_the_callers_transaction(
    connection: psycopg.Connection,
) -> None:
    with connection.transaction(force_rollback=True):
        record(connection, ASSET, [made("a", "x")], run_id="r")
        assert latest_builds(connection, ASSET, ["a"])
    assert latest_builds(connection, ASSET, ["a"]) == {}


KILLED = """
import os, signal, sys
from datetime import date
from zenthos_assets.runs import Build, exclusive, record
from zenthos_core.database import connect
connection = connect(sys.argv[1], application="killed", autocommit=True)
with exclusive(connection, "gold/telemetry_hourly", [date(2026, 11, 10)]):
    with connection.transaction():
        connection.execute("INSERT INTO weather_daily (farm_id, day, hour_count)"
                           " VALUES (gen_random_uuid(), '2026-11-10', 1)")
        record(connection, "gold/telemetry_hourly", [Build("a", "x", "y", 1, 1, 0, 0, 0.5)],
               run_id="killed")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_rule_3_a_run_killed_before_its_commit_has_built_nothing_twice(
    connection: psycopg.Connection, analytics_url: str
) -> None:
    for _ in range(2):
        assert run_program(KILLED, analytics_url) == -9
        with exclusive(connection, ASSET, [DAY]):
            assert latest_builds(connection, ASSET, ["a"]) == {}
            assert connection.execute("SELECT count(*) FROM weather_daily").fetchone() == (0,)
    with exclusive(connection, ASSET, [DAY]), connection.transaction():
        record(connection, ASSET, [made("a", "x")], run_id="r")
    assert latest_builds(connection, ASSET, ["a"]) == {"a": made("a", "x")}


def waiting(connection: psycopg.Connection) -> int:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def test_rule_4_the_second_run_waits_and_finds_the_row_of_the_first(
    connection: psycopg.Connection, analytics_url: str
) -> None:
    seen: list[dict[str, Build]] = []

    def second() -> None:
        with (
            connect(analytics_url, application="second", autocommit=True) as other,
            exclusive(other, ASSET, [date(2026, 11, 30), date(2026, 12, 1)]),
        ):
            seen.append(latest_builds(other, ASSET, ["a"]))

    thread = threading.Thread(target=second)
    with exclusive(connection, ASSET, [DAY]):
        thread.start()
        while not waiting(connection):
            thread.join(0.02)
        assert not seen
        with connection.transaction():
            record(connection, ASSET, [made("a", "x")], run_id="r")
    thread.join()
    assert seen == [{"a": made("a", "x")}]


def test_rule_4_other_months_and_assets_do_not_wait(
    connection: psycopg.Connection, analytics_url: str
) -> None:
    with (
        connect(analytics_url, application="other", autocommit=True) as other,
        exclusive(connection, ASSET, [DAY]),
        exclusive(other, ASSET, [date(2026, 12, 10)]),
        exclusive(other, "gold/telemetry_daily", [DAY]),
    ):
        assert not waiting(connection)


def test_rule_4_a_run_that_fails_lets_the_next_one_in(
    connection: psycopg.Connection, analytics_url: str
) -> None:
    def fail() -> None:
        with exclusive(connection, ASSET, [DAY]), connection.transaction():
            connection.execute("SELECT 1 / 0")

    with pytest.raises(psycopg.errors.DivisionByZero):
        fail()
    with (
        connect(analytics_url, application="next", autocommit=True) as other,
        exclusive(other, ASSET, [DAY]),
    ):
        assert not waiting(connection)


def test_rule_4_a_run_whose_connection_is_lost_lets_the_next_one_in(
    connection: psycopg.Connection, analytics_url: str
) -> None:
    with (
        connect(analytics_url, application="lost", autocommit=True) as lost,
        exclusive(lost, ASSET, [DAY]),
    ):
        lost.close()
        with exclusive(connection, ASSET, [DAY]):
            assert not waiting(connection)
