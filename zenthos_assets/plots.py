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
    figure = _figure(7, 2)
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
    figure = _figure(7, 2.6)
    axes = figure.subplots()
    for name in sorted(frame["device_id"].unique())[:devices]:
        device = frame.filter(pl.col("device_id") == name).sort(x)
        axes.plot(device[x].to_list(), device[y].to_list(), label=name, linewidth=0.8)
    axes.set(title=title, ylabel=unit)
    if not frame.is_empty():
        axes.legend(loc="upper left", fontsize="x-small", ncols=4)
    figure.autofmt_xdate(rotation=0, ha="center")
    return picture(_png(figure), title)


def _figure(width: float, height: float) -> Figure:
    """Margins are set once: a layout that looks for them draws everything twice."""
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=0.09, right=0.98, bottom=min(0.45, 0.5 / height), top=1 - 0.35 / height
    )
    return figure


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def bars_by_hour(counts: Sequence[int], title: str) -> dg.MarkdownMetadataValue:
    """A bar for each hour of a day."""
    figure = _figure(7, 2)
    axes = figure.subplots()
    axes.bar(range(len(counts)), counts, width=0.9)
    axes.set(title=title, xlabel="hour, UTC", ylabel="readings")
    return picture(_png(figure), title)


def heat_map(rows: Mapping[str, Sequence[float]], title: str) -> dg.MarkdownMetadataValue:
    """A row of 24 shares for each name: white is none, dark is all."""
    figure = _figure(7, 1 + 0.18 * max(1, len(rows)))
    figure.subplots_adjust(left=0.16)
    axes = figure.subplots()
    if rows:
        values = np.array(list(rows.values()))
        axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(rows)), list(rows), fontsize="x-small")
    axes.set(title=title, xlabel="hour, UTC", xticks=range(0, 24, 6))
    return picture(_png(figure), title)


def histograms(frame: pl.DataFrame, units: Mapping[str, str]) -> dg.MarkdownMetadataValue:
    """The distribution of each column that has values, each over its own range, in one plot."""
    labels = {name: f"{name}, {unit}" for name, unit in units.items()}
    return ridges(frame, labels, "distribution of each sensor")


def ridges(frame: pl.DataFrame, labels: Mapping[str, str], title: str) -> dg.MarkdownMetadataValue:
    """A ridge for each column in one plot: as many plots would take a second."""
    figure = Figure(figsize=(7, 0.8 + 0.32 * len(labels)))
    figure.subplots_adjust(left=0.38, right=0.98, bottom=0.05, top=0.9)
    axes = figure.subplots()
    names = []
    for place, (name, label) in enumerate(labels.items()):
        values = frame[name].drop_nulls().cast(pl.Float64).to_numpy()
        low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
        scaled = (values - low) / (high - low) if high > low else 0 * values
        counts, edges = np.histogram(scaled, bins=BINS, range=(0, 1))
        heights = 0.9 * counts / max(1, counts.max())
        axes.fill_between(edges[:-1], -place, heights - place, step="post", alpha=0.6)
        names.append(f"{label}, {low:.3g} to {high:.3g}")
    axes.set_yticks([-place for place in range(len(labels))], names, fontsize="x-small")
    axes.set_xticks([])
    axes.set_title(title, fontsize="medium")
    return picture(_png(figure), title)


def bars_side_by_side(
    values: Mapping[str, tuple[float, float]], names: tuple[str, str], title: str
) -> dg.MarkdownMetadataValue:
    """Two bars for each measure in a plot of its own, since their units differ."""
    figure = _figure(1.7 * max(2, len(values)), 2)
    figure.subplots_adjust(wspace=0.6, top=0.72)
    for place, (name, pair) in enumerate(values.items(), start=1):
        axes = figure.add_subplot(1, len(values), place)
        axes.bar(names, pair, color=["tab:blue", "tab:grey"], width=0.7)
        axes.set_title(name, fontsize="x-small")
        axes.tick_params(labelsize="x-small")
    figure.suptitle(title, fontsize="medium")
    return picture(_png(figure), title)


def stacked_bars(rows: Mapping[str, Mapping[str, int]], title: str) -> dg.MarkdownMetadataValue:
    """A bar for each row, of parts that have the same colour in all."""
    figure = _figure(7, 1 + 0.3 * max(2, len(rows)))
    figure.subplots_adjust(left=0.2, right=0.78)
    axes = figure.subplots()
    left = dict.fromkeys(rows, 0)
    for part in dict.fromkeys(name for parts in rows.values() for name in parts):
        counts = [parts.get(part, 0) for parts in rows.values()]
        axes.barh(list(rows), counts, left=list(left.values()), label=f"{part} {sum(counts):,}")
        left = {row: left[row] + parts.get(part, 0) for row, parts in rows.items()}
    axes.set_title(title, fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.invert_yaxis()
    if any(left.values()):
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="x-small", frameon=False)
    return picture(_png(figure), title)
