"""Starting jobs on a running Dagster and following them, over its GraphQL API.

Needs only httpx: the command line imports this without loading Dagster.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from zenthos_core.errors import NotFoundError, ZenthosError

ARCHIVE: Final = "archive"
DAILY: Final = "daily"
TRAIN_AND_RELEASE: Final = "train_and_release"

POLL_S: Final = 1.0
HTTP_TIMEOUT_S: Final = 120.0
"""A range of thousands of partitions is planned within the request."""

EVENTS_A_PAGE: Final = 1_000
REASON_MAX_CHARACTERS: Final = 500

_RANGE_START: Final = "dagster/asset_partition_range_start"
_RANGE_END: Final = "dagster/asset_partition_range_end"
_FINAL: Final = ("SUCCESS", "FAILURE", "CANCELED")

_REPOSITORIES: Final = """
{ repositoriesOrError {
  __typename
  ... on PythonError { message }
  ... on RepositoryConnection { nodes { name location { name } jobs { name } } }
} }"""
_LAUNCH: Final = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on Error { message }
} }"""
_STATUS: Final = """
query ($runId: ID!) { runOrError(runId: $runId) {
  __typename
  ... on Error { message }
  ... on Run {
    status
    startTime
    endTime
    stepStats { stepKey status }
    stats { ... on RunStatsSnapshot { materializations stepsSucceeded } }
    executionPlan { steps { key } }
  }
} }"""
_EVENTS: Final = """
query ($runId: ID!, $cursor: String, $limit: Int) { runOrError(runId: $runId) {
  ... on Run { eventConnection(afterCursor: $cursor, limit: $limit) {
    cursor
    hasMore
    events {
      __typename
      ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
      ... on RunFailureEvent { message error { message causes { message } } }
      ... on AssetCheckEvaluationEvent { stepKey evaluation { checkName success description } }
    }
  } }
} }"""


class RunFailedError(ZenthosError):
    """A run did not succeed."""


@dataclass(frozen=True)
class RunStatus:
    """How far a run is."""

    run_id: str
    status: str
    """Dagster's word: QUEUED, STARTING, STARTED, SUCCESS, FAILURE, CANCELED …"""

    steps: int
    """0 until the run has been planned."""

    steps_done: int
    partitions_built: int
    current: tuple[str, ...]
    failed: tuple[str, ...]
    seconds: float | None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in _FINAL


