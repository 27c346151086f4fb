"""The whole OpenAPI document, fuzzed on the real server: no 5xx, and it tells the truth.

As an admin, a device and nobody; with data that fits the document, and with data that does not.
"""

from collections.abc import Callable, Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.ota_api.conftest import DEVICE_ID, DEVICE_MODEL, Ota
from zenthos_core.tokens import Role

TRUTH = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
FEW = {GenerationMode.POSITIVE: 4, GenerationMode.NEGATIVE: 2}
"""Examples of an operation: what does not fit takes ten times as long to make up."""
CALLERS = {"admin": Role.ADMIN, "device": Role.DEVICE, "nobody": None}
KNOWN = {"device_id": DEVICE_ID, "device_model": DEVICE_MODEL, "name": "irrigation"}
"""Put into paths that fit the document: what is made up exists too seldom."""
REJECTIONS = {408, 410, 413, 421}
"""Which schemathesis does not count as such."""
UNJUDGED = {
    "POST /hooks/github-release",  # any object may be signed by GitHub
    "GET /metrics",
}


def all_operations(ota: Ota) -> Iterator[APIOperation]:
    document = ota.http.get("/openapi.json").json()
    for item in document["paths"].values():
        for described in item.values():
            described.pop("security", None)  # the caller's token is not made up
    schema = schemathesis.openapi.from_dict(document)
    for result in schema.get_all_operations():
        yield result.ok()


def fuzz(ota: Ota, role: Role | None, mode: GenerationMode, examples: int) -> list[str]:
    """What was found: operation, and what is wrong with its answer."""
    found = []
    with requests.Session() as session:
        session.trust_env = False
        for operation in all_operations(ota):
            try:
                check_of(ota, role, operation, mode, examples, session)()
            except Unsatisfiable:
                continue  # it takes nothing that could be wrong
            except BaseExceptionGroup as error:
                told = " ".join(str(one) for one in error.exceptions)
                found.append(f"{operation.label}: {told} {error}"[:900])
    return found


def check_of(  # noqa: PLR0917 - what a case is made of
    ota: Ota,
    role: Role | None,
    operation: APIOperation,
    mode: GenerationMode,
    examples: int,
    session: requests.Session,
) -> Callable[[], None]:
    """A property of one operation."""
    fits = mode is GenerationMode.POSITIVE
    headers = ota.headers(role, DEVICE_ID if role is Role.DEVICE else "someone")
    checks = list(TRUTH)
    if not fits and operation.label not in UNJUDGED:
        checks.append(negative_data_rejection)

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        if fits:
            for name in KNOWN.keys() & (case.path_parameters or {}).keys():
                case.path_parameters[name] = KNOWN[name]
        case.headers = {n: v for n, v in (case.headers or {}).items() if n != "Authorization"}
        answer = case.call(base_url=ota.settings.ota_url, session=session, headers=headers)
        judged = TRUTH if answer.status_code in REJECTIONS else checks
        case.validate_response(answer, checks=judged, headers=headers)

    return check  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("caller", CALLERS)
def test_the_document_tells_the_truth(shared_ota: Ota, caller: str, mode: GenerationMode) -> None:
    assert fuzz(shared_ota, CALLERS[caller], mode, FEW[mode]) == []


@pytest.mark.fault
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("caller", CALLERS)
def test_the_document_tells_the_truth_at_length(
    shared_ota: Ota, caller: str, mode: GenerationMode
) -> None:
    assert fuzz(shared_ota, CALLERS[caller], mode, examples=20) == []


def test_methods_that_are_not_in_the_document(shared_ota: Ota) -> None:
    """405 with what is allowed, as a problem."""
    paths = shared_ota.http.get("/openapi.json").json()["paths"]
    for path, item in paths.items():
        for method in {"get", "post", "put", "patch", "delete"} - set(item):
            url = path.format_map({**KNOWN, "version": "latest"} | dict.fromkeys(_rest(path), "x"))
            answer = shared_ota.send(method.upper(), url)
            assert answer.status_code in {404, 405, 422, 403}, (method, path)
            assert answer.headers["content-type"] == "application/problem+json"


def _rest(path: str) -> set[str]:
    names = {part.partition("}")[0] for part in path.split("{")[1:]}
    return names - {*KNOWN, "version"}
