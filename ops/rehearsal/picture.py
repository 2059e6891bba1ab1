"""A picture of a rehearsal's steps: when each began, and how long it took."""

from collections.abc import Sequence
from typing import Any, Final

from ops.common.plots import Variant, add_legend, new_axes, to_svg
from ops.rehearsal.steps import KINDS

_LINE_INCHES: Final = 0.19


def draw(steps: Sequence[dict[str, Any]]) -> str:
    """Returns the picture as SVG.

    Args:
        steps: each with its name, its kind, the second in which it began, and its seconds, in their order.
    """
    variant = Variant(dark=False, narrow=False)
    figure, axes = new_axes(variant, 1 + _LINE_INCHES * len(steps))
    ends = [step["started"] + step["seconds"] for step in steps]
    for row, (step, end) in enumerate(zip(steps, ends, strict=True)):
        seconds = step["seconds"]
        axes.barh(row, seconds, left=step["started"], color=variant.colours[KINDS.index(step["kind"])])
        axes.annotate(f"{seconds:.0f} s", (end, row), (4, 0), textcoords="offset points", va="center", fontsize=7)
    for kind, colour in zip(KINDS, variant.colours, strict=True):
        axes.barh(0, 0, color=colour, label=kind)
    axes.set_yticks(range(len(steps)), [step["name"] for step in steps], fontsize=8)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_xlim(0, 1.06 * max(1, *ends))
    axes.set_xlabel("seconds since the start")
    add_legend(axes, variant, len(KINDS))
    return to_svg(figure)
