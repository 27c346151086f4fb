"""Pictures for asset metadata: small PNGs inside Markdown."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from io import BytesIO

import dagster as dg
import numpy as np
import polars as pl
from matplotlib.figure import Figure

DPI = 70
BINS = 40


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that the UI shows."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{b64encode(png).decode()})")


def rows_by_day(counts: Mapping[date, int], title: str) -> dg.MarkdownMetadataValue:
    """Rows over the days of a run."""
    figure = Figure(figsize=(7, 2), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(
        np.array(list(counts), dtype="datetime64[D]"), list(counts.values()), step="mid", alpha=0.6
    )
    axes.set(title=title, ylabel="rows", ylim=(0, None))
    figure.autofmt_xdate(rotation=0, ha="center")
    return picture(_png(figure), title)


def counts_over_time(counts: Mapping[datetime, int], title: str) -> dg.MarkdownMetadataValue:
    """Messages by minute or hour of receipt."""
    figure = Figure(figsize=(7, 2), layout="constrained")
    axes = figure.subplots()
    moments = np.array([moment.replace(tzinfo=None) for moment in counts], dtype="datetime64[m]")
    axes.step(moments, list(counts.values()), where="post", linewidth=0.8)
    axes.set(title=title, ylabel="messages", ylim=(0, 1.1 * max(counts.values())))
    figure.autofmt_xdate(rotation=0, ha="center")
    return picture(_png(figure), title)


def payloads_and_objects(sizes: Mapping[str, tuple[int, int]]) -> dg.MarkdownMetadataValue:
    """KiB of payloads beside those of the object that holds them, by partition."""
    title = "payloads and the objects that hold them"
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(sizes))
    for shift, name, values in zip(
        (-0.2, 0.2), ("payloads", "object"), zip(*sizes.values(), strict=True), strict=True
    ):
        axes.bar(places + shift, np.array(values) / 1024, width=0.4, label=name)
    shown = places[:: max(1, len(sizes) // 6)]
    axes.set_xticks(shown, [list(sizes)[place] for place in shown], fontsize="x-small")
    axes.set(title=title, ylabel="KiB")
    axes.legend(fontsize="x-small")
    return picture(_png(figure), title)


def lines_by_device(
    frame: pl.DataFrame, x: str, y: str, *, title: str, unit: str, devices: int = 8
) -> dg.MarkdownMetadataValue:
    """One line for each of the first devices."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    for name in sorted(frame["device_id"].unique())[:devices]:
        device = frame.filter(pl.col("device_id") == name).sort(x)
        axes.plot(device[x].to_list(), device[y].to_list(), label=name, linewidth=0.8)
    axes.set(title=title, ylabel=unit)
    if not frame.is_empty():
        axes.legend(loc="upper left", fontsize="x-small", ncols=4)
    figure.autofmt_xdate(rotation=0, ha="center")
    return picture(_png(figure), title)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def bars_by_hour(counts: Sequence[int], title: str) -> dg.MarkdownMetadataValue:
    """The count of each hour of a day."""
    figure = Figure(figsize=(7, 2))
    axes = figure.add_axes((0.1, 0.22, 0.88, 0.64))
    axes.stairs(counts, fill=True)
    axes.set(title=title, xlabel="hour, UTC", xticks=range(0, len(counts) + 1, 6))
    axes.locator_params("y", nbins=3)
    return picture(_png(figure), title)


def heat_map(rows: Mapping[str, Sequence[float]], title: str) -> dg.MarkdownMetadataValue:
    """A row of 24 shares for each name: white is none, dark is all."""
    height = 1 + 0.18 * max(1, len(rows))
    figure = Figure(figsize=(7, height))
    axes = figure.add_axes((0.25, 0.5 / height, 0.73, 1 - 0.9 / height))
    if rows:
        values = np.array(list(rows.values()))
        axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(rows)), list(rows), fontsize="x-small")
    axes.set(title=title, xlabel="hour, UTC", xticks=range(0, 24, 6))
    return picture(_png(figure), title)


def histograms(frame: pl.DataFrame, units: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    """The distribution of each column that has values, one above the other, from least to most."""
    title = "distribution of each sensor, from its least to its greatest value"
    figure = Figure(figsize=(7, 1 + 0.3 * len(units)))
    axes = figure.add_axes((0.02, 0.05, 0.96, 0.85))
    for row, (name, unit) in enumerate(reversed(list(units.items()))):
        values = frame[name].drop_nulls().to_numpy()
        label = f"{name}: no values"
        if len(values):
            counts, edges = np.histogram(values, bins=BINS)
            axes.stairs(row + 0.9 * counts / counts.max(), baseline=row, fill=True, alpha=0.6)
            label = f"{name}: {edges[0]:.4g} to {edges[-1]:.4g} {unit}"
        axes.text(0.2, row + 0.35, label, fontsize="x-small")
    axes.set(title=title, xlim=(0, BINS), ylim=(0, len(units)), xticks=[], yticks=[])
    return picture(_png(figure), title)
