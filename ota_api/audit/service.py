"""Recording changes.

1. A change is recorded in its own transaction: neither is there without the other.
2. What is recorded holds no secret: no token, no password, no hash of one.
3. What changed nothing is not recorded.
"""

from dataclasses import dataclass
from typing import Any

from ota_api.audit.repository import AuditRepository
from ota_api.audit.schemas import Action
from zenthos_core.tokens import Identity

SYSTEM_ROLE = "system"
"""Of who acts on the database itself."""


@dataclass(frozen=True)
class Actor:
    """Who changes something."""

    name: str
    role: str
    session: str | None = None

    @classmethod
    def of(cls, identity: Identity) -> "Actor":
        """The owner of a token."""
        return cls(identity.subject, identity.role, identity.session)


@dataclass(frozen=True)
class AuditTrail:
    """The changes of one actor, in one transaction."""

    entries: AuditRepository
    actor: Actor

    async def record(
        self,
        action: Action,
        subject: str,
        *,
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        """`before` and `after` hold what JSON can."""
        actor = (self.actor.name, self.actor.role, self.actor.session)
        await self.entries.insert(actor, action, subject, before, after)
