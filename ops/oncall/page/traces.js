// Traces: the newest ones, and the waterfall of one.

import { request, RequestRefused } from "./api.js";
import { h, show } from "./dom.js";
import { clock, milliseconds, plural } from "./format.js";
import { linesOf } from "./logs.js";
import { changed, here } from "./route.js";
import { fields } from "./table.js";

export class Traces {
  constructor(main) {
    this.list = h("div", { class: "panel" });
    this.errors = h("input", { type: "checkbox", on: { change: () => this.filter() } });
    this.minimum = h("input", { type: "number", min: 0, step: "any", inputmode: "decimal", on: { change: () => this.filter() } });
    main.replaceChildren(h("div", { class: "traces" },
      h("form", { class: "row", on: { submit: (event) => event.preventDefault() } },
        h("label", {}, this.errors, " only errors"), h("label", {}, "at least ", this.minimum, " ms")),
      this.list));
  }

  filter() {
    location.hash = changed({ errors: this.errors.checked ? "1" : "", min_ms: this.minimum.value });
  }

  async refresh() {
    const { parameters } = here();
    const chosen = { errors: parameters.get("errors") ?? "", min_ms: parameters.get("min_ms") ?? "" };
    this.errors.checked = chosen.errors === "1";
    if (document.activeElement !== this.minimum) this.minimum.value = chosen.min_ms;
    const head = await request("/api/head");
    const found = await request("/api/traces", chosen);
    return { head, draw: () => show(this.list, found, listed) };
  }
}

function listed({ traces, kept }) {
  if (!traces.length) return h("p", { class: "nothing" }, kept ? "No trace matches the filter." : "No trace yet: only sampled requests have one.");
  const hint = "A sample: failed and slow requests before others. The service's dashboard has the counts.";
  const longest = Math.max(...traces.map((trace) => trace.duration_ms));
  const head = ["Time", "Request", "Status", "Duration", ""].map((name) => h("th", { scope: "col", class: name === "Duration" ? "number" : undefined }, name || h("span", { class: "hidden" }, "Compared with the longest")));
  return [h("p", { class: "hint" }, hint), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Traces" },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, traces.map((trace) => summary(trace, longest)))))];
}

function summary(trace, longest) {
  return h("tr", {},
    h("td", { class: "time" }, clock(trace.start, true)),
    h("td", {}, h("a", { href: `#/trace/${trace.trace_id}` }, trace.name)),
    h("td", {}, status(trace)),
    h("td", { class: "number" }, milliseconds(trace.duration_ms)),
    h("td", { class: "wide" }, bar(0, trace.duration_ms / longest, trace.error !== null)));
}

function status(span) {
  if (span.error !== null) return h("span", { class: "badge bad" }, `▲ ${span.status ?? ""} ${span.error}`);
  return h("span", { class: "badge" }, span.status ?? "ok");
}

const bar = (from, share, failed) =>
  h("div", { class: "track" }, h("div", { class: failed ? "span bad" : "span", style: { left: `${100 * from}%`, width: `${100 * share}%` } }));

export class Trace {
  constructor(main, id) {
    this.main = main;
    this.id = id;
  }

  async refresh() {
    const head = await request("/api/head");
    try {
      this.found = await request(`/api/trace/${encodeURIComponent(this.id)}`);
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error;
      this.found ??= { problem: error.message }; // a trace that is shown stays, even if the server has dropped it meanwhile
    }
    return { head, draw: () => show(this.main, this.found, (trace) => waterfall(trace, this.id)) };
  }
}

function waterfall(trace, id) {
  const back = h("p", { class: "row" }, h("a", { href: "#/traces" }, "‹ All traces"), h("a", { href: linesOf(id), id: "lines" }, "Log lines"));
  if (trace.problem) return [back, h("section", { class: "panel" }, h("p", { class: "nothing" }, trace.problem))];
  const [root] = trace.rows;
  const total = Math.max(...trace.rows.map((row) => row.offset_ms + row.duration_ms));
  return [
    back,
    h("section", { class: "panel trace" },
      h("h1", {}, root.name, " ", status(root)),
      h("p", { class: "hint" }, `${clock(root.start, true)} UTC, ${milliseconds(root.duration_ms)}, ${plural(trace.rows.length, "span")}. `, h("code", {}, id)),
      h("div", { class: "waterfall" }, scale(total), trace.rows.map((row) => spanRow(row, total)))),
  ];
}

function scale(total) {
  const marks = [0, 0.25, 0.5, 0.75, 1];
  return h("div", { class: "scale", "aria-hidden": "true" }, h("span"), h("div", { class: "track" }, marks.map((at) => h("span", { style: { left: `${100 * at}%` } }, milliseconds(total * at)))), h("span"));
}

function spanRow(row, total) {
  const from = Math.max(0, row.offset_ms / total);
  return h("details", {},
    h("summary", {},
      h("span", { class: "what", style: { "--depth": row.depth } }, h("b", {}, row.name), " ", h("small", {}, row.kind), row.error !== null && h("span", { class: "badge bad" }, `▲ ${row.error}`)),
      bar(from, Math.max(0.004, Math.min(row.duration_ms / total, 1 - from)), row.error !== null),
      h("span", { class: "number" }, milliseconds(row.duration_ms))),
    h("div", { class: "about" },
      fields({ service: row.service, "span id": row.span_id, "starts after": milliseconds(row.offset_ms), ...row.attributes })));
}
