"""Devices registered from a CSV.

1. UTF-8, with a header: device_id, device_model, device_type, farm_id or farm_name; optional lat
   and lon, report_interval_s, tags (blanks between), factory_secret. An empty cell is left out.
2. A line that cannot be registered is refused with its reason; the others are registered.
3. A device that exists with the same data is left as it is: its tokens last. The same file may be
   sent again. Nor does it get another factory secret, which the line's detail says.
4. A new device without a factory secret gets its token here; one with a secret claims itself.
5. A file that is no CSV, has another header or too many lines is refused whole.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any, Final

from psycopg import AsyncConnection
from pydantic import ValidationError

from ota_api.audit.service import AuditTrail
from ota_api.devices.credentials import hash_secret, issue_token
from ota_api.devices.repository import DeviceRepository
from ota_api.devices.schemas import (
    MAX_BULK_ROWS,
    BulkResult,
    BulkRow,
    DeviceRegistration,
)
from ota_api.devices.service import add_device
from ota_api.farms.repository import FarmRepository
from ota_api.resources import Resources
from zenthos_core.errors import ConflictError, InvalidInputError, NotFoundError

REQUIRED: Final = ("device_id", "device_model", "device_type")
OPTIONAL: Final = (
    *("farm_id", "farm_name", "lat", "lon", "report_interval_s", "tags", "factory_secret"),
)


def parse_csv(body: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers, and what would be the bodies of registrations; not validated yet.

    Raises:
        InvalidInputError: by rule 5.
    """
    try:
        text = body.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), restkey="surplus", strict=True)
        _check_header(reader.fieldnames or [])
        rows = [(reader.line_num, _registration(row)) for row in _bounded(reader)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"the body is no CSV in UTF-8: {error}") from None
    return rows


async def register_all(
    resources: Resources,
    connection: AsyncConnection,
    trail: AuditTrail,
    rows: list[tuple[int, dict[str, Any]]],
) -> BulkResult:
    """Rules 2 to 4."""
    results = [
        await _register_row(resources, connection, trail, line, fields) for line, fields in rows
    ]
    outcomes = [row.outcome for row in results]
    return BulkResult(
        created=outcomes.count("created"),
        unchanged=outcomes.count("unchanged"),
        refused=outcomes.count("refused"),
        rows=results,
    )


async def _register_row(
    resources: Resources,
    connection: AsyncConnection,
    trail: AuditTrail,
    line: int,
    fields: dict[str, Any],
) -> BulkRow:
    devices, farms = DeviceRepository(connection), FarmRepository(connection)
    device_id = fields.get("device_id")
    try:
        wanted = DeviceRegistration.model_validate(fields)
        async with connection.transaction():
            farm_id, created = await add_device(devices, farms, trail, wanted)
    except (ValidationError, ConflictError, NotFoundError) as error:
        return BulkRow(line=line, device_id=device_id, outcome="refused", detail=_explain(error))
    if not created:
        detail = await _compare_secret(devices, wanted)
        return BulkRow(line=line, device_id=device_id, outcome="unchanged", detail=detail)
    token = None
    if wanted.factory_secret is None:
        issued = await issue_token(
            resources, devices, wanted.device_id, farm_id, ends_earlier=False
        )
        token = issued.jwt_token
    return BulkRow(line=line, device_id=device_id, outcome="created", jwt_token=token)


async def _compare_secret(devices: DeviceRepository, wanted: DeviceRegistration) -> str | None:
    """What is to be said where the secret of a line is not the one that is stored."""
    if wanted.factory_secret is None:
        return None
    stored = await devices.factory_secret_hash(wanted.device_id)
    if stored == hash_secret(wanted.device_id, wanted.factory_secret):
        return None
    if stored is None:
        return "no factory secret is set: it was used, revoked or never there"
    return "its factory secret was not set: register it by itself"


def _check_header(names: Any) -> None:
    missing = [name for name in REQUIRED if name not in names]
    unknown = [str(name)[:40] for name in names if name not in REQUIRED + OPTIONAL]
    twice = sorted({name for name in names if list(names).count(name) > 1})
    for problem, found in (("lacks", missing), ("has unknown", unknown), ("repeats", twice)):
        if found:
            raise InvalidInputError(
                f"the header {problem} {', '.join(found)}: it may have"
                f" {', '.join(REQUIRED + OPTIONAL)}"
            )


def _bounded(reader: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(reader, 1):
        if number > MAX_BULK_ROWS:
            raise InvalidInputError(f"more than {MAX_BULK_ROWS} devices: send several files")
        yield row


def _registration(row: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in row.items() if value}
    place = {name: fields.pop(name) for name in ("lat", "lon") if name in fields}
    if place:
        fields["location"] = place
    if "tags" in fields:
        fields["tags"] = fields["tags"].split()
    return fields


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_input=False)[:3]
    return "; ".join(f"{'/'.join(map(str, e['loc'])) or 'line'}: {e['msg']}" for e in found)
