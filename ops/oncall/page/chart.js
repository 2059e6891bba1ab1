// Charts, drawn by Plotly.

import { quantity } from "./format.js";
import { marks } from "./history.js";

const DEFAULT_COLORS = 8; // in the style sheet

const known = { theme: null, values: {} };

/** A variable of the style sheet. It is read once for a theme, since the browser may compute all styles again for it. */
function css(name) {
  const root = document.documentElement;
  if (known.theme !== root.dataset.theme) Object.assign(known, { theme: root.dataset.theme, values: {} });
  return (known.values[name] ??= getComputedStyle(root).getPropertyValue(name).trim());
}

export const colorOf = (line, number) => line.color || css(`--line-${(number % DEFAULT_COLORS) + 1}`);

const MIN_SECONDS = 10; // of a range that the user selects, which is the time between two points
// A finger scrolls the page: with it, a range is chosen by the form in the header.
const isMouse = !matchMedia("(pointer: coarse)").matches;

/** Draws or redraws a chart in a size, unless the user is about to select a range on it. */
export function draw(element, panel, { start, end, history }, [width, height]) {
  if (element.matches(":active")) return;
  const traces = panel.lines.map((line, number) => trace(panel, line, number));
  const config = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };
  Plotly.react(element, traces, layout(panel, start, end, history, width, height), config);
}

/** Calls `select` with the range over which the user drags the mouse, and `pick` with the time of a point that is clicked. */
export function observe(element, { select, pick }) {
  element.on("plotly_relayout", (change) => {
    if (!("xaxis.range[0]" in change)) return;
    const [from, to] = [change["xaxis.range[0]"], change["xaxis.range[1]"]].map(seconds);
    select(Math.floor(from), Math.ceil(Math.max(to, from + MIN_SECONDS)));
  });
  element.on("plotly_click", ({ points }) => pick(Math.round(seconds(points[0].x))));
}

/** Plotly's times are milliseconds, or texts in UTC. */
const seconds = (time) => (typeof time === "number" ? time : Date.parse(`${time.replace(" ", "T")}${time.includes(":") ? "Z" : ""}`)) / 1000;

function trace(panel, line, number) {
  const color = colorOf(line, number);
  const alone = line.values.filter((value) => value !== null).length < 3;
  return {
    type: "scatter",
    mode: alone ? "markers" : "lines",
    name: escaped(line.label),
    x: panel.times,
    y: line.values,
    text: line.values.map((value) => quantity(value, line.unit)),
    hovertemplate: "%{text}",
    line: { color, width: 1.5, shape: "linear" },
    marker: { color, size: 5 },
    yaxis: line.axis === "right" ? "y2" : "y",
    ...(panel.stacked && { stackgroup: line.axis, fillcolor: `${hex(color)}55` }),
  };
}

const hex = (color) => (/^#[0-9a-f]{6}$/i.test(color) ? color : css("--line-1"));

function layout(panel, start, end, history, width, height) {
  const axes = { left: axis(panel, "left"), right: axis(panel, "right") };
  return {
    width,
    height,
    margin: { l: 52, r: axes.right ? 52 : 10, t: 6, b: 24 },
    paper_bgcolor: css("--paper"),
    plot_bgcolor: css("--paper"),
    font: { family: css("--font"), size: 11, color: css("--muted") },
    showlegend: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line"), font: { color: css("--ink"), size: 12 } },
    dragmode: isMouse && "zoom",
    xaxis: { type: "date", range: [start * 1000, end * 1000], fixedrange: !isMouse, gridcolor: css("--grid"), linecolor: css("--line"), zeroline: false, nticks: Math.max(2, Math.min(6, Math.floor(width / 80))), tickangle: 0, tickformat: end - start < 300 ? "%H:%M:%S" : "%H:%M", hoverformat: "%H:%M:%S UTC", spikethickness: 1, spikecolor: css("--muted"), spikedash: "dot" },
    yaxis: axes.left ?? { visible: false },
    ...(axes.right && { yaxis2: { ...axes.right, overlaying: "y", side: "right", showgrid: false } }),
    shapes: [...marks(history, end, css), ...limits(panel, axes).map(({ limit, axis: name }) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, yref: name, y0: limit.value, y1: limit.value,
      line: { color: limit.color || css("--bad"), width: 1, dash: "dash" },
    }))],
    annotations: labelled(limits(panel, axes), axes, height).map(({ limit, axis: name }) => ({
      xref: "paper", x: 1, xanchor: "right", yref: name, y: limit.value, yanchor: "bottom", showarrow: false,
      text: escaped(limit.label), font: { size: 10.5, color: css("--muted") },
    })),
  };
}

/** An axis with room for its lines and limits; null where it has no line. */
function axis(panel, side) {
  const lines = panel.lines.filter((line) => line.axis === side);
  if (!lines.length) return null;
  const given = panel.axes[side] ?? {};
  const limits = panel.limits.filter((limit) => (limit.yAxis ?? "left") === side).map((limit) => limit.value);
  const high = Math.max(given.max ?? -Infinity, tallest(panel, lines), ...limits.filter((limit) => limit > 0), 0);
  const low = given.min ?? Math.min(0, ...lines.flatMap((line) => line.values.filter((value) => value !== null)));
  const top = given.max ?? (high > low ? low + (high - low) * 1.15 : low + 1);
  return { range: [low, top], fixedrange: true, gridcolor: css("--grid"), zeroline: false, ...ticks(low, top, lines[0].unit) };
}

function tallest(panel, lines) {
  if (!panel.stacked) return Math.max(-Infinity, ...lines.flatMap((line) => line.values.filter((value) => value !== null)));
  return Math.max(...panel.times.map((_, at) => lines.reduce((sum, line) => sum + (line.values[at] ?? 0), 0)));
}

/** The ticks of an axis, in round steps of the displayed unit. */
function ticks(low, high, unit = "") {
  const base = unit.startsWith("Bytes") ? 1024 ** Math.floor(Math.log(Math.max(high, 1)) / Math.log(1024)) : 1;
  const rough = (high - low) / base / 4;
  const scale = 10 ** Math.floor(Math.log10(rough));
  const step = base * scale * [1, 2, 2.5, 5, 10].find((factor) => factor * scale >= rough * 0.999);
  const values = [];
  for (let at = Math.ceil(low / step) * step; at <= high * 1.0001; at += step) values.push(Number(at.toPrecision(12)));
  return { tickvals: values, ticktext: values.map((value) => quantity(value, unit)) };
}

function limits(panel, axes) {
  return panel.limits
    .map((limit) => ({ limit, axis: (limit.yAxis ?? "left") === "right" ? "y2" : "y" }))
    .filter(({ axis: name }) => (name === "y" ? axes.left : axes.right));
}

const LABEL_PIXELS = 14;

/** The limits whose labels have room: of two labels that would overlap, the higher one. */
function labelled(all, axes, height) {
  let above = Infinity;
  return all.filter(({ limit }) => limit.label).sort((one, other) => other.limit.value - one.limit.value).filter(({ limit, axis: name }) => {
    const [low, high] = (name === "y" ? axes.left : axes.right).range;
    const at = (height * (limit.value - low)) / (high - low);
    if (above - at < LABEL_PIXELS) return false;
    above = at;
    return true;
  });
}

// Plotly renders some HTML in labels; these labels have none.
const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
