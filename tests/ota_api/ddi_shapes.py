"""What hawkBit's DDI v1 answers, as JSON Schema, from its API model (hawkbit-ddi-api, DdiXxx.java).

Members that our clients need are required; those that hawkBit does not know are refused.
"""

import re
from typing import Any, Final

import httpx
from jsonschema import Draft202012Validator


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT: Final = {"type": "string", "minLength": 1}
ID: Final = {"type": "string", "pattern": "^[1-9][0-9]*$"}
HREF: Final = r"^https?://[^?]+(\?c=[0-9]+|\?redirect=false)?$"
LINK: Final = _object({"href": {"type": "string", "pattern": HREF}})
HANDLING: Final = {"enum": ["skip", "attempt", "forced"]}


def _hex(digits: int) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^[0-9a-f]{{{digits}}}$"}


ARTIFACT: Final = _object(
    {
        "filename": TEXT,
        "hashes": _object({"sha1": _hex(40), "md5": _hex(32), "sha256": _hex(64)}),
        "size": {"type": "integer", "minimum": 1},
        "_links": _object(
            {"download": LINK, "md5sum": LINK, "download-http": LINK, "md5sum-http": LINK}
        ),
    }
)
CHUNK: Final = _object(
    {"part": TEXT, "version": TEXT, "name": TEXT, "artifacts": {"type": "array", "items": ARTIFACT}}
)
DEPLOYMENT: Final = _object(
    {"download": HANDLING, "update": HANDLING, "chunks": {"type": "array", "items": CHUNK}},
    maintenanceWindow={"enum": ["available", "unavailable"]},
)
ACTION: Final = _object(
    {"id": ID, "deployment": DEPLOYMENT},
    actionHistory=_object({"status": TEXT, "messages": {"type": "array", "items": TEXT}}),
)
BASE: Final = _object(
    {
        "config": _object(
            {"polling": _object({"sleep": {"type": "string", "pattern": r"^\d\d:\d\d:\d\d$"}})}
        ),
        "_links": _object(
            {}, deploymentBase=LINK, cancelAction=LINK, configData=LINK, installedBase=LINK
        ),
    }
)
CANCEL: Final = _object({"id": ID, "cancelAction": _object({"stopId": ID})})

BY_PATH: Final = {
    r"": BASE,
    r"/(deploymentBase|installedBase)/\d+": ACTION,
    r"/cancelAction/\d+": CANCEL,
    r"/softwaremodules/\d+/artifacts": {"type": "array", "items": ARTIFACT},
}


def check_answer(answer: httpx.Response) -> None:
    """Of any DDI route: good JSON has its shape, feedback has no body, errors are problems."""
    path = re.sub(r"^.*/controller/v1/[^/]+", "", answer.url.path)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
    elif answer.request.method in {"POST", "PUT"}:
        assert answer.content == b""
    for pattern, schema in BY_PATH.items():
        if answer.is_success and re.fullmatch(pattern, path):
            assert answer.headers["content-type"] == "application/hal+json"
            Draft202012Validator(schema).validate(answer.json())
