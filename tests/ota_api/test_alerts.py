"""Alerts: raised by whatever sees something, looked after by people."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.ota_api.conftest import DEVICE_ID, Ota
from zenthos_core.alerts import RAISE, Alert
from zenthos_core.tokens import Role

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def raise_alert(ota: Ota, at: datetime = NOON, **changes: Any) -> None:
    fields: dict[str, Any] = {"alert_type": "offline", "severity": "warning", "subject": "device a"}
    alert = Alert(**{**fields, "message": "silent", **changes})
    with psycopg.connect(ota.settings.database_url.get_secret_value()) as connection:
        connection.execute(RAISE.encode(), {**alert.parameters(), "at": at})


def alerts(ota: Ota, **query: Any) -> list[dict[str, Any]]:
    answer = ota.send("GET", "/alerts", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def act(ota: Ota, alert: dict[str, Any], what: str, who: str = "someone") -> Any:
    headers = ota.headers(Role.OPERATOR, who)
    return ota.http.post(f"/alerts/{alert['id']}/{what}", headers=headers)


def test_an_open_alert_counts_on(ota: Ota) -> None:
    raise_alert(ota, evidence={"missed": 3})
    raise_alert(ota, NOON + timedelta(hours=1), severity="critical", evidence={"missed": 9})
    [alert] = alerts(ota)
    assert (alert["occurrences"], alert["severity"], alert["evidence"]) == (
        2,
        "critical",
        {"missed": 9},
    )
    assert alert["created_at"] == "2026-11-28T12:00:00Z"
    assert alert["last_raised_at"] == "2026-11-28T13:00:00Z"


def test_an_acknowledged_alert_counts_on_and_stays_acknowledged(ota: Ota) -> None:
    raise_alert(ota)
    act(ota, alerts(ota)[0], "acknowledge")
    raise_alert(ota)
    [alert] = alerts(ota)
    assert (alert["occurrences"], alert["state"]) == (2, "acknowledged")


def test_a_resolved_alert_opens_anew(ota: Ota) -> None:
    raise_alert(ota)
    act(ota, alerts(ota)[0], "resolve")
    raise_alert(ota, NOON + timedelta(hours=1))
    assert [(a["state"], a["occurrences"]) for a in alerts(ota)] == [("open", 1), ("resolved", 1)]


def test_alerts_raised_at_once_make_one_row(ota: Ota) -> None:
    threads = [threading.Thread(target=raise_alert, args=(ota,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [alert["occurrences"] for alert in alerts(ota)] == [8]


def test_acting_again_changes_nothing_and_is_recorded_once(ota: Ota) -> None:
    raise_alert(ota)
    [alert] = alerts(ota)
    for what in ("acknowledge", "resolve"):
        first = act(ota, alert, what, "ann").json()
        again = act(ota, alert, what, "bob")
        assert (again.status_code, again.json()) == (200, first)
        assert first[f"{what}d_by"] == "ann"
    log = ota.rows("SELECT action, actor, subject, before, after FROM audit_log ORDER BY id")
    subject = f"alert {alert['id']}"
    about = {"alert_type": "offline", "subject": "device a"}
    assert log == [
        (
            "alert.acknowledge",
            "ann",
            subject,
            {"state": "open"},
            {**about, "state": "acknowledged"},
        ),
        (
            "alert.resolve",
            "ann",
            subject,
            {"state": "acknowledged"},
            {**about, "state": "resolved"},
        ),
    ]


def test_what_is_over_cannot_be_looked_after(ota: Ota) -> None:
    raise_alert(ota)
    [alert] = alerts(ota)
    act(ota, alert, "resolve")
    answer = act(ota, alert, "acknowledge")
    assert (answer.status_code, "resolved" in answer.json()["detail"]) == (409, True)


def test_filters(ota: Ota) -> None:
    farm = ota.register().json()["farm_id"]
    raise_alert(ota, subject="a", device_id=DEVICE_ID)
    raise_alert(ota, NOON + timedelta(hours=1), subject="b", farm_id=farm, severity="info")
    raise_alert(ota, NOON + timedelta(hours=2), subject="c", alert_type="rollout_paused")
    act(ota, alerts(ota)[0], "resolve")
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["c", "b", "a"]),
        ({"state": "open"}, ["b", "a"]),
        ({"state": "resolved"}, ["c"]),
        ({"state": "acknowledged"}, []),
        ({"severity": "info"}, ["b"]),
        ({"alert_type": "offline"}, ["b", "a"]),
        ({"farm_id": farm}, ["b", "a"]),
        ({"device_id": DEVICE_ID}, ["a"]),
        ({"since": "2026-11-28T14:00:00+01:00"}, ["c", "b"]),
        ({"farm_id": farm, "severity": "info", "state": "open"}, ["b"]),
    ]
    assert [[a["subject"] for a in alerts(ota, **query)] for query, _ in cases] == [
        expected for _, expected in cases
    ]


def test_pages_the_newest_first(ota: Ota) -> None:
    for number in range(5):
        raise_alert(ota, NOON + timedelta(minutes=number // 2), subject=f"device {number}")
    whole = [alert["id"] for alert in alerts(ota)]
    seen, query = [], {"limit": 2}
    for _ in range(3):
        page = ota.send("GET", "/alerts", params=query).json()
        seen += [alert["id"] for alert in page["items"]]
        query["after"] = page["next"]
    assert (seen, page["next"]) == (whole, None)


def test_an_alert_there_is_not(shared_ota: Ota) -> None:
    path = "/alerts/00000000-0000-0000-0000-000000000001"
    assert shared_ota.send("GET", path).status_code == 404
    assert shared_ota.send("POST", f"{path}/resolve").status_code == 404


@pytest.mark.parametrize(
    "query", [{"state": "new"}, {"severity": "bad"}, {"since": "2026-11-28"}, {"after": "x"}]
)
def test_bad_filters(shared_ota: Ota, query: dict[str, str]) -> None:
    assert shared_ota.send("GET", "/alerts", params=query).status_code == 422
