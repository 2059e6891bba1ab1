// A dashboard: its panels in CloudWatch's grid of 24 columns, updated with each response.

import { request } from "./api.js";
import { colorOf, draw, observe } from "./chart.js";
import { h, rendered, show } from "./dom.js";
import { clock, quantity } from "./format.js";
import { startHint, stateOf } from "./head.js";
import { happened } from "./history.js";
import { scanned } from "./logs.js";
import { table } from "./table.js";
import { changed, link } from "./route.js";

export class Dashboard {
  constructor(main, name) {
    this.main = main;
    this.name = name;
    this.panels = [];
    this.latest = null;
    this.visible = new Set();
    // Only visible charts are drawn: a long dashboard costs no more than a short one.
    this.observer = new IntersectionObserver((entries) => this.toggle(entries));
    this.resized = new ResizeObserver((entries) => this.drawCharts(entries.map(({ target }) => target.closest(".panel"))));
  }

  async refresh(range) {
    const view = await request("/api/view", { dashboard: this.name, ...range });
    return { head: view.head, draw: () => this.update(view) };
  }

  redraw() {
    if (this.latest) this.update(this.latest);
  }

  update(view) {
    this.latest = view;
    const hint = startHint(view.head, view.start);
    if (hint) {
      this.close();
      this.main.replaceChildren(h("p", { class: "panel nothing" }, h("span", {}, hint)));
      return;
    }
    if (this.panels.length !== view.panels.length) this.build(view);
    show(this.history, view.history, () => happened(view.history, view.head.time));
    this.panels.forEach((element, number) => {
      element.data = view.panels[number];
      fill(element, view);
    });
    this.drawCharts([...this.visible]);
  }

  build(view) {
    this.panels = view.panels.map((panel) => frame(panel));
    this.history = h("section", { class: "panel history", "aria-labelledby": "history" });
    const note = view.note && h("p", { class: "note" }, view.note);
    this.main.replaceChildren(...[this.history, note].filter(Boolean), h("div", { class: "grid" }, this.panels));
    for (const element of this.panels) {
      this.observer.observe(element);
      this.resized.observe(element.querySelector(".content"));
    }
  }

  toggle(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.visible.add(target);
      else this.visible.delete(target);
    }
    this.drawCharts(entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target));
  }

  /** Draws the charts of panels. All sizes are read before, because after each drawing the browser computes them again. */
  drawCharts(panels) {
    const charts = panels.map((element) => [element, element.querySelector(".chart")]).filter(([, chart]) => chart?.clientWidth);
    const sizes = charts.map(([, chart]) => [chart.clientWidth, chart.clientHeight]);
    charts.forEach(([element, chart], number) => {
      draw(chart, element.data, this.latest, sizes[number]);
      if (chart.on && chart.dataset.observed === undefined) {
        chart.dataset.observed = "";
        observe(chart, { select: (from, to) => (location.hash = changed({ from, to })), pick: (time) => showMoment(element, time) });
      }
    });
  }

  close() {
    this.observer.disconnect();
    this.resized.disconnect();
    for (const chart of this.main.querySelectorAll(".chart")) Plotly.purge(chart);
    this.panels = [];
    this.visible.clear();
  }
}

const MOMENT_SECONDS = 60; // whose lines and traces a point leads to

let frames = 0;

function frame(panel) {
  const { x, y, width, height } = panel.place;
  const id = `panel-${(frames += 1)}`;
  return h("div", {
    class: `panel ${panel.kind}`,
    role: "group", // not a section: landmarks need different titles
    "aria-labelledby": panel.title ? id : undefined,
    style: { "--column": x + 1, "--columns": width, "--row": y + 1, "--rows": height },
  }, panel.title && h("h2", { id }, panel.title), panel.kind === "chart" && behind(panel.title), h("div", { class: "content" }));
}

