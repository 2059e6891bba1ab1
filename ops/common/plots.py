"""Draws plots as SVG in four variants (light and dark, wide and narrow), for pages that load no other files."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter


@dataclass(frozen=True)
class Variant:
    """One form of a plot.

    Attributes:
        dark: for a dark theme.
        narrow: for the screen of a phone.
    """

    dark: bool
    narrow: bool

    @property
    def ink(self) -> str:
        """The colour of text."""
        return "#e6e6e6" if self.dark else "#1f2328"

    @property
    def faint(self) -> str:
        """The colour of grid lines."""
        return "#3d444d" if self.dark else "#d1d9e0"

    @property
    def axis(self) -> str:
        """The colour of axes and their ticks."""
        return "#9198a1" if self.dark else "#818b98"

    @property
    def colours(self) -> Sequence[str]:
        """One for each series, from the palette of Okabe and Ito, which colour-blind people can distinguish."""
        return ("#56b4e9", "#e69f00", "#cc79a7") if self.dark else ("#0072b2", "#d55e00", "#8f4f77")

    @property
    def width(self) -> float:
        """In inches."""
        return 3.7 if self.narrow else 10


VARIANTS: Final = [Variant(dark, narrow) for dark in (False, True) for narrow in (False, True)]
Draw: TypeAlias = Callable[[Variant], str]
"""Draws one variant of a plot, as SVG."""


def new_axes(variant: Variant, height: float) -> tuple[Figure, Axes]:
    """An empty plot, `height` inches high."""
    figure, (axes,) = new_rows(variant, height, 1)
    return figure, axes


def new_rows(variant: Variant, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """Empty plots in rows above one shared x-axis, `height` inches high in all."""
    style: Any = {
        "svg.fonttype": "none",  # keeps text as text: it can be searched, and the browser's own font is used
        "svg.hashsalt": "bench",  # the same figures give the same file
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 9 if variant.narrow else 10,  # the wide form is shown smaller on a small window
        "text.color": variant.ink,
        "axes.labelcolor": variant.ink,
        "xtick.color": variant.ink,
        "ytick.color": variant.ink,
    }
    mpl.rcParams.update(style)
    figure = Figure(figsize=(variant.width, height), layout="constrained")
    figure.patch.set_alpha(0)
    rows: list[Axes] = list(figure.subplots(count, sharex=True, squeeze=False)[:, 0])
    for axes in rows:
        axes.patch.set_alpha(0)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(variant.axis)
        axes.tick_params(length=4, color=variant.axis)
        axes.tick_params(length=2, color=variant.axis, which="minor")
    return figure, rows


def set_seconds(axes: Axes, end: float) -> None:
    """Makes the x-axis one of seconds, from 0 to `end`."""
    axes.set_xlim(0, end)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("seconds since the start")


def set_logarithmic(axes: Axes) -> None:
    """Makes the y-axis logarithmic, so that one stall does not flatten the rest. Call it after the data is drawn."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom / 2, top * 2)  # a wider range, so that at least one grid line has a label
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top / bottom < 100 else (1,)))  # labels must not overlap


def add_legend(axes: Axes, variant: Variant, columns: int) -> None:
    """Adds a legend above the plot."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left",
        ncols=1 if variant.narrow and columns > 2 else columns,
        frameon=False,
        labelcolor=variant.ink,
    )


def to_svg(figure: Figure) -> str:
    """The plot as SVG; the same plot gives the same text."""
    output = io.StringIO()
    figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
    return output.getvalue()


def sources(draw: Draw) -> Mapping[str, str]:
    """Data URLs of all variants by media query; the last query matches everything."""
    queries = {
        (True, True): "(prefers-color-scheme: dark) and (max-width: 40rem)",
        (True, False): "(prefers-color-scheme: dark)",
        (False, True): "(max-width: 40rem)",
        (False, False): "all",
    }
    return {query: _data_url(draw(Variant(dark, narrow))) for (dark, narrow), query in queries.items()}


def _data_url(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
