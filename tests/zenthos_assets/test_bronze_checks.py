"""What the checks of bronze see, and what they let pass."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tests.waiting import HOUR_S, begin_within
from tests.zenthos_assets.conftest import HOUR_KEY, Farmyard
from tests.zenthos_assets.test_bronze import payloads
from zenthos_assets.bronze.transforms import usual_rows


@pytest.fixture(autouse=True)
def _hour() -> None:
    """None ends during a test."""
    begin_within(HOUR_S)


def checks(yard: Farmyard) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    """Outcomes by message type and name, after a run that archives."""
    events = yard.run("archive", HOUR_KEY).get_asset_check_evaluations()
    return {(event.asset_key.path[-1], event.check_name): event for event in events}


def failed(yard: Farmyard) -> set[tuple[str, str]]:
    return {key for key, event in checks(yard).items() if not event.passed}


def full_hour(hours_ago: int) -> datetime:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return now - timedelta(hours=hours_ago)


def archived_hours(yard: Farmyard, counts: dict[int, int]) -> None:
    """Objects as if archived, by hours ago, and what the ledger says of them."""
    for hours_ago, count in counts.items():
        yard.execute(
            "INSERT INTO bronze_objects"
            " (table_name, hour, part, object_key, row_count, size_bytes, sha256, run_id)"
            " VALUES ('telemetry', %s, 0, %s, %s, 1, '', 'r')",
            full_hour(hours_ago),
            f"telemetry/{hours_ago}",
            count,
        )
    yard.execute(
        "INSERT INTO ledger (day, device_id, stored) VALUES (now(), 'soil-2', %s)",
        sum(counts.values()),
    )


def test_all_pass_where_all_is_well(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    found = checks(farmyard)
    assert all(event.passed for event in found.values())
    assert ("telemetry", "ledger_balances") in found
    kinds = ("telemetry", "status", "inference", "logs")
    assert {(kind, "archive_is_fresh") for kind in kinds} <= set(found)
    assert {(kind, "archive_reads_back") for kind in kinds} <= set(found)


@pytest.mark.parametrize("change", [1, -1])
def test_a_message_that_is_lost_or_doubled_is_an_error(farmyard: Farmyard, change: int) -> None:
    farmyard.receive(payloads(3))
    farmyard.execute("UPDATE ledger SET stored = stored + %s", change)
    event = checks(farmyard)["telemetry", "ledger_balances"]
    assert not event.passed
    assert event.severity == dg.AssetCheckSeverity.ERROR


def test_a_quarantine_that_was_emptied_is_a_warning(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    farmyard.execute("UPDATE ledger SET quarantined = 2")
    event = checks(farmyard)["telemetry", "ledger_balances"]
    assert not event.passed
    assert event.severity == dg.AssetCheckSeverity.WARN


def test_the_account_balances_while_messages_wait(farmyard: Farmyard) -> None:
    farmyard.receive(payloads(3))
    farmyard.receive(payloads(4), at=full_hour(0))
    assert failed(farmyard) == set()


def test_an_hour_that_waits_too_long_is_not_fresh(farmyard: Farmyard) -> None:
    farmyard.receive([b"{}"], at=full_hour(1), message_type="logs")
    farmyard.receive([b"{}"], at=full_hour(2), message_type="status")
    assert failed(farmyard) == {("status", "archive_is_fresh")}


@pytest.mark.parametrize(("last", "fails"), [(0, True), (30, True), (34, False), (301, True)])
def test_the_last_hour_against_those_before(farmyard: Farmyard, last: int, *, fails: bool) -> None:
    archived_hours(farmyard, dict.fromkeys(range(2, 9), 100))
    if last:
        farmyard.receive(payloads(last), at=full_hour(1))
    found = checks(farmyard)["telemetry", "rows_as_usual"]
    assert found.passed != fails
    assert found.severity == dg.AssetCheckSeverity.WARN


@pytest.mark.parametrize(
    ("hours", "usual"),
    [
        ([], None),
        ([0] * 24, None),
        ([100] * 5, None),
        ([100] * 6, (33, 300)),
        ([100] * 6 + [0] * 18, (33, 300)),
        ([1, 1, 100, 100, 100, 100, 100_000], (33, 300)),
    ],
)
def test_usual_is_about_the_median(hours: list[int], usual: tuple[int, int] | None) -> None:
    assert usual_rows(hours) == usual
