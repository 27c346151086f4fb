"""The sensor `rollouts`: measures running rollouts and has the OTA server decide on each.

1. Each tick, each running rollout is evaluated with the quality that its devices have shown; with
   none (`{}`) where there is nothing to compare yet, since counts and timeouts decide too.
2. The failure of one keeps no other from being evaluated; the next tick tries again.
3. A server that cannot be reached ends the tick, with what to do; so does the database.
4. Each decision is a materialization of `ota/rollouts`, with reasons, counts and pictures. An
   evaluation that changes nothing leaves no trace.

What is decided, and recorded in the audit log, is the server's affair.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import dagster as dg
import httpx
import psycopg

from zenthos_assets import plots
from zenthos_assets.resources import Platform
from zenthos_assets.rollouts.source import READ_WITHIN_S, Rollout, measure, running_rollouts
from zenthos_assets.rollouts.transforms import Cohort, Quality
from zenthos_core.errors import ZenthosError

INTERVAL_S: Final = 30
NOTHING: Final = "hold"
"""The server's word for an evaluation that changes nothing."""

ROLLOUTS: Final = dg.AssetSpec(
    dg.AssetKey(["ota", "rollouts"]),
    deps=[dg.AssetKey(["ota", "model_release"])],
    group_name="release",
    kinds={"postgres"},
    owners=["team:platform"],
    description="Decisions on rollouts: each with its reasons, counts and the quality of updated "
    "devices beside control. Made by the OTA server, asked by the sensor `rollouts`.",
)


class ServerAwayError(ZenthosError):
    """The OTA server did not answer."""


class RefusedError(ZenthosError):
    """It answered, and did not evaluate this rollout."""


@dg.sensor(
    name="rollouts",
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has the OTA server decide on each running rollout, with the data quality of "
    "updated devices beside control.",
)
def rollouts(
    context: dg.SensorEvaluationContext, platform: Platform
) -> dg.SensorResult | dg.SkipReason:
    return tick(context, platform, time.time)


def tick(
    context: dg.SensorEvaluationContext, platform: Platform, clock: Callable[[], float]
) -> dg.SensorResult | dg.SkipReason:
    """Rules 1 to 4 at the moment that a clock in epoch seconds tells."""
    decided: list[dg.AssetMaterialization] = []
    problems: list[str] = []
    running: list[Rollout] = []
    try:
        with _reading(platform) as connection, platform.ota() as ota:
            running = running_rollouts(connection)
            for rollout in running:
                done = _attempt(connection, ota, rollout, datetime.fromtimestamp(clock(), UTC))
                if isinstance(done, str):
                    problems.append(done)
                elif done is not None:
                    decided.append(done)
    except ServerAwayError as error:
        problems.append(str(error))
    except psycopg.OperationalError as error:
        problems.append(f"the operational database fails (is it up?): {_line(error)}")
    for problem in problems:
        context.log.error(problem)
    if decided:
        return dg.SensorResult(asset_events=decided)
    return dg.SkipReason("; ".join(problems) or f"{len(running)} running, none decided")


def _attempt(
    connection: psycopg.Connection, ota: httpx.Client, rollout: Rollout, now: datetime
) -> dg.AssetMaterialization | str | None:
    """The decision on a rollout, None where it changes nothing; or what kept it (rule 2)."""
    try:
        quality = measure(connection, rollout, now)
        answer = evaluate(ota, rollout, quality)
    except (RefusedError, psycopg.errors.QueryCanceled) as error:
        return f"{rollout.title} ({rollout.id}) was not evaluated: {_line(error)}"
    return None if answer["action"] == NOTHING else materialization(rollout, quality, answer)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def evaluate(ota: httpx.Client, rollout: Rollout, quality: Quality | None) -> dict[str, Any]:
    """The server's decision.

    Raises:
        ServerAwayError: where it does not answer, or only that it cannot now.
        RefusedError: where it refuses.
    """
    path = f"/rollouts/{rollout.id}/evaluate"
    try:
        answer = ota.post(path, json=quality.body() if quality else {})
    except httpx.HTTPError as error:
        raise ServerAwayError(
            f"the OTA server at {ota.base_url} does not answer ({error or type(error).__name__}):"
            " start it, or mend ZENTHOS_OTA_URL; the next tick tries again"
        ) from None
    if answer.status_code in {401, 403}:
        raise ServerAwayError(
            f"the OTA server refuses ZENTHOS_SERVICE_TOKEN ({answer.status_code}):"
            " `zenthos up` makes another; the next tick tries again"
        )
    if answer.is_error:
        raise RefusedError(f"POST {path} answers {answer.status_code}: {answer.text[:500]}")
    body: dict[str, Any] = answer.json()
    return body


def materialization(
    rollout: Rollout, quality: Quality | None, answer: dict[str, Any]
) -> dg.AssetMaterialization:
    """Rule 4."""
    action, counts = str(answer["action"]), answer["counts"]
    title = f"{rollout.title}: {action}"
    return dg.AssetMaterialization(
        ROLLOUTS.key,
        description=f"{title}: {'; '.join(answer['reasons'])}",
        metadata={
            "rollout": str(rollout.id),
            "release": rollout.title,
            "decision": action,
            "reasons": dg.MetadataValue.md("\n".join(f"- {r}" for r in answer["reasons"])),
            "state": str(answer["state"]),
            "phase": int(answer["phase"]),
            "counts": dg.MetadataValue.json(counts),
            "progress": plots.stacked_bar(counts, title),
            **(_evidence(quality) if quality else {}),
        },
    )


def _evidence(quality: Quality) -> dict[str, Any]:
    return {
        "quality": dg.MetadataValue.json(asdict(quality)),
        "comparison": plots.bars_side_by_side(
            measures(quality), ("updated", "control"), "updated devices beside control"
        ),
    }


def measures(quality: Quality) -> dict[str, tuple[float, float]]:
    """What both sides have, by name and unit."""

    def both(read: Callable[[Cohort], float | None]) -> tuple[float, float] | None:
        updated, control = read(quality.updated), read(quality.control)
        return None if updated is None or control is None else (updated, control)

    pairs = {
        "missing, %": both(lambda cohort: 100 * cohort.gap_rate),
        "out of range, %": both(lambda cohort: 100 * cohort.range_violation_rate),
        "battery drop, V/day": both(lambda cohort: cohort.battery_drop_v_per_day),
        "confidence": both(lambda cohort: cohort.inference_confidence),
    }
    return {name: pair for name, pair in pairs.items() if pair is not None}


@contextmanager
def _reading(platform: Platform) -> Iterator[psycopg.Connection]:
    """A read-only connection that gives up on what takes long."""
    with platform.ops() as connection:
        connection.read_only = True
        connection.autocommit = True
        connection.execute(f"SET statement_timeout = '{READ_WITHIN_S:g}s'")
        yield connection
