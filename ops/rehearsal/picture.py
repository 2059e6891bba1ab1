"""A picture of a rehearsal's steps: when each began, and how long it took."""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.axes import Axes

from ops.common.plots import Draw, Variant, add_legend, new_axes, set_seconds, to_svg
from ops.rehearsal.steps import KINDS

_ROW_INCHES: Final = 0.19


def of_steps(steps: Sequence[dict[str, Any]]) -> Draw:
    """Draws a bar for each step. In the narrow form, its name is above it.

    Args:
        steps: each with its name, its kind, the second in which it began, and its seconds, in their order.
    """
    end = max([1, *(step["started"] + step["seconds"] for step in steps)])

    def draw(variant: Variant) -> str:
        row = _ROW_INCHES * (2 if variant.narrow else 1)
        figure, axes = new_axes(variant, 1 + row * len(steps))
        for place, step in enumerate(steps):
            colour = variant.colours[KINDS.index(step["kind"])]
            axes.barh(place, step["seconds"], left=step["started"], color=colour, height=0.4 if variant.narrow else 0.8)
            _name(axes, variant, place, step)
        for kind, colour in zip(KINDS, variant.colours, strict=True):
            axes.barh(0, 0, color=colour, label=kind)
        names = [] if variant.narrow else [step["name"] for step in steps]
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(steps) - 0.5, -0.5 - (0.5 if variant.narrow else 0))
        set_seconds(axes, end if variant.narrow else 1.06 * end)
        axes.grid(axis="x", color=variant.faint, linewidth=0.5)
        add_legend(axes, variant, len(KINDS))
        return to_svg(figure)

    return draw


def _name(axes: Axes, variant: Variant, place: int, step: dict[str, Any]) -> None:
    seconds = f"{step['seconds']:.0f} s"
    if variant.narrow:
        axes.text(0, place - 0.25, f" {step['name']}, {seconds}", va="bottom", fontsize=7.5)
    else:
        at = (step["started"] + step["seconds"], place)
        axes.annotate(seconds, at, (4, 0), textcoords="offset points", va="center", fontsize=8)
