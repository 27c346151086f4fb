"""The ledger's sums, on a real Postgres."""

from datetime import date

import psycopg

from zenthos_core.ledger import Ledger, read_days, read_ledger

TODAY, YESTERDAY = date(2026, 11, 25), date(2026, 11, 24)


def test_sums_by_day_and_device(ops_url: str) -> None:
    with psycopg.connect(ops_url) as connection:
        assert read_ledger(connection) == Ledger()
        connection.execute(
            "INSERT INTO ledger (day, device_id, stored, duplicate, quarantined, rate_limited)"
            " VALUES (%(t)s, 'a', 1, 2, 3, 4), (%(y)s, 'a', 10, 0, 0, 0), (%(y)s, 'b', 0, 0, 5, 0)",
            {"t": TODAY, "y": YESTERDAY},
        )
        assert read_ledger(connection) == Ledger(11, 2, 8, 4)
        assert read_ledger(connection).received == 25
        assert read_ledger(connection, since=TODAY) == Ledger(1, 2, 3, 4)
        assert read_ledger(connection, device_id="b") == Ledger(quarantined=5)
        assert read_days(connection, since=YESTERDAY, device_id="a") == [
            (TODAY, Ledger(1, 2, 3, 4)),
            (YESTERDAY, Ledger(stored=10)),
        ]
        assert connection.execute("SELECT sum(received) FROM ledger").fetchone() == (25,)
    later, before = Ledger(5, 1, 1, 0), Ledger(2, 1, 0, 0)
    assert later.minus(before) == Ledger(3, 0, 1, 0)
