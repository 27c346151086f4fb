"""The audit log, for admins."""

from typing import Annotated

from fastapi import APIRouter, Query

from ota_api.audit.repository import AuditRepository
from ota_api.audit.schemas import Action, AuditEntry
from ota_api.auth import Admin
from ota_api.fields import Line
from ota_api.pagination import Limit, Page, cut_page
from ota_api.resources import Transaction

router = APIRouter(tags=["audit"])


@router.get("/audit")
async def get_audit(
    *,
    _: Admin,
    connection: Transaction,
    actor: Annotated[Line | None, Query()] = None,
    action: Action | None = None,
    subject: Annotated[Line | None, Query(description="Such as `device field-1`.")] = None,
    after: Annotated[
        int | None, Query(ge=0, lt=2**63, description="`next` of the page before.")
    ] = None,
    limit: Limit = 100,
) -> Page[AuditEntry]:
    """Changes, the newest first."""
    filters = {"actor": actor, "action": action, "subject": subject}
    entries = await AuditRepository(connection).page(after, limit + 1, filters)
    return cut_page(entries, limit, lambda entry: str(entry.id))
