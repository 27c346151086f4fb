"""The sensor `rollouts`: measures running rollouts and has the OTA server decide on each.

1. Each tick, each running rollout is evaluated with the quality that its devices have shown; with
   none (`{}`) where there is nothing to compare yet, since counts and timeouts decide too.
2. The failure of one keeps no other from being evaluated; the next tick tries again. A tick that
   has taken TICK_S leaves the others to the next, which begins with them: Dagster ends one that
   takes a minute.
3. A server that cannot be reached is said, with what to do; so is the database. What was decided
   all the same is told.
4. Each decision is a materialization of `ota/rollouts`, once, by decisions.py. An evaluation that
   changes nothing leaves no trace.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import dagster as dg
import httpx
import msgspec
import psycopg

from zenthos_assets.resources import Platform
from zenthos_assets.rollouts.decisions import begin, materialization, read_decisions
from zenthos_assets.rollouts.source import READ_WITHIN_S, Rollout, measure, running_rollouts
from zenthos_assets.rollouts.transforms import Quality
from zenthos_core.errors import ZenthosError

INTERVAL_S: Final = 30
TICK_S: Final = 10.0
EVALUATE_WITHIN_S: Final = 15.0
"""Longest wait for one; with what is read for it, a tick ends before Dagster ends it."""


class ServerAwayError(ZenthosError):
    """The OTA server did not answer, or heeds no one with our token."""


class RefusedError(ZenthosError):
    """It answered, and did not evaluate this rollout."""


@dg.sensor(
    name="rollouts",
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Has the OTA server decide on each running rollout, with the data quality of"
    " updated devices beside control; tells of each decision.",
)
def rollouts(
    context: dg.SensorEvaluationContext, platform: Platform
) -> dg.SensorResult | dg.SkipReason:
    return tick(context, platform, time.time)


def tick(
    context: dg.SensorEvaluationContext, platform: Platform, clock: Callable[[], float]
) -> dg.SensorResult | dg.SkipReason:
    """Rules 1 to 4 at the moment that a clock in epoch seconds tells."""
    try:
        with _reading(platform) as connection:
            cursor = begin(connection, context.cursor)
            running = _from(cursor.evaluated, running_rollouts(connection))
            last, problems = _evaluate_all(connection, platform, running, clock)
            decided = read_decisions(connection, cursor)
            events = [materialization(connection, decision) for decision in decided]
    except psycopg.OperationalError as error:
        return dg.SkipReason(f"the operational database fails (is it up?): {_line(error)}")
    for problem in problems:
        context.log.error(problem)
    kept = msgspec.structs.replace(cursor.after(decided), evaluated=last or cursor.evaluated)
    context.update_cursor(msgspec.json.encode(kept).decode())
    if events:
        return dg.SensorResult(asset_events=events)
    return dg.SkipReason("; ".join(problems) or f"{len(running)} evaluated, nothing decided")


def _from(evaluated: str, running: list[Rollout]) -> list[Rollout]:
    """All of them, those after the one that was evaluated last first (rule 2)."""
    places = [place for place, rollout in enumerate(running, 1) if str(rollout.id) == evaluated]
    begin = places[0] if places else 0
    return running[begin:] + running[:begin]


def _evaluate_all(
    connection: psycopg.Connection,
    platform: Platform,
    running: list[Rollout],
    clock: Callable[[], float],
) -> tuple[str | None, list[str]]:
    """Rules 1 to 3; the last one evaluated, None where there was none, and what went wrong."""
    last: str | None = None
    problems: list[str] = []
    begun = clock()
    with platform.ota() as ota:
        for rollout in running:
            now = clock()
            if now - begun > TICK_S:
                break
            try:
                quality = measure(connection, rollout, datetime.fromtimestamp(now, UTC))
                evaluate(ota, rollout, quality)
            except ServerAwayError as error:
                return last, [*problems, str(error)]
            except (RefusedError, psycopg.errors.QueryCanceled) as error:
                problems.append(f"{rollout.title} ({rollout.id}) was not evaluated: {_line(error)}")
            last = str(rollout.id)
    return last, problems


def evaluate(ota: httpx.Client, rollout: Rollout, quality: Quality | None) -> None:
    """Have the server decide.

    Raises:
        ServerAwayError: where it does not answer, or refuses our token.
        RefusedError: where it cannot evaluate this rollout.
    """
    path = f"/rollouts/{rollout.id}/evaluate"
    try:
        answer = ota.post(path, json=quality.body() if quality else {}, timeout=EVALUATE_WITHIN_S)
    except httpx.ReadTimeout:
        raise RefusedError(f"POST {path} takes longer than {EVALUATE_WITHIN_S:g} s") from None
    except httpx.HTTPError as error:
        raise ServerAwayError(
            f"the OTA server at {ota.base_url} does not answer ({error or type(error).__name__}):"
            " start it, or mend ZENTHOS_OTA_URL; the next tick tries again"
        ) from None
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        raise ServerAwayError(
            f"the OTA server refuses ZENTHOS_SERVICE_TOKEN ({answer.status_code}):"
            " `zenthos up` makes another; the next tick tries again"
        )
    if answer.is_error:
        raise RefusedError(f"POST {path} answers {answer.status_code}: {answer.text[:500]}")


@contextmanager
def _reading(platform: Platform) -> Iterator[psycopg.Connection]:
    """A read-only connection that gives up on what takes long."""
    with platform.ops() as connection:
        connection.autocommit = True
        connection.read_only = True
        connection.execute(f"SET statement_timeout = '{READ_WITHIN_S:g}s'")
        yield connection


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
