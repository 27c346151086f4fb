"""What may be done with farms."""

from ota_api.audit.schemas import Action
from ota_api.audit.service import AuditTrail
from ota_api.farms.repository import FarmRepository
from ota_api.farms.schemas import Farm, FarmCreation
from zenthos_core.errors import ConflictError


async def create_farm(
    farms: FarmRepository, trail: AuditTrail, wanted: FarmCreation
) -> tuple[Farm, bool]:
    """The farm of that name, and whether it is new.

    Raises:
        ConflictError: where there is one that differs in what was given.
    """
    if created := await farms.insert(wanted):
        after = {"id": str(created.id), **wanted.model_dump(mode="json", exclude_unset=True)}
        await trail.record(Action.FARM_CREATE, f"farm {created.name}", after=after)
        return created, True
    existing = await farms.find_by_name(wanted.name)
    if existing is None:
        raise ConflictError(f"farm {wanted.name!r} was removed just now: send it again")
    given = wanted.model_dump(exclude_unset=True)
    if "owner" in given:
        given["owner"] = given["owner"] or ""  # as it is stored
    stored = existing.model_dump(include=set(given))
    if given != stored:
        differing = ", ".join(sorted(field for field in given if given[field] != stored[field]))
        raise ConflictError(f"farm {wanted.name!r} exists and differs in {differing}")
    return existing, False
