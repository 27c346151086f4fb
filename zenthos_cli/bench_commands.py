"""`zenthos bench NAME`: progress on standard error, one JSON object as the last line of output.

Those of ingest bring their own Postgres and broker. Exit code 1 where a message was lost or stored
twice, or an archive is not byte-exact.
"""

from dataclasses import asdict
from pathlib import Path
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


@app.command()
def latency(
    connections: Annotated[int, typer.Option(min=1, help="Devices, each connected.")] = 1_000,
    interval: Annotated[float, typer.Option(min=0.01, help="Seconds between a device's.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that count.")] = 30.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds before them.")] = 5.0,
    spike: Annotated[int, typer.Option(min=0, help="Extra messages in one second.")] = 0,
) -> None:
    """From publish to commit at a steady rate, against one commit a message; and a spike."""
    from bench.latency import run_latency_bench
    from bench.load import Load

    _report(run_latency_bench(Load(connections, interval, warm_up, seconds, spike)))


@app.command()
def drain(
    outage_s: Annotated[float, typer.Option(min=0.1, help="Length of the outage.")] = 300.0,
    rate: Annotated[float, typer.Option(min=1, help="Messages a second meanwhile.")] = 1_000.0,
    real_time: Annotated[
        bool, typer.Option("--real-time", help="Publish at that rate, not as fast as it goes.")
    ] = False,
    spool_after_s: Annotated[
        float, typer.Option(min=0, help="Outage after which ingest spools to disk.")
    ] = 2.0,
) -> None:
    """Catching up after an outage of the database, against `mosquitto_sub | psql COPY`."""
    from bench.drain import Outage, run_drain_bench

    _report(run_drain_bench(Outage(outage_s, rate, real_time, spool_after_s)))


@app.command()
def etl(
    devices: Annotated[
        int, typer.Argument(min=10, help="Devices, a message a minute each; a multiple of ten.")
    ] = 10_000,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each contender; medians count.")] = 1,
    folder: Annotated[
        Path | None, typer.Option(help="Keep the made-up day here, for the next time.")
    ] = None,
    overhead: Annotated[
        bool, typer.Option("--overhead", help="Instead: what Dagster and Postgres add to a day.")
    ] = False,
) -> None:
    """A day from bronze to features, against DuckDB SQL and pandas doing the same steps."""
    import msgspec

    if overhead:
        from bench.etl_lineage import run_lineage_bench

        typer.echo(msgspec.json.encode(run_lineage_bench()))
        return
    from bench.etl import run_etl_bench

    typer.echo(msgspec.json.encode(run_etl_bench(devices, runs=runs, folder=folder)))


@app.command()
def archive(
    devices: Annotated[int, typer.Option(min=1, help="Simulated devices.")] = 300,
    interval: Annotated[int, typer.Option(min=1, max=3600, help="Seconds between readings.")] = 60,
    hours: Annotated[float, typer.Option(min=0.1, help="Simulated hours.")] = 24.0,
) -> None:
    """Size of the archive against the JSON in it, simulated and recorded, against plain Parquet."""
    import msgspec

    from bench.archive import run_archive_bench

    result = run_archive_bench(devices, interval, hours)
    typer.echo(msgspec.json.encode(result))
    if not result.byte_exact:
        raise typer.Exit(1)


@app.command()
def rollout(
    devices: Annotated[int, typer.Argument(min=100, help="Devices of the fleet.")] = 100_000,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each; medians count.")] = 5,
) -> None:
    """One evaluation of a rollout, against a loop over its devices that decides the same."""
    import msgspec

    from bench.rollout import run_rollout_bench

    result = run_rollout_bench(devices, runs=runs)
    typer.echo(msgspec.json.encode(result))
    if not result.same_counts:
        raise typer.Exit(1)


def _report(result: "DataclassInstance") -> None:
    import msgspec

    values: dict[str, Any] = asdict(result)
    typer.echo(msgspec.json.encode(values))
    if values["lost"] or values["duplicated"]:
        raise typer.Exit(1)
