"""`zenthos bench NAME`: progress on standard error, one JSON object as the last line of output.

Each brings its own Postgres and broker. Exit code 1 where a message was lost or stored twice.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

app = typer.Typer(help="Measure, each time against a peer in the same run.", no_args_is_help=True)


@app.command()
def ingest(
    messages: Annotated[int, typer.Argument(min=1, help="Messages of about 300 B.")] = 200_000,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each; medians count.")] = 3,
    commit_delay_us: Annotated[
        int, typer.Option(min=0, max=100_000, help="Slow each commit down, as a slow disk does.")
    ] = 0,
    trace_cost: Annotated[
        bool, typer.Option("--trace-cost", help="Also run with traces on, beside each run.")
    ] = False,
) -> None:
    """Throughput: Mosquitto into Postgres, against `mosquitto_sub | psql COPY`."""
    from bench.ingest import run_ingest_bench

    _report(
        run_ingest_bench(
            messages, runs=runs, commit_delay_us=commit_delay_us, trace_cost=trace_cost
        )
    )


def _report(result: "DataclassInstance") -> None:
    import msgspec

    values: dict[str, Any] = asdict(result)
    typer.echo(msgspec.json.encode(values))
    if values["lost"] or values["duplicated"]:
        raise typer.Exit(1)
