"""Plots results."""

from collections.abc import Mapping
from typing import Final

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ops.bench.results import Spread
from ops.common.plots import Draw, Variant, add_legend, new_axes, to_svg

_MARKERS: Final = "os^"


def rows_of_dots(series: Mapping[str, Mapping[str, Spread]], unit: str, emphasised: str) -> Draw:
    """Draws a row for each name, with a dot and its interval for each series, on a logarithmic axis.

    Args:
        series: by series and then by name.
        unit: of the axis.
        emphasised: the name in bold.
    """
    names = list(dict.fromkeys(name for points in series.values() for name in points))

    def draw(variant: Variant) -> str:
        figure, axes = new_axes(variant, 0.9 + 0.34 * len(names))
        offsets = [0.22 * (index - (len(series) - 1) / 2) for index in range(len(series))]
        for (label, points), offset, colour, marker in zip(
            series.items(), offsets, variant.colours, _MARKERS, strict=False
        ):
            for name, point in points.items():
                height = names.index(name) + offset
                axes.plot([point.low, point.high], [height, height], color=colour, linewidth=1.2)
            heights = [names.index(name) + offset for name in points]
            medians = [point.median for point in points.values()]
            axes.plot(medians, heights, marker, color=colour, markersize=5, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        for text in axes.get_yticklabels():
            if text.get_text() == emphasised:
                text.set_fontweight("bold")
        axes.set_xlabel(unit)
        axes.grid(axis="x", which="both", color=variant.faint, linewidth=0.5)
        if len(series) > 1:
            add_legend(axes, variant, len(series))
        return to_svg(figure)

    return draw


def stacked_bars(bars: Mapping[str, Mapping[str, float]], unit: str) -> Draw:
    """Draws a bar for each name, stacked from its parts.

    Args:
        bars: by name and then by part.
        unit: of the axis.
    """
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))

    def draw(variant: Variant) -> str:
        figure, axes = new_axes(variant, 1.0 + 0.42 * len(bars))
        starts = [0.0] * len(bars)
        for part, colour in zip(parts, variant.colours, strict=False):
            lengths = [bar.get(part, 0.0) for bar in bars.values()]
            axes.barh(list(bars), lengths, left=starts, color=colour, label=part, height=0.6)
            starts = [start + length for start, length in zip(starts, lengths, strict=True)]
        for height, total in enumerate(starts):
            axes.text(total + max(starts) * 0.01, height, f"{total:.0f}", va="center", color=variant.ink)
        axes.invert_yaxis()
        axes.set_xlim(0, max(starts) * 1.12)
        axes.set_xlabel(unit)
        axes.grid(axis="x", color=variant.faint, linewidth=0.5)
        add_legend(axes, variant, len(parts))
        return to_svg(figure)

    return draw


def lines(series: Mapping[str, Mapping[int, Spread]], unit: str, x_label: str) -> Draw:
    """Draws a line for each series over a logarithmic x-axis, with the interval of each point.

    Args:
        series: by series and then by the value on the x-axis.
        unit: of the y-axis.
        x_label: of the x-axis.
    """

    def draw(variant: Variant) -> str:
        figure, axes = new_axes(variant, 2.8)
        for (label, points), colour, marker in zip(series.items(), variant.colours, _MARKERS, strict=False):
            medians = [point.median for point in points.values()]
            below = [point.median - point.low for point in points.values()]
            above = [point.high - point.median for point in points.values()]
            axes.errorbar(
                list(points),
                medians,
                [below, above],
                color=colour,
                marker=marker,
                capsize=3,
                linewidth=1.4,
                label=label,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(unit)
        axes.grid(axis="y", color=variant.faint, linewidth=0.5)
        add_legend(axes, variant, len(series))
        return to_svg(figure)

    return draw


def _plain(value: float, _: int | None = None) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
