"""Pictures of gold tables for the UI."""

from collections.abc import Sequence
from io import BytesIO

import dagster as dg
import polars as pl
from matplotlib.figure import Figure

from zenthos_assets.plots import DPI, picture, ridges


def distributions(frame: pl.DataFrame, columns: Sequence[str]) -> dg.MarkdownMetadataValue:
    """A ridge for each column, each over its own range."""
    return ridges(frame, {name: name for name in columns}, "distribution of each feature")


def response_curve(hours: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Soil moisture against its mean before, over the hours around irrigation: median and half."""
    curve = (
        hours.group_by("offset")
        .agg(
            low=pl.col("change").quantile(0.25),
            middle=pl.col("change").median(),
            high=pl.col("change").quantile(0.75),
        )
        .sort("offset")
    )
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.subplots()
    offset = curve["offset"].to_numpy()
    axes.fill_between(offset, curve["low"].to_numpy(), curve["high"].to_numpy(), alpha=0.3)
    axes.plot(offset, curve["middle"].to_numpy())
    axes.axvline(0, linewidth=0.5)
    title = "soil moisture around irrigation, against before"
    axes.set(title=title, xlabel="hours", ylabel="%")
    return _shown(figure, title)


def weather_bars(weather: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """Rain (bars) and temperature (line) a day, the mean of the farms."""
    days = (
        weather.group_by("day")
        .agg(pl.col("rain_mm").mean(), pl.col("temp_avg").mean())
        .sort("day")
        .with_columns(pl.col("rain_mm", "temp_avg").fill_null(float("nan")))
    )
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    rain = figure.subplots()
    rain.bar(days["day"].to_list(), days["rain_mm"].to_list(), alpha=0.6)
    rain.set(title="weather, mean of the farms", ylabel="rain, mm")
    temperature = rain.twinx()
    temperature.plot(days["day"].to_list(), days["temp_avg"].to_list(), color="tab:red")
    temperature.set(ylabel="°C")
    figure.autofmt_xdate(rotation=0, ha="center")
    return _shown(figure, "rain and temperature a day")


def _shown(figure: Figure, title: str) -> dg.MarkdownMetadataValue:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return picture(buffer.getvalue(), title)