def launch(
    dagster_url: str,
    job: str,
    *,
    partition_range: tuple[str, str] | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> str:
    """Start a job, for a range of partition keys (first, last) where it is partitioned.

    Hours are `2026-11-23-05:00` (UTC), days `2026-11-23`. Returns the run's id.

    Raises:
        NotFoundError: where no code location has that job.
        RunFailedError: where Dagster refuses to start it.
    """
    tags = dict(zip((_RANGE_START, _RANGE_END), partition_range or (), strict=False))
    with _client(dagster_url) as client:
        parameters = {
            "selector": {**_find_job(client, job), "jobName": job},
            "runConfigData": json.dumps(run_config or {}),
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        }
        answer = _ask(client, _LAUNCH, {"params": parameters})["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        problems = [e["message"] for e in answer.get("errors", ())] or [answer.get("message", "")]
        raise RunFailedError(f"Dagster does not start {job}: {'; '.join(problems)}")
    return str(answer["run"]["runId"])


def wait(
    dagster_url: str,
    run_id: str,
    on_progress: Callable[[RunStatus], None] | None = None,
    *,
    timeout_s: float = 3_600.0,
    poll_s: float = POLL_S,
) -> RunStatus:
    """Follow a run to its end, telling `on_progress` at each poll.

    Raises:
        RunFailedError: where it fails, is cancelled or is not finished in time.
    """
    deadline = time.monotonic() + timeout_s
    with _client(dagster_url) as client:
        while True:
            status = _status(client, run_id)
            if on_progress:
                on_progress(status)
            if status.finished or time.monotonic() > deadline:
                break
            time.sleep(poll_s)
        page = f"{dagster_url.rstrip('/')}/runs/{run_id}"
        if not status.finished:
            raise RunFailedError(f"run still {status.status} after {timeout_s:.0f} s: see {page}")
        if status.status != "SUCCESS":
            steps = ", ".join(status.failed).replace("__", "/") or "no step of its own"
            reason = _reason(client, run_id)
            raise RunFailedError(f"run ended {status.status} ({steps}): {reason}\nsee {page}")
    return status


def _status(client: httpx.Client, run_id: str) -> RunStatus:
    run = _ask(client, _STATUS, {"runId": run_id})["runOrError"]
    if run["__typename"] != "Run":
        raise NotFoundError(f"no run {run_id}: {run.get('message', run['__typename'])}")
    by_status: dict[str, list[str]] = {}
    for step in run["stepStats"]:
        by_status.setdefault(step["status"] or "", []).append(step["stepKey"])
    begin, end = run["startTime"], run["endTime"]
    return RunStatus(
        run_id=run_id,
        status=run["status"],
        steps=len((run["executionPlan"] or {"steps": ()})["steps"]),
        steps_done=(run["stats"] or {}).get("stepsSucceeded", 0),
        partitions_built=(run["stats"] or {}).get("materializations", 0),
        current=tuple(by_status.get("IN_PROGRESS", ())),
        failed=tuple(by_status.get("FAILURE", ())),
        seconds=end - begin if begin and end else None,
    )


def _reason(client: httpx.Client, run_id: str) -> str:
    """Why it failed: what the first failed step's checks had to say, else its own error."""
    verdicts: dict[str, list[str]] = {}
    for event in _events(client, run_id):
        step, check = event.get("stepKey", ""), event.get("evaluation")
        if check and not check["success"]:
            said = check["description"] or "failed"
            verdicts.setdefault(step, []).append(f"{check['checkName']}: {said}")
        if error := event.get("error"):
            refused = [] if error["causes"] else verdicts.get(step, [])  # Dagster's own error
            return shortened("; ".join(refused or [_innermost(error)]))
        if event["__typename"] == "RunFailureEvent":
            return shortened(event["message"])
    return "Dagster gives no reason"


def _events(client: httpx.Client, run_id: str) -> Iterator[dict[str, Any]]:
    """What happened in a run, from its begin."""
    cursor, more = None, True
    while more:
        variables = {"runId": run_id, "cursor": cursor, "limit": EVENTS_A_PAGE}
        page = _ask(client, _EVENTS, variables)["runOrError"]["eventConnection"]
        yield from page["events"]
        cursor, more = page["cursor"], page["hasMore"]


def _innermost(error: Mapping[str, Any]) -> str:
    """The message below Dagster's own wrapping, without the name of the error's module."""
    message = [error, *error["causes"]][-1]["message"]
    return re.sub(r"^(?:\w+\.)+(?=\w+(?::|$))", "", str(message).strip())


def shortened(text: str) -> str:
    """On one line; of a long text its begin and its end, which say most."""
    line = " ".join(text.split())
    half = REASON_MAX_CHARACTERS // 2
    return line if len(line) <= 2 * half else f"{line[:half]} … {line[-half:]}"


def _find_job(client: httpx.Client, job: str) -> dict[str, str]:
    found = _ask(client, _REPOSITORIES, {})["repositoriesOrError"]
    for repository in found.get("nodes", ()):
        if any(known["name"] == job for known in repository["jobs"]):
            return {
                "repositoryName": repository["name"],
                "repositoryLocationName": repository["location"]["name"],
            }
    problem = found.get("message", "is the code location loaded? See its Deployment page")
    raise NotFoundError(f"Dagster has no job {job}: {problem}")


def _client(dagster_url: str) -> httpx.Client:
    return httpx.Client(base_url=dagster_url, timeout=HTTP_TIMEOUT_S)


def _ask(client: httpx.Client, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    try:
        answer = client.post("/graphql", json={"query": query, "variables": variables})
    except httpx.TransportError as error:
        raise RunFailedError(
            f"cannot reach Dagster at {client.base_url}: {error or type(error).__name__}"
        ) from None
    body = (
        answer.json()
        if answer.headers.get("content-type", "").startswith("application/json")
        else {}
    )
    if answer.is_error or "data" not in body or body.get("errors"):
        raise RunFailedError(f"Dagster answers {answer.status_code}: {answer.text[:500]}")
    data: dict[str, Any] = body["data"]
    return data
