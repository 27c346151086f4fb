"""Pictures for asset metadata: small PNGs inside Markdown."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
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
    """A bar for each hour of a day."""
    figure = Figure(figsize=(7, 2), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(counts)), counts, width=0.9)
    axes.set(title=title, xlabel="hour, UTC", ylabel="readings")
    return picture(_png(figure), title)


def heat_map(rows: Mapping[str, Sequence[float]], title: str) -> dg.MarkdownMetadataValue:
    """A row of 24 shares for each name: white is none, dark is all."""
    figure = Figure(figsize=(7, 1 + 0.18 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    if rows:
        values = np.array(list(rows.values()))
        axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(rows)), list(rows), fontsize="x-small")
    axes.set(title=title, xlabel="hour, UTC")
    return picture(_png(figure), title)


def histograms(frame: pl.DataFrame, units: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    """The distribution of each column that has values, side by side."""
    title = "distribution of each sensor"
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(2, (len(units) + 1) // 2).flat
    for axis, (name, unit) in zip(axes, units.items(), strict=False):
        axis.hist(frame[name].drop_nulls().to_numpy(), bins=BINS)
        axis.set_title(f"{name}, {unit}", fontsize="x-small")
        axis.tick_params(labelsize="xx-small")
        axis.set_yticks([])
    return picture(_png(figure), title)
