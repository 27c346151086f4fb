"""Rules of zenthos_assets/rollouts/sensor.py and decisions.py, on a real server and database."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import psycopg
import pytest

from tests.ota_api.conftest import Ota, make_ota_settings, running_ota
from tests.zenthos_assets.rollouts.rows import VERSION, Rows
from zenthos_assets.resources import Platform
from zenthos_assets.rollouts.decisions import MARGIN, Cursor
from zenthos_assets.rollouts.sensor import TICK_S, rollouts, tick
from zenthos_core.signing import key_id, public_half
from zenthos_core.tokens import Role


@dataclass
class Watched:
    """A server, its rollouts as rows, and the sensor tick after tick."""

    ota: Ota
    rows: Rows
    folder: Path
    cursor: str | None = None
    said: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def began(self) -> datetime:
        """When its devices have confirmed the boot."""
        return self.now - timedelta(minutes=40)

    def tick(self) -> list[dict[str, Any]]:
        """The metadata of what the tick materializes; `said` where it is skipped."""
        lines = [f"ZENTHOS_{name}={value}\n" for name, value in self.variables.items()]
        (self.folder / ".env").write_text("".join(lines))
        platform = Platform(directory=str(self.folder))
        context = dg.build_sensor_context(cursor=self.cursor, resources={"platform": platform})
        done = rollouts.evaluate_tick(context)  # as the daemon does
        self.cursor = done.cursor
        if done.skip_message is not None:
            self.said = done.skip_message
        events = [e for e in done.asset_events if isinstance(e, dg.AssetMaterialization)]
        return [{name: value.value for name, value in event.metadata.items()} for event in events]

    def state(self, rollout: UUID) -> str:
        """Of a rollout."""
        return str(self.rows.one("SELECT state FROM rollouts WHERE id = %s", rollout))


@pytest.fixture
def watched(ops_url: str, tmp_path: Path) -> Iterator[Watched]:
    """The sensor has ticked once."""
    with (
        running_ota(make_ota_settings(tmp_path / "ota", ops_url)) as ota,
        psycopg.connect(ops_url, autocommit=True, options="-c timezone=UTC") as connection,
    ):
        here = tmp_path / "dagster"
        here.mkdir()
        variables = {
            "DATABASE_URL": ops_url,
            "OTA_URL": ota.settings.ota_url,
            "SERVICE_TOKEN": ota.token(Role.OPERATOR, "svc-lineage", scopes=["read", "publish"]),
        }
        made = Watched(ota, Rows(connection), here, variables=variables)
        made.rows.key_id = key_id(public_half(ota.signer.private_key("firmware")))
        made.tick()
        assert made.said == "0 evaluated, nothing decided"
        yield made


def updated(watched: Watched, *, bad: bool = False, counter: int = 1) -> UUID:
    """A rollout of which three devices have confirmed the boot, beside three others."""
    now, began = watched.now, watched.began
    release = watched.rows.release(f"v2.0.{counter}", counter=counter)
    rollout = watched.rows.rollout(release, started_at=began, phase_started_at=began)
    for number in range(3):
        new, old = f"new-{counter}{number}", f"old-{counter}{number}"
        watched.rows.device(new, now, firmware_version=f"v2.0.{counter}", checked_in_at=now)
        watched.rows.device(old, now, checked_in_at=now)
        watched.rows.deploy(rollout, new, "rebooting", began, confirmed_at=began)
        watched.rows.report(new, began, 38, **({"temperature": 150} if bad else {}))
        watched.rows.report(old, began, 38)
    return rollout


def test_rule_1_evidence_makes_the_server_pause(watched: Watched) -> None:
    rollout = updated(watched, bad=True)
    [seen] = watched.tick()
    assert watched.state(rollout) == "paused"
    assert (seen["decision"], seen["by"], seen["state"]) == ("pause", "svc-lineage", "paused")
    assert seen["rollout"] == str(rollout)
    assert "range_violation_rate" in seen["reasons"]
    assert seen["quality"]["updated"]["range_violation_rate"] == 1
    assert seen["quality"]["control"]["range_violation_rate"] == 0
    assert "image/png" in seen["comparison"]
    assert "image/png" in seen["progress"]
    evidence = watched.rows.one("SELECT after FROM audit_log WHERE action = 'rollout.pause'")
    assert evidence["evidence"]["quality"] == seen["quality"]
    assert watched.tick() == []
    assert watched.said == "1 evaluated, nothing decided"


def test_rule_1_counts_and_timeouts_decide_without_evidence(watched: Watched) -> None:
    release = watched.rows.release()
    began = watched.now - timedelta(hours=1)
    rollout = watched.rows.rollout(release, timeout_s=600, started_at=began, phase_started_at=began)
    watched.rows.device("new-1", watched.now, checked_in_at=watched.now)
    watched.rows.deploy(rollout, "new-1", "downloading", began)
    [seen] = watched.tick()
    assert (seen["decision"], watched.state(rollout)) == ("pause", "paused")
    assert "comparison" not in seen
    assert watched.rows.one("SELECT state FROM deployments") == "timed_out"


def test_rule_2_one_that_cannot_be_evaluated_keeps_no_other_from_it(watched: Watched) -> None:
    broken = watched.rows.rollout(watched.rows.release("v1.9.0", counter=9))
    watched.rows.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF OLD.rollout_id = '{broken}' THEN RAISE EXCEPTION 'broken'; END IF;"
        " RETURN NEW; END $$;"
        " CREATE TRIGGER refuse BEFORE UPDATE ON deployments FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    watched.rows.device("stuck", watched.now)
    watched.rows.deploy(broken, "stuck", "downloading", watched.now - timedelta(days=9))
    rollout = updated(watched, bad=True)
    [seen] = watched.tick()
    assert seen["rollout"] == str(rollout)
    assert watched.tick() == []
    assert f"{broken}) was not evaluated: POST" in watched.said
    assert "500" in watched.said


def test_rule_2_a_tick_that_took_long_leaves_the_others_to_the_next(watched: Watched) -> None:
    ids = [updated(watched, bad=True, counter=counter) for counter in (1, 2, 3)]
    moments = iter(watched.now.timestamp() + number * (TICK_S * 0.6) for number in range(100))
    platform = Platform(directory=str(watched.folder))
    paused = []
    for _ in range(3):
        context = dg.build_sensor_context(cursor=watched.cursor, resources={"platform": platform})
        tick(context, platform, lambda: next(moments))
        watched.cursor = context.cursor
        paused.append([watched.state(rollout) for rollout in ids].count("paused"))
        watched.rows.connection.execute("UPDATE rollouts SET state = 'running'")
    assert paused == [1, 1, 1]
    subjects = watched.rows.connection.execute(
        "SELECT subject FROM audit_log WHERE action = 'rollout.pause' ORDER BY id"
    ).fetchall()
    assert [subject for (subject,) in subjects] == [f"rollout {rollout}" for rollout in ids]


def test_rule_3_a_server_that_is_away(watched: Watched) -> None:
    rollout = updated(watched, bad=True)
    url = watched.variables["OTA_URL"]
    watched.variables["OTA_URL"] = "http://127.0.0.1:1"
    before = "0b0e7b5e-0000-0000-0000-000000000000"
    watched.cursor = watched.cursor.replace('"evaluated":""', f'"evaluated":"{before}"')
    assert watched.tick() == []
    assert before in watched.cursor, "rule 2: the next tick begins after the same"
    assert "start it, or mend ZENTHOS_OTA_URL; the next tick tries again" in watched.said
    watched.variables |= {"OTA_URL": url, "SERVICE_TOKEN": "none"}
    assert watched.tick() == []
    assert "refuses ZENTHOS_SERVICE_TOKEN (401)" in watched.said
    assert watched.state(rollout) == "running"
    watched.variables["SERVICE_TOKEN"] = watched.ota.token(Role.OPERATOR)
    assert [seen["decision"] for seen in watched.tick()] == ["pause"]


def test_rule_3_a_database_that_is_away(watched: Watched) -> None:
    before = watched.cursor
    watched.variables["DATABASE_URL"] = "postgresql://zenthos@127.0.0.1:1/none"
    assert watched.tick() == []
    assert "is it up?" in watched.said
    assert watched.cursor == before


def test_rule_4_all_that_was_decided_since_is_told_once(watched: Watched) -> None:
    release = watched.rows.release()
    body = {"release_id": str(release), "start": False}
    made = watched.ota.send("POST", "/rollouts", json=body).json()["id"]
    watched.ota.send("POST", f"/rollouts/{made}/start")
    watched.ota.send("POST", f"/rollouts/{made}/abort", json={"reason": "wrong farm"})
    seen = watched.tick()
    assert [(one["decision"], one["by"]) for one in seen] == [
        ("create", "someone"),
        ("start", "someone"),
        ("abort", "someone"),
    ]
    assert seen[-1]["reasons"] == "- wrong farm"
    assert watched.tick() == []


def test_rule_4_an_evaluation_that_changes_nothing_leaves_no_trace(watched: Watched) -> None:
    updated(watched)
    watched.rows.connection.execute("UPDATE telemetry_hot SET firmware_version = 'v1.0.0'")
    assert watched.tick() == []
    assert watched.said == "1 evaluated, nothing decided"


def test_decisions_rule_2_an_entry_that_was_committed_late_is_told(watched: Watched) -> None:
    release = watched.rows.release()
    rollout = watched.rows.rollout(release, state="aborted")
    entry = "INSERT INTO audit_log (actor, role, action, subject) VALUES ('ada', 'admin', %s, %s)"
    database = watched.ota.settings.database_url.get_secret_value()
    with psycopg.connect(database) as late:
        late.execute(entry, ["rollout.pause", f"rollout {rollout}"])
        watched.rows.connection.execute(entry, ["rollout.abort", f"rollout {rollout}"])
        assert [seen["decision"] for seen in watched.tick()] == ["abort"]
    assert [seen["decision"] for seen in watched.tick()] == ["pause"]
    assert watched.tick() == []


def test_decisions_rule_2_the_cursor_stays_small() -> None:
    cursor = Cursor(5_000, list(range(4_000, 5_000)))
    assert cursor.floor == 4_000
    assert Cursor(5_000, [3_999, 4_500]).after([]) == Cursor(5_000, [4_500])
    assert Cursor(MARGIN // 2).floor == 0


def test_decisions_rule_3_nothing_from_before_the_first_tick(watched: Watched) -> None:
    release = watched.rows.release(VERSION)
    begun = watched.ota.send("POST", "/rollouts", json={"release_id": str(release)})
    assert begun.status_code == 201, begun.text
    watched.cursor = None
    assert watched.tick() == []
