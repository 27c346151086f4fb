"""Pictures for asset metadata: small PNGs inside Markdown."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import date
from io import BytesIO

import dagster as dg
import numpy as np
import polars as pl
from matplotlib.figure import Figure

DPI = 70


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
