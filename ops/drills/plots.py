"""The requests of a drill over time."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes

from ops.common.plots import Draw, Variant, add_legend, new_rows, set_logarithmic, set_seconds, to_svg

_NUMBER_INCHES: Final = 0.17  # width of a mark's number
_MARGIN_INCHES: Final = 0.7  # of a picture, next to its axes


def over_time(drill: Mapping[str, Any]) -> Draw:
    """Draws how many requests were served, refused and failed, and their latency, by when they ended.

    Args:
        drill: its summary. Each mark becomes a numbered line.
    """
    bins, marks = drill["over_time"], [at for at, _ in drill["marks"]]
    width = bins["bin_seconds"]
    times = [width * (number + 0.5) for number in range(len(bins["served"]))]
    end = max([width * len(times), *marks])

    def draw(variant: Variant) -> str:
        figure, (counts, waits) = new_rows(variant, 4, 2)
        _count(counts, variant, times, bins)
        _wait(waits, variant, times, bins)
        for axes in (counts, waits):
            axes.grid(axis="y", color=variant.faint, linewidth=0.5)
            for at in marks:
                axes.axvline(at, color=variant.ink, linewidth=0.8, linestyle=":")
        _number(counts, variant, marks, end)
        set_seconds(waits, end)
        add_legend(counts, variant, 2 if variant.narrow else 3)
        return to_svg(figure)

    return draw


def _count(axes: Axes, variant: Variant, times: Sequence[float], bins: Mapping[str, Any]) -> None:
    for kind, colour in zip(("served", "refused"), variant.colours, strict=False):
        axes.fill_between(times, bins[kind], step="mid", color=colour, alpha=0.25, linewidth=0)
        axes.step(times, bins[kind], where="mid", color=colour, linewidth=1.2, label=kind)
    # Failures are points, so that a single one is visible.
    failed = {time: count for time, count in zip(times, bins["failed"], strict=True) if count}
    axes.plot(
        list(failed), list(failed.values()), "D", color=variant.colours[2], markersize=4, label="failed", zorder=3
    )
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))
    axes.set_ylabel(f"requests per {1000 * bins['bin_seconds']:g} ms")


def _wait(axes: Axes, variant: Variant, times: Sequence[float], bins: Mapping[str, Any]) -> None:
    for name, label, colour in (("max_ms", "longest", variant.colours[1]), ("p50_ms", "median", variant.colours[0])):
        heights = [float("nan") if value is None else value for value in bins[name]]
        axes.plot(times, heights, ".-", color=colour, linewidth=1.2, markersize=3, label=label)
    set_logarithmic(axes)
    axes.set_ylabel("latency, ms")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0, labelcolor=variant.ink)


def _number(axes: Axes, variant: Variant, marks: Sequence[float], end: float) -> None:
    """Numbers the marks above the picture, in enough rows that no two numbers overlap."""
    room = end * _NUMBER_INCHES / (variant.width - _MARGIN_INCHES)
    rows: list[float] = []  # where the last number of each ends
    for number, at in enumerate(marks, 1):
        row = next((row for row, until in enumerate(rows) if until <= at), len(rows))
        rows[row : row + 1] = [at + room]
        axes.annotate(
            str(number),
            (at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2 + 9 * row),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=variant.ink,
        )
