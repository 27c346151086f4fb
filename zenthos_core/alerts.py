"""Alerts for people: one open row for each type and subject, in the operational database."""

from typing import Any, Final

import msgspec

RAISE: Final = """
INSERT INTO alerts
  (alert_type, severity, subject, device_id, farm_id, rollout_id, message, evidence,
   created_at, last_raised_at)
VALUES (%(alert_type)s, %(severity)s, %(subject)s, %(device_id)s, %(farm_id)s, %(rollout_id)s,
  %(message)s, %(evidence)s::jsonb, %(at)s, %(at)s)
ON CONFLICT (alert_type, subject) WHERE resolved_at IS NULL DO UPDATE SET
  severity = excluded.severity, message = excluded.message, evidence = excluded.evidence,
  last_raised_at = excluded.last_raised_at, occurrences = alerts.occurrences + 1
"""
"""With the parameters of an Alert and `at`; the open alert of that type and subject counts on."""


RESOLVE: Final = """
UPDATE alerts SET resolved_at = %(at)s, resolved_by = %(by)s
WHERE alert_type = %(alert_type)s AND subject = %(subject)s AND resolved_at IS NULL
"""
"""The open alert of that type and subject, if there is one."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody should look at."""

    alert_type: str
    severity: str
    """info, warning or critical."""
    subject: str
    """Such as `device field-1`."""
    message: str
    device_id: str | None = None
    farm_id: str | None = None
    rollout_id: str | None = None
    evidence: dict[str, Any] = {}

    def parameters(self) -> dict[str, Any]:
        """For RAISE; `at` is the caller's."""
        return {
            **msgspec.structs.asdict(self),
            "evidence": msgspec.json.encode(self.evidence).decode(),
        }
