"""Reports bills: a table for the terminal and for docs/costs.md, a plot, and JSON."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from matplotlib.ticker import FuncFormatter

from ops.common import console
from ops.common.plots import VARIANTS, Variant, add_legend, new_axes, set_logarithmic, to_svg
from ops.cost.deployment import PRICES
from ops.cost.model import TELEMETRY, Bill

Bills = Mapping[str, Sequence[Bill]]  # by design, at rising rates

RATES: Final = (1, 10, 100, 1_000, 10_000)
PLOTTED: Final = [round(10 ** (step / 8), 2) for step in range(33)]
TITLES: Final = {"every-line": "every line", "this": "this service", "off-the-shelf": "off the shelf"}

_STYLES: Final = {"every-line": "--", "this": "-", "off-the-shelf": "-."}
_TABLE: Final = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)


def rows(bills: Bills) -> list[tuple[str, ...]]:
    """The parts of this service's bills, and what telemetry costs in each design. The first row has the rates."""
    ours = bills["this"]
    infrastructure = [part for part in ours[0].parts if part not in TELEMETRY]
    return [
        ("requests per second", *(f"{bill.rate:,.0f}" for bill in ours)),
        *((part, *(_dollars(bill.parts[part]) for bill in ours)) for part in infrastructure),
        *((f"{part} *", *(_dollars(bill.parts[part]) for bill in ours)) for part in TELEMETRY),
        ("all of it", *(_dollars(bill.total) for bill in ours)),
        *((f"telemetry (*): {TITLES[name]}", *(_dollars(bill.telemetry) for bill in bills[name])) for name in TITLES),
        ("pods, nodes", *(f"{bill.pods}, {bill.nodes}" for bill in ours)),
    ]


def _dollars(dollars: float) -> str:
    return f"{dollars:,.0f}" if dollars >= 10 else f"{dollars:.1f}"


def show(bills: Bills) -> None:
    """Prints the table."""
    (first, *rates), *others = rows(bills)
    title = f"Dollars a month, {PRICES['region']}, prices of {PRICES['date']}"
    console.out.print(console.table(title, [first, *map(console.right, rates)], others))


def update(page: Path, bills: Bills) -> None:
    """Replaces the table in a page."""
    head, *others = ("| " + " | ".join(row) + " |" for row in rows(bills))
    table = "\n".join([head, "|---" + "|--:" * len(RATES) + "|", *others, ""])
    page.write_text(_TABLE.sub(lambda found: found[1] + table + found[2], page.read_text()))


def write(bills: Bills, plotted: Bills, folder: Path) -> None:
    """Writes costs.json, and the plot as costs-light.svg and costs-dark.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {name: [{**asdict(bill), "telemetry": bill.telemetry} for bill in each] for name, each in bills.items()}
    (folder / "costs.json").write_text(json.dumps(document, indent=1) + "\n")
    for variant in VARIANTS:
        if not variant.narrow:
            (folder / f"costs-{'dark' if variant.dark else 'light'}.svg").write_text(draw(plotted, variant))


def draw(bills: Bills, variant: Variant) -> str:
    """Draws what telemetry costs in each design, and all the rest of this service's bill."""
    figure, axes = new_axes(variant, 3.6)
    for (name, title), colour in zip(TITLES.items(), variant.colours, strict=True):
        served = [bill for bill in bills[name] if bill.is_served]
        rates, dollars = [bill.rate for bill in served], [bill.telemetry for bill in served]
        axes.plot(rates, dollars, _STYLES[name], color=colour, linewidth=1.8, label=f"telemetry: {title}")
    rest = [bill.total - bill.telemetry for bill in bills["this"]]
    axes.plot(PLOTTED, rest, ":", color=variant.ink, linewidth=1.4, label="everything else: this service")
    axes.set_xscale("log")
    set_logarithmic(axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("requests per second, all month")
    axes.set_ylabel("dollars a month")
    axes.grid(axis="y", color=variant.faint, linewidth=0.5)
    add_legend(axes, variant, 2)
    return to_svg(figure)