/** Links to the lines and traces behind a chart: those of the range, or those around a moment. */
function behind(title, moment) {
  const range = moment && { from: moment - MOMENT_SECONDS / 2, to: moment + MOMENT_SECONDS / 2 };
  const to = (page, name) => h("a", { href: link(page, range), "data-range": range && "", "aria-label": `${name} of ${title}` }, name);
  return h("nav", { class: "behind", "aria-label": `Behind ${title}` },
    moment && h("span", {}, `around ${clock(moment)}`), to("logs", "Lines"), to("traces", "Traces"));
}

function showMoment(element, moment) {
  const links = behind(element.data.title, moment);
  element.querySelector(".behind").replaceWith(links);
  links.querySelector("a").focus({ preventScroll: true });
}

const FILL = { chart, numbers, gauge: gauges, alarms, table: rows, text, unknown };

function fill(element, view) {
  const { data } = element;
  FILL[data.kind](element.querySelector(".content"), data, view);
}

const last = (line) => line.values.findLast((value) => value !== null) ?? null;

function chart(content, panel) {
  const hasData = panel.lines.some((line) => last(line) !== null);
  show(content, hasData, () => (hasData ? [h("div", { class: "chart", role: "img" }), h("ul", { class: "legend" })] : nothing(panel)));
  if (!hasData) return;
  const latest = panel.lines.map((line, number) => [line.label, quantity(last(line), line.unit), colorOf(line, number)]);
  content.firstChild.setAttribute("aria-label", `${panel.title}, latest: ${latest.map(([label, value]) => `${label} ${value}`).join(", ")}`);
  show(content.lastChild, latest, () => latest.map(([label, value, color]) =>
    h("li", {}, h("i", { class: "swatch", style: { background: color } }), h("span", {}, label), h("b", {}, value))));
}

const missing = (panel) => panel.missing || `No data yet: ${panel.reads.join(", ")}`;

const nothing = (panel) => h("p", { class: "nothing" }, missing(panel));

function numbers(content, panel) {
  show(content, panel.lines, (lines) => lines.map((line) =>
    h("div", { class: "number" }, h("b", {}, quantity(last(line), line.unit)), h("span", {}, last(line) === null ? missing(panel) : line.label))));
}

function gauges(content, panel) {
  show(content, panel.lines, (lines) => lines.map((line) => gauge(panel, line)));
}

function gauge(panel, line) {
  const { min = 0, max = 100 } = panel.axes.left ?? {};
  const value = last(line);
  return h("div", { class: "number" }, h("b", {}, quantity(value, line.unit)),
    value !== null && h("meter", { min, max, value, "aria-label": line.label }),
    h("span", {}, value === null ? missing(panel) : line.label));
}

function alarms(content, panel, view) {
  const states = Object.fromEntries(view.head.alarms.map((alarm) => [alarm.name, alarm]));
  show(content, panel.alarms.map((name) => [name, states[name] && stateOf(states[name]), states[name]?.reason]), (all) =>
    h("ul", { class: "alarms" }, all.map(([name, state, reason]) => alarm(name, state, reason))));
}

function alarm(name, state, reason) {
  if (!state) return h("li", { class: "unsure" }, h("span", {}, `${name}: no such alarm`));
  return h("li", { class: state.kind },
    h("a", { href: changed({ runbook: name }), title: reason },
      h("span", { class: "icon", "aria-hidden": "true" }, state.icon), h("span", { class: "name" }, name), h("span", { class: "word" }, state.word)));
}

function rows(content, panel) {
  show(content, [panel.columns, panel.rows, panel.problem, panel.requests], () => {
    if (panel.problem) return h("p", { class: "nothing" }, panel.problem);
    if (!panel.rows.length) return h("p", { class: "nothing" }, "No rows in this time range.");
    return [h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": panel.title }, table(panel.columns, panel.rows)),
      h("p", { class: "hint" }, `${scanned(panel)}.`)];
  });
  content.closest(".panel").querySelector("h2")?.replaceChildren(h("a", { href: link("logs", { q: panel.query }) }, panel.title));
}

function text(content, panel) {
  content.classList.add("prose");
  show(content, panel.html, rendered);
}

function unknown(content, panel) {
  show(content, panel.problem, (problem) => h("p", { class: "nothing" }, problem));
}
