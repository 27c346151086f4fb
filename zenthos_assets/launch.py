"""Launches jobs on a running Dagster webserver and follows them, over its GraphQL API."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from zenthos_core.errors import ZenthosError

RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
POLL_EVERY_S: Final = 0.5
TIMEOUT_S: Final = 30.0

_LOCATIONS: Final = """
query { repositoriesOrError { ... on RepositoryConnection { nodes {
  name location { name } jobs { name }
} } } }
"""
_LAUNCH: Final = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } }
} }
"""
_FOLLOW: Final = """
query ($runId: ID!) { runOrError(runId: $runId) { ... on Run {
  status stepKeysToExecute
  stats { ... on RunStatsSnapshot { stepsSucceeded materializations } }
} } }
"""
_FAILURES: Final = """
query ($runId: ID!) { logsForRun(runId: $runId) { ... on EventConnection { events {
  ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
  ... on RunFailureEvent { message }
} } } }
"""


class LaunchError(ZenthosError):
    """A job could not be launched, or its run failed."""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is."""

    status: str
    steps: int
    steps_succeeded: int
    materializations: int

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.status in {"SUCCESS", "FAILURE", "CANCELED"}


def launch(
    dagster_url: str,
    job: str,
    *,
    partition_range: tuple[str, str] | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> str:
    """Launch a job, for a range of partition keys where it is partitioned; returns the run's id.

    Raises:
        LaunchError: where Dagster cannot be reached, has no such job or refuses it.
    """
    repositories = _query(dagster_url, _LOCATIONS)["repositoriesOrError"].get("nodes", [])
    found = [r for r in repositories if job in {j["name"] for j in r["jobs"]}]
    if not found:
        raise LaunchError(f"Dagster has no job {job!r}: look at its code location in {dagster_url}")
    tags = zip((RANGE_START_TAG, RANGE_END_TAG), partition_range or (), strict=False)
    params = {
        "selector": {
            "repositoryName": found[0]["name"],
            "repositoryLocationName": found[0]["location"]["name"],
            "jobName": job,
        },
        "runConfigData": run_config or {},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags]},
    }
    answer = _query(dagster_url, _LAUNCH, params=params)["launchRun"]
    if "run" not in answer:
        errors = [e["message"] for e in answer.get("errors", [])] or [answer.get("message", "")]
        raise LaunchError(f"Dagster refuses {job}: {answer['__typename']} {'; '.join(errors)}")
    run_id: str = answer["run"]["runId"]
    return run_id


def wait(dagster_url: str, run_id: str, on_progress: Callable[[RunProgress], None]) -> None:
    """Follow a run to its end; LaunchError, with the reason, unless it succeeds."""
    while True:
        run = _query(dagster_url, _FOLLOW, runId=run_id)["runOrError"]
        stats = run.get("stats") or {}
        progress = RunProgress(
            run["status"],
            len(run.get("stepKeysToExecute") or []),
            stats.get("stepsSucceeded", 0),
            stats.get("materializations", 0),
        )
        on_progress(progress)
        if progress.status == "SUCCESS":
            return
        if progress.ended:
            raise LaunchError(
                f"run {progress.status.lower()}: {_reason(dagster_url, run_id)}\n"
                f"see {dagster_url}/runs/{run_id}"
            )
        time.sleep(POLL_EVERY_S)


def _reason(dagster_url: str, run_id: str) -> str:
    """The innermost message of the first step that failed."""
    events = _query(dagster_url, _FAILURES, runId=run_id)["logsForRun"].get("events", [])
    for event in events:
        if "stepKey" in event:
            chain = [event["error"], *(event["error"].get("causes") or [])]
            return f"{event['stepKey']}: {chain[-1]['message'].strip()}"
    return next((event["message"] for event in events if "message" in event), "no reason given")


def _query(dagster_url: str, query: str, **variables: Any) -> dict[str, Any]:
    try:
        response = httpx.post(
            f"{dagster_url}/graphql",
            json={"query": query, "variables": variables},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise LaunchError(f"Dagster at {dagster_url} does not answer: {error}") from None
    answer = response.json()
    if answer.get("errors"):
        raise LaunchError(f"Dagster: {answer['errors'][0]['message']}")
    data: dict[str, Any] = answer["data"]
    return data
