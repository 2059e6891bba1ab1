"""Results as pictures: SVG, in light and dark, wide and narrow."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ops.bench.results import Spread


@dataclass(frozen=True)
class Look:
    """How a picture is drawn.

    Attributes:
        dark: light on dark.
        narrow: for a telephone.
    """

    dark: bool
    narrow: bool

    @property
    def ink(self) -> str:
        """The colour of words and lines."""
        return "#e6e6e6" if self.dark else "#1f2328"

    @property
    def faint(self) -> str:
        """The colour of what stays behind."""
        return "#3d444d" if self.dark else "#d1d9e0"

    @property
    def colours(self) -> Sequence[str]:
        """One for each series; they differ for the colour-blind too (Okabe and Ito)."""
        return ("#56b4e9", "#e69f00", "#cc79a7") if self.dark else ("#0072b2", "#d55e00", "#8f4f77")

    @property
    def width(self) -> float:
        """Inches."""
        return 3.7 if self.narrow else 7.6


LOOKS: Final = [Look(dark, narrow) for dark in (False, True) for narrow in (False, True)]

_MARKERS: Final = "os^"


def rows_of_dots(series: Mapping[str, Mapping[str, Spread]], unit: str, emphasised: str) -> Callable[[Look], str]:
    """A row for each name, with a dot and its spread for each series, on a logarithmic axis.

    Args:
        series: by series and then by name.
        unit: of the axis.
        emphasised: the name that is set in bold.
    """
    names = list(dict.fromkeys(name for points in series.values() for name in points))

    def draw(look: Look) -> str:
        figure, axes = _axes(look, 0.9 + 0.34 * len(names))
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
            _legend(axes, look, len(series))
        return _svg(figure)

    return draw


def stacked_bars(bars: Mapping[str, Mapping[str, float]], unit: str) -> Callable[[Look], str]:
    """A bar for each name, made of parts that add up.

    Args:
        bars: by name and then by part.
        unit: of the axis.
    """
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))

    def draw(look: Look) -> str:
        figure, axes = _axes(look, 1.0 + 0.42 * len(bars))
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
        _legend(axes, look, len(parts))
        return _svg(figure)

    return draw


def lines(series: Mapping[str, Mapping[int, Spread]], unit: str, along: str) -> Callable[[Look], str]:
    """A line for each series over a logarithmic axis, with the spread of each point.

    Args:
        series: by series and then by the place on the axis.
        unit: of the heights.
        along: what the axis is.
    """

    def draw(look: Look) -> str:
        figure, axes = _axes(look, 2.8)
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
        _legend(axes, look, len(series))
        return _svg(figure)

    return draw


def _axes(look: Look, height: float) -> tuple[Figure, Axes]:
    style: Any = {
        "svg.fonttype": "none",  # words stay words: they can be searched, and are set in the reader's own font
        "svg.hashsalt": "bench",  # the same numbers give the same file
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 9,
        "text.color": look.ink,
        "axes.labelcolor": look.ink,
        "xtick.color": look.ink,
        "ytick.color": look.ink,
    }
    mpl.rcParams.update(style)
    figure = Figure(figsize=(look.width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, which="both")
    return figure, axes


def _legend(axes: Axes, look: Look, columns: int) -> None:
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left",
        ncols=1 if look.narrow and columns > 2 else columns,
        frameon=False,
        labelcolor=look.ink,
    )


def _plain(value: float, _: int | None = None) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _svg(figure: Figure) -> str:
    output = io.StringIO()
    figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
    return output.getvalue()
