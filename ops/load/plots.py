"""Plots a run over its seconds."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from matplotlib.ticker import MaxNLocator

from ops.common.plots import Draw, Variant, add_legend, new_axes, set_logarithmic, set_seconds, to_svg
from ops.load.measurements import Measurements, percentile
from ops.load.scenarios import ENDPOINTS
from ops.load.verdict import OBJECTIVES

_STYLES: Final = ("-", "--", ":")  # so that series differ in more than colour
Series: TypeAlias = Mapping[str, Sequence[float | None]]


def pictures(measurements: Measurements) -> dict[str, Draw]:
    """All plots of a run, by name."""
    seconds = measurements.seconds
    endpoints = [name for name in ENDPOINTS if any(name in second.latency for second in seconds)]

    def latency(percent: float) -> dict[str, list[float | None]]:
        return {name: [percentile(each.latency.get(name, {}), percent) for each in seconds] for name in endpoints}

    return {
        "rate": over_time(
            {
                "scheduled": [each.requests for each in seconds],
                "succeeded": [each.requests - each.failed for each in seconds],
            },
            "requests per second",
        ),
        "p50": over_time(latency(50), "p50, ms", is_log=True),
        "p99": over_time(latency(99), "p99, ms", is_log=True),
        "failed": over_time({"failed": [each.failed for each in seconds]}, "requests per second"),
        "late": over_time(
            {"sent late": [percentile(each.late, 99) for each in seconds]},
            "p99, ms",
            limit=OBJECTIVES["generator"]["late_p99_ms"],
        ),
        "cpu": over_time(
            {"the busiest process": [100 * each.cpu if each.cpu else None for each in seconds]},
            "% of a core",
            limit=100 * OBJECTIVES["generator"]["cpu_share"],
        ),
    }


def over_time(series: Series, unit: str, *, is_log: bool = False, limit: float | None = None) -> Draw:
    """Draws a line for each series over the seconds of the run, with a gap where a value is None.

    Args:
        series: values by name, one per second.
        unit: of the values.
        is_log: whether the y-axis is logarithmic, so that one stall does not flatten the rest.
        limit: a bound of the values, drawn as a line.
    """

    def draw(variant: Variant) -> str:
        figure, axes = new_axes(variant, 2.4)
        for (label, values), colour, style in zip(series.items(), variant.colours, _STYLES, strict=False):
            heights = [float("nan") if value is None else value for value in values]
            places = [number + 0.5 for number in range(len(heights))]
            axes.plot(places, heights, style, color=colour, linewidth=1.4, marker=".", markersize=3, label=label)
        if limit is not None:
            axes.axhline(limit, color=variant.ink, linewidth=0.8, linestyle=":", label=f"limit: {limit:g}")
        if is_log:
            set_logarithmic(axes)
        else:
            axes.set_ylim(0, max(axes.get_ylim()[1], 1))  # a series of zeros lies at the bottom
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        set_seconds(axes, max(map(len, series.values()), default=1))
        axes.set_ylabel(unit)
        axes.grid(axis="y", color=variant.faint, linewidth=0.5)
        add_legend(axes, variant, 3)
        return to_svg(figure)

    return draw
