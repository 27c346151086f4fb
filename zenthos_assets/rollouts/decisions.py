"""Decisions on rollouts as the audit log has them, each once, as materializations.

1. What was decided is read from the audit log, so a decision whose answer was lost on the way, one
   that the server took by itself after a failure, and one of an operator are told too.
2. A cursor holds the newest entry seen and the numbers told of the last MARGIN: entries are
   numbered before they are committed, so that a lower number may appear after a higher one.
3. What was decided before the first tick is not told.
"""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import dagster as dg
import msgspec
import psycopg
from psycopg.rows import class_row

from zenthos_assets import plots

ROLLOUTS: Final = dg.AssetSpec(
    dg.AssetKey(["ota", "rollouts"]),
    deps=[dg.AssetKey(["ota", "model_release"])],
    group_name="release",
    kinds={"postgres"},
    owners=["team:platform"],
    description="Decisions on rollouts, as the audit log of the OTA server has them: each with its"
    " reasons and what it was based on. Asked for and told by the sensor `rollouts`.",
)
MARGIN: Final = 1_000
MOST_A_TICK: Final = 200

_NEWEST: Final = "SELECT coalesce(max(id), 0) FROM audit_log"
_SELECT: Final = """
SELECT a.id, a.at, a.actor, substr(a.action, 9) AS action, a.before, a.after,
  o.id AS rollout_id, o.device_model, o.state, o.phases, t.name, t.version
FROM audit_log a JOIN rollouts o ON a.subject = 'rollout ' || o.id
JOIN release_targets t USING (release_id, device_model)
WHERE a.id > %(floor)s AND a.action LIKE 'rollout.%%' AND a.id <> ALL(%(told)s)
ORDER BY a.id LIMIT %(most)s"""
_DEVICES: Final = """
SELECT phase, state, count(*) FROM deployments WHERE rollout_id = %s
GROUP BY phase, state ORDER BY phase, state"""

_LABELS: Final = {
    "gap_rate": "gaps",
    "range_violation_rate": "out of range",
    "battery_drop_v_per_day": "battery drop, V/day",
    "inference_confidence": "confidence",
}


class Cursor(msgspec.Struct, frozen=True):
    """How far the audit log has been told (rule 2)."""

    newest: int
    told: list[int] = []
    evaluated: str = ""
    """The rollout that was evaluated last."""

    @property
    def floor(self) -> int:
        """Entries up to here are not looked at."""
        return max(0, self.newest - MARGIN)

    def after(self, entries: "list[Decision]") -> "Cursor":
        """With those told too."""
        newest = max([self.newest, *(entry.id for entry in entries)])
        told = {*self.told, *(entry.id for entry in entries)}
        kept = sorted(number for number in told if number > newest - MARGIN)
        return msgspec.structs.replace(self, newest=newest, told=kept)


class Decision(msgspec.Struct, frozen=True):
    """An entry of the audit log about a rollout."""

    id: int
    at: datetime
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    rollout_id: UUID
    device_model: str
    state: str
    phases: list[float]
    name: str
    version: str


def begin(connection: psycopg.Connection, stored: str | None) -> Cursor:
    """The cursor of the tick before; the newest entry at the first one (rule 3)."""
    if stored is not None:
        return msgspec.json.decode(stored, type=Cursor)
    newest = (connection.execute(_NEWEST).fetchone() or (0,))[0]
    recent = connection.execute(
        "SELECT id FROM audit_log WHERE id > %s AND action LIKE 'rollout.%%'", [newest - MARGIN]
    )
    return Cursor(newest, [number for (number,) in recent])


def read_decisions(connection: psycopg.Connection, cursor: Cursor) -> list[Decision]:
    """Those that were not told yet, in their order."""
    values = {"floor": cursor.floor, "told": cursor.told, "most": MOST_A_TICK}
    with connection.cursor(row_factory=class_row(Decision)) as found:
        return found.execute(_SELECT, values).fetchall()


def materialization(connection: psycopg.Connection, found: Decision) -> dg.AssetMaterialization:
    """What people see: the decision, why, upon what, and how far the rollout is."""
    release = f"{found.name} {found.version} on {found.device_model}"
    after = found.after or {}
    reasons = [reason["text"] for reason in after.get("reasons", [])] or [after.get("reason", "")]
    evidence = after.get("evidence") or {}
    devices: dict[int, dict[str, int]] = {}
    for phase, state, count in connection.execute(_DEVICES, [found.rollout_id]):
        devices.setdefault(phase, {})[state] = count
    return dg.AssetMaterialization(
        ROLLOUTS.key,
        description=f"{release}: {found.action}: {'; '.join(filter(None, reasons))}".rstrip(": "),
        metadata={
            "rollout": str(found.rollout_id),
            "release": release,
            "decision": found.action,
            "by": found.actor,
            "at": dg.MetadataValue.timestamp(found.at),
            "state": after.get("state", found.state),
            "reasons": dg.MetadataValue.md("\n".join(f"- {text}" for text in reasons if text)),
            "before": dg.MetadataValue.json(found.before or {}),
            "counts": dg.MetadataValue.json(evidence.get("counts") or {}),
            "progress": plots.stacked_bars(
                {f"phase {n}, {p:g} %": devices.get(n, {}) for n, p in enumerate(found.phases, 1)},
                f"devices of {release}, by the phase that they came in",
            ),
            **_compared(evidence.get("quality")),
        },
    )


def _compared(quality: dict[str, Any] | None) -> dict[str, Any]:
    if not quality:
        return {}
    sides = quality["updated"], quality["control"]
    values = {
        label: (sides[0][name], sides[1][name])
        for name, label in _LABELS.items()
        if sides[0].get(name) is not None and sides[1].get(name) is not None
    }
    title = "updated devices beside control"
    picture = plots.bars_side_by_side(values, ("updated", "control"), title)
    return {"quality": dg.MetadataValue.json(quality), "comparison": picture}
