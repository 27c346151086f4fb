"""Alerts of the fleet: devices that somebody should look at, as rows of the table `alerts`.

1. `offline`: ingest has called the device offline, and nothing has come for an hour, or for as
   many of its intervals as ZENTHOS_ALERT_OFFLINE_REPORTS says where that is longer.
2. `low_battery`: the newest reading has less than ZENTHOS_LOW_BATTERY_V. It is over 0.1 V above.
3. `update_silent`: the device is online and has not asked for an update for
   ZENTHOS_UPDATE_SILENT_DAYS; somebody may keep it from asking (an indefinite freeze, as TUF calls
   it). It is over when the device asks, not when it goes offline.
4. What is decided upon is the current state of a device, which late readings never move.
5. An alert is raised once and resolved by `system` when its condition is over, or the device
   decommissioned. One that a person resolves while the condition holds is raised again.

A sensor apart from `rollouts`: it needs no OTA server, and each goes on where the other cannot.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
import psycopg

from zenthos_assets.resources import Platform
from zenthos_assets.silver.transforms import RANGES
from zenthos_core.settings import Settings

INTERVAL_S: Final = 60
SHORTEST_SILENCE_S: Final = 3600
USUAL_INTERVAL_S: Final = 300
"""Of a device that was registered without an interval and has reported only once."""

RECOVERY_V: Final = 0.1

_SILENT: Final = f"""d.status = 'offline' AND d.last_seen + make_interval(secs => greatest(
  {SHORTEST_SILENCE_S}, %(offline_reports)s
    * coalesce(d.report_interval_s, d.observed_interval_s, {USUAL_INTERVAL_S}))) < %(now)s"""
_LAST_ASKED: Final = "coalesce(d.checked_in_at, d.model_checked_in_at)"
"""For firmware: who can keep that from a device may let it ask for models."""
_ASKED: Final = f"""coalesce({_LAST_ASKED}, d.created_at)
  >= %(now)s - make_interval(secs => 86400 * %(update_silent_days)s::float8)"""
_BATTERY: Final = "d.battery_voltage BETWEEN {} AND {}".format(*RANGES["battery_voltage"])
_SEEN: Final = "to_char(d.last_seen, 'YYYY-MM-DD HH24:MI')"


@dataclass(frozen=True)
class Kind:
    """A type of alert: SQL over a device `d`, with the parameters of `_parameters`."""

    alert_type: str
    begins: str
    over: str
    message: str
    evidence: str


KINDS: Final = (
    Kind(
        "offline",
        begins=_SILENT,
        over=f"({_SILENT}) IS NOT TRUE",
        message=f"d.id || ' has sent nothing since ' || {_SEEN} || ' UTC: look at its power and"
        " network'",
        evidence="jsonb_build_object('last_seen', d.last_seen,"
        " 'interval_s', coalesce(d.report_interval_s, d.observed_interval_s))",
    ),
    Kind(
        "low_battery",
        begins=f"{_BATTERY} AND d.battery_voltage < %(low_battery_v)s",
        over=f"({_BATTERY} AND d.battery_voltage < %(low_battery_v)s + {RECOVERY_V}) IS NOT TRUE",
        message="d.id || ' has ' || round(d.battery_voltage::numeric, 2) || ' V left: charge or"
        " change its battery'",
        evidence="jsonb_build_object('battery_voltage', d.battery_voltage,"
        " 'at', d.last_reading, 'below_v', %(low_battery_v)s::float8)",
    ),
    Kind(
        "update_silent",
        begins=f"d.status = 'online' AND NOT {_ASKED}",
        over=_ASKED,
        message="d.id || ' sends data and '"
        " || coalesce('has not asked for an update since '"
        f" || to_char({_LAST_ASKED}, 'YYYY-MM-DD HH24:MI') || ' UTC',"
        " 'has never asked for an update')"
        " || ': look whether it reaches the OTA server, or somebody keeps it from it'",
        evidence="jsonb_build_object('checked_in_at', d.checked_in_at,"
        " 'model_checked_in_at', d.model_checked_in_at, 'last_seen', d.last_seen,"
        " 'firmware_version', d.firmware_version)",
    ),
)


def _raise(kind: Kind) -> bytes:
    return f"""
INSERT INTO alerts (alert_type, severity, subject, device_id, farm_id, message, evidence,
  created_at, last_raised_at)
SELECT '{kind.alert_type}', 'warning', 'device ' || d.id, d.id, d.farm_id, {kind.message},
  {kind.evidence}, %(now)s, %(now)s
FROM devices d
WHERE d.decommissioned_at IS NULL AND {kind.begins} AND NOT EXISTS (
  SELECT FROM alerts a WHERE a.alert_type = '{kind.alert_type}'
    AND a.subject = 'device ' || d.id AND a.resolved_at IS NULL)
ON CONFLICT (alert_type, subject) WHERE resolved_at IS NULL DO NOTHING""".encode()


def _resolve(kind: Kind) -> bytes:
    return f"""
UPDATE alerts a SET resolved_at = %(now)s, resolved_by = 'system' FROM devices d
WHERE a.alert_type = '{kind.alert_type}' AND a.resolved_at IS NULL AND d.id = a.device_id
  AND (d.decommissioned_at IS NOT NULL OR {kind.over})""".encode()


def watch_fleet(
    connection: psycopg.Connection, settings: Settings, now: datetime
) -> dict[str, tuple[int, int]]:
    """Rules 1 to 5 in one transaction; how many of each type were raised and resolved."""
    values = _parameters(settings, now)
    with connection.transaction():
        return {
            kind.alert_type: (
                connection.execute(_raise(kind), values).rowcount,
                connection.execute(_resolve(kind), values).rowcount,
            )
            for kind in KINDS
        }


def _parameters(settings: Settings, now: datetime) -> dict[str, Any]:
    return {
        "now": now,
        "offline_reports": settings.alert_offline_reports,
        "low_battery_v": settings.low_battery_v,
        "update_silent_days": settings.update_silent_days,
    }


@dg.sensor(
    name="fleet_alerts",
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Raises and resolves alerts of devices: offline, low battery, not asking for"
    " updates.",
)
def fleet_alerts(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    return tick(context, platform, time.time)


def tick(
    context: dg.SensorEvaluationContext, platform: Platform, clock: Callable[[], float]
) -> dg.SkipReason:
    """The fleet at the moment that a clock in epoch seconds tells."""
    try:
        with platform.ops() as connection:
            now = datetime.fromtimestamp(clock(), UTC)
            changed = watch_fleet(connection, platform.settings, now)
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split())
        return dg.SkipReason(f"the operational database fails (is it up?): {reason}")
    told = [
        f"{alert_type}: {raised} raised, {resolved} resolved"
        for alert_type, (raised, resolved) in changed.items()
        if raised or resolved
    ]
    for line in told:
        context.log.info(line)
    return dg.SkipReason("; ".join(told) or "nothing has changed")
