"""Pictures of measurements: SVG in light and dark, wide and narrow, for pages that need nothing else."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter


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
Draw: TypeAlias = Callable[[Look], str]


def new_axes(look: Look, height: float) -> tuple[Figure, Axes]:
    """An empty picture, `height` inches high."""
    figure, (axes,) = new_rows(look, height, 1)
    return figure, axes


def new_rows(look: Look, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """An empty picture of several rows over the same axis, `height` inches high in all."""
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
    rows: list[Axes] = list(figure.subplots(count, sharex=True, squeeze=False)[:, 0])
    for axes in rows:
        axes.patch.set_alpha(0)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0, which="both")
    return figure, rows


def set_logarithmic(axes: Axes) -> None:
    """Makes the heights of what is drawn already logarithmic, so that a stall does not flatten all the rest."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    least, most = axes.get_ylim()
    axes.set_ylim(least / 2, most * 2)  # never so close together that no line has a number,
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most / least < 100 else (1,)))  # nor that two overlap


def add_legend(axes: Axes, look: Look, columns: int) -> None:
    """Names the series above the picture."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left",
        ncols=1 if look.narrow and columns > 2 else columns,
        frameon=False,
        labelcolor=look.ink,
    )


def to_svg(figure: Figure) -> str:
    """The picture as text; the same picture is the same text."""
    output = io.StringIO()
    figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
    return output.getvalue()


def sources(draw: Draw) -> Mapping[str, str]:
    """The picture for each media query; the last one is for all the rest."""
    queries = {
        (True, True): "(prefers-color-scheme: dark) and (max-width: 40rem)",
        (True, False): "(prefers-color-scheme: dark)",
        (False, True): "(max-width: 40rem)",
        (False, False): "all",
    }
    return {query: _data_url(draw(Look(dark, narrow))) for (dark, narrow), query in queries.items()}


def _data_url(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
