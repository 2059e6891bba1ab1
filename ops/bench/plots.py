"""Results as pictures."""

from collections.abc import Mapping
from typing import Final

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ops.bench.results import Spread
from ops.common.plots import Draw, Look, add_legend, new_axes, to_svg

_MARKERS: Final = "os^"


def rows_of_dots(series: Mapping[str, Mapping[str, Spread]], unit: str, emphasised: str) -> Draw:
    """A row for each name, with a dot and its spread for each series, on a logarithmic axis.

    Args:
        series: by series and then by name.
        unit: of the axis.
        emphasised: the name that is set in bold.
    """
    names = list(dict.fromkeys(name for points in series.values() for name in points))

    def draw(look: Look) -> str:
        figure, axes = new_axes(look, 0.9 + 0.34 * len(names))
        offsets = [0.22 * (index - (len(series) - 1) / 2) for index in range(len(series))]
        for (label, points), offset, colour, marker in zip(
            series.items(), offsets, look.colours, _MARKERS, strict=False
        ):
            for name, point in points.items():
                height = names.index(name) + offset
                axes.plot([point.least, point.most], [height, height], color=colour, linewidth=1.2)
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
        axes.grid(axis="x", which="both", color=look.faint, linewidth=0.5)
        if len(series) > 1:
            add_legend(axes, look, len(series))
        return to_svg(figure)

    return draw


def stacked_bars(bars: Mapping[str, Mapping[str, float]], unit: str) -> Draw:
    """A bar for each name, made of parts that add up.

    Args:
        bars: by name and then by part.
        unit: of the axis.
    """
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))

    def draw(look: Look) -> str:
        figure, axes = new_axes(look, 1.0 + 0.42 * len(bars))
        starts = [0.0] * len(bars)
        for part, colour in zip(parts, look.colours, strict=False):
            lengths = [bar.get(part, 0.0) for bar in bars.values()]
            axes.barh(list(bars), lengths, left=starts, color=colour, label=part, height=0.6)
            starts = [start + length for start, length in zip(starts, lengths, strict=True)]
        for height, total in enumerate(starts):
            axes.text(total + max(starts) * 0.01, height, f"{total:.0f}", va="center", color=look.ink)
        axes.invert_yaxis()
        axes.set_xlim(0, max(starts) * 1.12)
        axes.set_xlabel(unit)
        axes.grid(axis="x", color=look.faint, linewidth=0.5)
        add_legend(axes, look, len(parts))
        return to_svg(figure)

    return draw


def lines(series: Mapping[str, Mapping[int, Spread]], unit: str, along: str) -> Draw:
    """A line for each series over a logarithmic axis, with the spread of each point.

    Args:
        series: by series and then by the place on the axis.
        unit: of the heights.
        along: what the axis is.
    """

    def draw(look: Look) -> str:
        figure, axes = new_axes(look, 2.8)
        for (label, points), colour, marker in zip(series.items(), look.colours, _MARKERS, strict=False):
            medians = [point.median for point in points.values()]
            below = [point.median - point.least for point in points.values()]
            above = [point.most - point.median for point in points.values()]
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
        axes.set_xlabel(along)
        axes.set_ylabel(unit)
        axes.grid(axis="y", color=look.faint, linewidth=0.5)
        add_legend(axes, look, len(series))
        return to_svg(figure)

    return draw


def _plain(value: float, _: int | None = None) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"
