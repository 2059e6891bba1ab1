// What happened in the time range: alarms that fired, and deployments. As a list, and as bands and marks on charts.

import { h } from "./dom.js";
import { clock, duration, plural } from "./format.js";
import { SEVERITIES } from "./head.js";
import { changed, link } from "./route.js";

const MARGIN_SECONDS = 60; // around a firing, when its time is shown
const MAX_RANGE_SECONDS = 86400; // that the server accepts

/** The list. The time is that of the server. */
export function happened({ firings, deployments }, time) {
  const all = [...firings.map((one) => [one.start, firing(one, time)]), ...deployments.map((one) => [one.at, deployment(one)])];
  const rows = all.sort(([one], [other]) => other - one).map(([, row]) => row); // the server has pages first
  const legend = h("ul", { class: "legend", "aria-label": "Marks on the charts" },
    [["page", "a page fires"], ["ticket", "a ticket fires"], ["deployment", "a deployment"]].map(([kind, label]) => h("li", {}, h("i", { class: `mark ${kind}` }), label)));
  return [h("header", {}, h("h2", { id: "history" }, "History"), legend),
    rows.length ? h("ul", { class: "events" }, rows) : h("p", { class: "hint" }, "No alarm fired in this time, and nothing was deployed.")];
}

function firing(one, time) {
  const until = one.end ?? time;
  const failed = one.failed ? plural(one.failed, "request") : "no request";
  const from = Math.floor(Math.max(one.since, until - MAX_RANGE_SECONDS + 2 * MARGIN_SECONDS));
  const range = { from: from - MARGIN_SECONDS, to: Math.ceil(until) + MARGIN_SECONDS };
  return h("li", {},
    h("span", { class: `severity ${one.severity}` }, SEVERITIES[one.severity]),
    h("strong", {}, one.name),
    h("span", { class: "time" }, one.end === null ? `${clock(one.start)} – now` : `${clock(one.start)} – ${clock(one.end)}, ${duration(one.end - one.start)}`),
    h("span", { class: "row" },
      one.failed > 0 ? h("a", { class: "failed", "data-range": "", href: link("logs", { query: "faults", from, to: Math.ceil(until) }) }, `${failed} failed`) : h("span", {}, `${failed} failed`),
      h("a", { "data-range": "", href: changed(range) }, "Show this time"),
      h("a", { href: changed({ runbook: one.name }) }, "Runbook")),
    one.end !== null && h("p", {}, one.means, " ", h("span", { class: "reason" }, one.reason))); // the top of the page says it of the others
}

const deployment = ({ at, build }) =>
  h("li", {}, h("span", { class: "severity deployment" }, "Deployment"), h("strong", {}, build), h("span", { class: "time" }, clock(at)));

/** Plotly's shapes: a band while an alarm fires, those of pages over those of tickets, and a line at each deployment. */
export function marks({ firings, deployments }, end, css) {
  const vertical = { yref: "paper", y0: 0, y1: 1, layer: "below" };
  const bands = [["ticket", "--unsure-ground"], ["page", "--bad-ground"]].flatMap(([severity, color]) =>
    merged(firings.filter((one) => one.severity === severity).map((one) => [one.start, one.end ?? end])).map(([x0, x1]) =>
      ({ ...vertical, type: "rect", x0: x0 * 1000, x1: x1 * 1000, fillcolor: css(color), line: { width: 0 } })));
  const lines = deployments.map(({ at }) =>
    ({ ...vertical, type: "line", x0: at * 1000, x1: at * 1000, line: { color: css("--accent"), width: 1.5, dash: "dot" } }));
  return [...bands, ...lines];
}

/** Intervals without their overlaps. */
function merged(intervals) {
  const found = [];
  for (const [start, end] of intervals.sort(([one], [other]) => one - other)) {
    const last = found.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else found.push([start, end]);
  }
  return found;
}
