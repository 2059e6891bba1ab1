// The logs: saved queries, a query to edit, and its results.

import { request, RequestRefused } from "./api.js";
import { h, show } from "./dom.js";
import { plural } from "./format.js";
import { here, link } from "./route.js";
import { fields, table } from "./table.js";

const DEFAULT_QUERY = "faults";

export class Logs {
  constructor(main) {
    this.main = main;
    this.text = h("textarea", { id: "query", rows: 5, spellcheck: "false", "aria-label": "Query", on: { keydown: (event) => this.typed(event), input: () => this.resize() } });
    this.group = h("select", { id: "group", "aria-label": "Log group" }, ["lines", "metrics"].map((name) => h("option", { value: name }, name)));
    this.list = h("ul", { class: "queries" });
    this.outcome = h("p", { class: "outcome", role: "status" });
    this.results = h("div", { class: "scroll results", tabindex: 0, role: "region", "aria-label": "Results" });
    main.replaceChildren(this.frame());
  }

  frame() {
    const run = h("button", { type: "submit", class: "primary" }, "Run");
    const form = h("form", { on: { submit: (event) => { event.preventDefault(); this.go(); } } }, this.text,
      h("div", { class: "row" }, h("label", {}, "Log group ", this.group), run, h("span", { class: "hint" }, h("kbd", {}, "Ctrl"), " ", h("kbd", {}, "Enter"))));
    return h("div", { class: "logs" },
      h("details", { class: "panel side", open: innerWidth > 700 }, h("summary", {}, h("h2", {}, "Queries")), this.list),
      h("section", { class: "panel" }, form),
      h("section", { class: "panel found" }, this.outcome, this.results));
  }

  async refresh(range) {
    const head = await request("/api/head");
    this.queries ??= await request("/api/queries");
    this.fromRoute();
    let found;
    try {
      found = await request("/api/query", { q: this.asked.text, group: this.asked.group, ...range });
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error;
      found = { problem: error.message };
    }
    return { head, draw: () => this.update(found) };
  }

  /** Reads the query from the page's URL, so that a link to it can be shared. */
  fromRoute() {
    const { parameters } = here();
    const typed = parameters.get("q");
    const name = parameters.get("query") ?? (typed ? "" : (this.queries.find((query) => query.name === DEFAULT_QUERY) ?? this.queries[0])?.name);
    const saved = this.queries.find((query) => query.name === name);
    const asked = typed ? { text: typed, group: parameters.get("group") ?? "lines" } : { text: saved?.text ?? "", group: saved?.group ?? "lines" };
    if (JSON.stringify(asked) !== JSON.stringify(this.asked)) {
      this.asked = asked;
      this.text.value = asked.text;
      this.group.value = asked.group;
      this.resize();
    }
    show(this.list, [this.queries, name], () => this.queries.map((query) =>
      h("li", {}, h("a", { href: link("logs", { query: query.name }), "aria-current": query.name === name ? "true" : undefined }, h("b", {}, query.name), h("span", {}, query.description)))));
  }

  go() {
    const target = link("logs", { q: this.text.value, group: this.group.value });
    if (location.hash === target) dispatchEvent(new Event("hashchange"));
    else location.hash = target;
  }

  typed(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.go();
    }
  }

  resize() {
    this.text.rows = Math.min(14, Math.max(3, this.text.value.split("\n").length + 1));
  }

  update(found) {
    if (this.results.querySelector(".opened") && this.shownFor === this.asked) return; // the user reads the details of a row
    this.shownFor = this.asked;
    this.outcome.textContent = found.problem ?? outcome(found);
    this.outcome.classList.toggle("problem", Boolean(found.problem));
    show(this.results, found.problem ? null : [found.columns, found.rows], () => {
      if (found.problem || !found.rows.length) return [];
      return table(found.columns, found.rows, found.records?.length ? (number) => opened(found.records[number]) : undefined);
    });
  }

  focusQuery() {
    this.text.focus();
  }
}

function outcome(found) {
  const more = found.matched > found.rows.length ? ` of ${found.matched.toLocaleString("en")}` : "";
  return `${plural(found.rows.length, "row")}${more}; ${scanned(found)}.`;
}

/** How many lines a query read, and for how many requests these stand: each line for as many as its sample_weight. */
export const scanned = ({ scanned: lines, requests }) =>
  `${plural(lines, "line")} scanned${requests ? `, a sample that stands for ${plural(requests, "request")}` : ""}`;

function opened(record) {
  const trace = record.trace_id;
  return [
    h("p", { class: "row" },
      trace && record.sampled && h("a", { href: `#/trace/${trace}` }, "Trace"),
      trace && !record.sampled && h("span", { class: "hint" }, "The trace was not sampled."),
      trace && h("a", { href: linesOf(trace) }, "Log lines of the trace")),
    fields(record),
  ];
}

export const linesOf = (trace) =>
  link("logs", { q: `fields @timestamp, event, route, status, duration_ms, @message\n| filter trace_id = "${trace}"\n| sort @timestamp`, group: "lines" });
