"""Alerts: what failed goes to the log and to a webhook.

1. A run that failed is an alert: job, failed step, reason, partitions, and the page that shows it.
   A blocking check that failed fails its run; the alert names it.
2. So is a run that succeeded, where a check of severity ERROR failed that does not block.
3. Every alert is logged before it is posted. One that cannot be posted fails the tick; the next
   tick posts all of that tick again, so a receiver may get an alert twice: `run_id` tells.
4. Runs that ended before the sensor's first tick are not looked at.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import dagster as dg
import httpx
import msgspec
import tenacity
from dagster import DagsterEventType, EventLogEntry

from zenthos_assets.launch import shortened
from zenthos_assets.resources import Platform
from zenthos_core.errors import ZenthosError

WEBHOOK_TIMEOUT_S: Final = 10.0
WEBHOOK_ATTEMPTS: Final = 3
WEBHOOK_MAX_WAIT_S: Final = 5.0

RUNS_A_TICK: Final = 100
SETTLE_S: Final = 3.0
"""Events are numbered before they are committed: a lower number may appear after a higher one."""

_RANGE: Final = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_PARTITION: Final = "dagster/partition"
_TELLING: Final = {
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.RUN_FAILURE,
    DagsterEventType.ASSET_CHECK_EVALUATION,
}


class WebhookError(ZenthosError):
    """The webhook did not take an alert."""


@dataclass(frozen=True)
class Alert:
    """What a person is told; the JSON that the webhook receives."""

    event: str
    """`run_failed` or `check_failed`."""

    text: str
    """All of it in one sentence, as chat services show it."""

    job: str
    run_id: str
    url: str
    failed_step: str | None
    reason: str
    checks: tuple[str, ...]
    """Failed checks of severity ERROR, as `asset: check`."""

    partitions: tuple[str, ...]
    """The partition, or first and last of a range."""


def alert_for(
    run: dg.DagsterRun, events: Sequence[EventLogEntry], dagster_url: str
) -> Alert | None:
    """The alert that a finished run gives rise to; None where all is well (rules 1 and 2)."""
    refused = [evaluation for entry in events if (evaluation := _refusal(entry))]
    checks = tuple(f"{e.asset_key.to_user_string()}: {e.check_name}" for e in refused)
    failed = run.status == dg.DagsterRunStatus.FAILURE
    if not failed and not refused:
        return None
    said = "; ".join(f"{e.check_name}: {e.description or 'failed'}" for e in refused)
    step, reason = _first_failure(events) if failed else (None, "")
    reason = shortened(said or reason or "Dagster gives no reason")
    partitions = partitions_of(run)
    job, url = job_name(run), f"{dagster_url.rstrip('/')}/runs/{run.run_id}"
    what = f"{job} failed" if failed else f"{job} succeeded, but a check did not"
    where = f" at {step}" if step else ""
    when = f" ({' to '.join(partitions)})" if partitions else ""
    return Alert(
        event="run_failed" if failed else "check_failed",
        text=f"{what}{where}{when}: {reason} {url}",
        job=job,
        run_id=run.run_id,
        url=url,
        failed_step=step,
        reason=reason,
        checks=checks,
        partitions=partitions,
    )


def partitions_of(run: dg.DagsterRun) -> tuple[str, ...]:
    """The partition of a run, or the first and the last of its range."""
    if _PARTITION in run.tags:
        return (run.tags[_PARTITION],)
    return tuple(dict.fromkeys(run.tags[tag] for tag in _RANGE if tag in run.tags))


def job_name(run: dg.DagsterRun) -> str:
    """Its job; the assets of a run that was started without one."""
    if not run.job_name.startswith("__") or not run.asset_selection:
        return run.job_name
    return ", ".join(sorted(key.to_user_string() for key in run.asset_selection))


def post(alert: Alert, url: str) -> None:
    """Send an alert, a few times where it does not get through; raises WebhookError."""
    try:
        _post(alert, url)
    except httpx.HTTPError as error:
        host = httpx.URL(url).host  # the path of a webhook is often its secret
        raise WebhookError(
            f"the webhook at {host} did not take the alert of run {alert.run_id}: {_why(error)};"
            " check ZENTHOS_ALERT_WEBHOOK_URL"
        ) from None


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    stop=tenacity.stop_after_attempt(WEBHOOK_ATTEMPTS),
    wait=tenacity.wait_random_exponential(max=WEBHOOK_MAX_WAIT_S),
    reraise=True,
)
def _post(alert: Alert, url: str) -> None:
    body = msgspec.json.encode(alert)
    headers = {"Content-Type": "application/json"}
    httpx.post(url, content=body, headers=headers, timeout=WEBHOOK_TIMEOUT_S).raise_for_status()


def finished_runs(
    instance: dg.DagsterInstance, after: int, until: float
) -> tuple[list[dg.DagsterRun], int]:
    """Runs that ended after an event's number and before a moment, and the last one's number."""
    wanted = (
        dg.RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, after_storage_id=after),
        dg.RunStatusChangeRecordsFilter(DagsterEventType.RUN_SUCCESS, after_storage_id=after),
    )
    found = [
        record
        for kind in wanted
        for record in instance.fetch_run_status_changes(kind, RUNS_A_TICK, ascending=True).records
    ]
    ended = sorted(found, key=lambda record: record.storage_id)[:RUNS_A_TICK]
    settled = list(takewhile(lambda record: record.timestamp < until, ended))
    runs = [instance.get_run_by_id(record.run_id) for record in settled]
    return [run for run in runs if run], settled[-1].storage_id if settled else after


@dg.sensor(
    name="alert_on_failure",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs each failed run and failed check, and posts it to ZENTHOS_ALERT_WEBHOOK_URL.",
)
def alert_on_failure(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
    instance, settings = context.instance, platform.settings
    if context.cursor is None:
        newest = instance.event_log_storage.get_maximum_record_id() or 0
        context.update_cursor(str(newest))
        return dg.SkipReason("first tick: alerts begin here")
    runs, cursor = finished_runs(instance, int(context.cursor), time.time() - SETTLE_S)
    events = (instance.all_logs(run.run_id, of_type=_TELLING) for run in runs)
    found = [alert_for(*pair, settings.dagster_url) for pair in zip(runs, events, strict=True)]
    alerts = [alert for alert in found if alert]
    for alert in alerts:
        context.log.error(msgspec.json.encode(alert).decode())
    url = settings.alert_webhook_url.get_secret_value()
    for alert in alerts if url else ():
        post(alert, url)
    context.update_cursor(str(cursor))
    return dg.SkipReason(f"{len(runs)} runs ended, {len(alerts)} alerts")


def _why(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answers {error.response.status_code}"
    return str(error) or type(error).__name__


def _refusal(entry: EventLogEntry) -> dg.AssetCheckEvaluation | None:
    """A check of severity ERROR that failed."""
    event = entry.dagster_event
    if event is None or event.event_type != DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    found = event.asset_check_evaluation_data
    failed = not found.passed and found.severity == dg.AssetCheckSeverity.ERROR
    return found if failed else None


def _first_failure(events: Sequence[EventLogEntry]) -> tuple[str | None, str]:
    """Step and reason; a run that failed without a step says why itself."""
    for entry in events:
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type == DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            step = (event.step_key or "").replace("__", "/")
            return step, error.message.strip() if error else ""
        if event.event_type == DagsterEventType.RUN_FAILURE:
            return None, event.message or ""
    return None, ""
