// The logs: saved queries, a query to edit, its results, and how many lines match over time.

import { request, RequestRefused } from "./api.js";
import { h, show } from "./dom.js";
import { clock, plural } from "./format.js";
import { Histogram } from "./histogram.js";
import { changed, here, link } from "./route.js";
import { fields, prepend, table } from "./table.js";

const DEFAULT_QUERY = "newest-lines";
const TAIL_MS = 1000;
const MAX_TAIL_ROWS = 500;
const ANNOUNCE_MS = 10000; // between announcements of new lines

export class Logs {
  constructor(main) {
    this.text = h("textarea", { id: "query", rows: 5, spellcheck: "false", "aria-label": "Query", on: { keydown: (event) => this.typed(event), input: () => this.resize() } });
    this.group = h("select", { id: "group" }, ["lines", "metrics"].map((name) => h("option", { value: name }, name)));
    this.tail = h("button", { type: "button", id: "tail", "aria-pressed": "false", on: { click: () => this.toggleTail() } }, "Live tail");
    this.list = h("ul", { class: "queries" });
    this.back = h("p", { class: "back" });
    this.outcome = h("p", { class: "outcome" });
    this.announcement = h("p", { class: "hidden", role: "status" });
    this.histogram = new Histogram();
    this.results = h("div", { class: "scroll results", tabindex: 0, role: "region", "aria-label": "Results" });
    this.changes = 0; // of the results, made by the live tail
    this.added = null; // where the live tail continues
    main.replaceChildren(this.frame());
  }

  frame() {
    const run = h("button", { type: "submit", class: "primary" }, "Run");
    const form = h("form", { on: { submit: (event) => { event.preventDefault(); this.go(); } } }, this.text,
      h("div", { class: "row" }, h("label", {}, "Log group ", this.group), run, h("span", { class: "hint" }, h("kbd", {}, "Ctrl"), " ", h("kbd", {}, "Enter")), this.tail));
    return h("div", { class: "logs" },
      h("details", { class: "panel side", open: innerWidth > 700 }, h("summary", {}, h("h2", {}, "Queries")), this.list),
      h("section", { class: "panel" }, form),
      h("section", { class: "panel found" }, this.back, this.outcome, this.announcement, this.histogram.element, this.results));
  }

  close() {
    this.histogram.close();
  }

  async refresh(range) {
    const head = await request("/api/head");
    this.queries ??= (await request("/api/queries")).sort((one, other) => (other.name === DEFAULT_QUERY) - (one.name === DEFAULT_QUERY));
    this.fromRoute();
    const isTail = here().parameters.get("tail") === "1" && !("from" in range);
    if (!isTail) this.added = null;
    const asked = { q: this.asked.text, group: this.asked.group };
    const isNext = this.added !== null;
    let found;
    try {
      found = await (isNext ? request("/api/tail", { ...asked, added: this.added }) : request("/api/query", { ...asked, ...range }));
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error;
      found = { problem: error.message };
    }
    return { head, draw: () => (isNext && !found.problem ? this.follow(found) : this.update(found, isTail, head.time)) };
  }

  /** Reads the query from the page's URL, so that a link to it can be shared. */
  fromRoute() {
    const { parameters } = here();
    const typed = parameters.get("q");
    const name = parameters.get("query") ?? (typed ? "" : this.queries[0]?.name);
    const saved = this.queries.find((query) => query.name === name);
    const asked = typed ? { text: typed, group: parameters.get("group") ?? "lines" } : { text: saved?.text ?? "", group: saved?.group ?? "lines" };
    if (JSON.stringify(asked) !== JSON.stringify(this.asked)) {
      this.asked = asked;
      this.added = null;
      this.text.value = asked.text;
      this.group.value = asked.group;
      this.resize();
    }
    const trace = parameters.get("trace");
    show(this.back, trace, () => (trace ? h("a", { href: link(`trace/${trace}`) }, "‹ The trace") : ""));
    show(this.list, [this.queries, name], () => this.queries.map((query) =>
      h("li", {}, h("a", { href: link("logs", { query: query.name }), "aria-current": query.name === name ? "true" : undefined }, h("b", {}, query.name), h("span", {}, query.description)))));
  }

  /** Runs the query of the form. An empty one finds the newest lines. */
  go() {
    if (!this.text.value.trim()) this.asked = null;
    const target = this.asked === null ? link("logs") : link("logs", { q: this.text.value, group: this.group.value });
    if (location.hash === target) dispatchEvent(new Event("hashchange"));
    else location.hash = target;
  }

  toggleTail() {
    if (this.tail.disabled) return;
    const { parameters, range } = here();
    const isOn = parameters.get("tail") === "1" && !("from" in range);
    location.hash = isOn ? changed({ tail: "" }) : changed({ tail: "1", ...("from" in range && { minutes: 15 }) });
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

  update(found, isTail, now) {
    if (!isTail && this.shownFor === this.asked && this.results.querySelector(".opened")) return; // the user reads the details of a row
    const isFollowed = isTail && Boolean(found.records);
    this.tail.disabled = !found.records;
    this.tail.title = found.records || found.problem ? "" : "Only for queries that show lines, without stats and pattern";
    this.tail.setAttribute("aria-pressed", String(isFollowed));
    this.refreshMs = isFollowed ? TAIL_MS : undefined;
    this.added = isFollowed ? found.added : null;
    if (isFollowed && !found.is_newest_first) found = { ...found, rows: [] };
    this.histogram.update(isFollowed || !found.matched ? null : found.histogram);
    this.tailed = { since: now, lines: 0, skipped: 0, announced: 0 };
    const text = found.problem ?? (isFollowed ? tailed(this.tailed) : outcome(found));
    this.outcome.textContent = text;
    this.outcome.classList.toggle("problem", Boolean(found.problem));
    if (this.shownFor !== this.asked || found.problem || isFollowed) this.announcement.textContent = text;
    this.shownFor = this.asked;
    show(this.results, found.problem ? null : [found.columns, found.rows, this.changes, isFollowed, found.scanned > 0], () => {
      if (found.problem) return [];
      if (!found.rows.length) return isFollowed ? [] : this.nothing(found);
      return table(found.columns, found.rows, found.records && ((number) => opened(found.records[number])));
    });
  }

  /** Adds the newest lines at the top. */
  follow(found) {
    this.added = found.added;
    this.tailed.lines += found.matched;
    this.tailed.skipped += found.skipped;
    this.outcome.textContent = tailed(this.tailed);
    if (!found.rows.length) return;
    this.changes += 1;
    const shown = this.results.querySelector("table");
    const open = (number) => opened(found.records[number]);
    if (shown) prepend(shown, found.rows, open, MAX_TAIL_ROWS);
    else this.results.replaceChildren(table(found.columns, found.rows, open));
    if (Date.now() - this.tailed.announced < ANNOUNCE_MS) return;
    this.tailed.announced = Date.now();
    this.announcement.textContent = this.outcome.textContent;
  }

  /** Says what it means that there is no result. */
  nothing({ scanned: lines }) {
    const saved = this.queries.find((query) => query.text === this.asked.text && query.group === this.asked.group);
    if (!lines) return h("p", { class: "nothing" }, "There is no line in this time range.");
    if (saved?.if_empty) return h("p", { class: "nothing good" }, `✓ ${saved.if_empty}`);
    return h("p", { class: "nothing" }, "No line in this time range matches the query.");
  }

  focusQuery() {
    this.text.focus();
  }
}

const tailed = ({ since, lines, skipped }) =>
  `Live tail since ${clock(since)} UTC: ${plural(lines, "new line")}${skipped ? `; ${plural(skipped, "line")} skipped, since too many came at once` : ""}.`;

function outcome(found) {
  return `${shown(found)}; ${scanned(found)}.`;
}

function shown({ rows, total, matched, records, is_newest_first: isNewestFirst }) {
  if (!matched) return "No line matches";
  const lines = plural(matched, "matching line");
  const count = rows.length.toLocaleString("en");
  if (records) return rows.length < matched ? `${isNewestFirst ? "Newest " : ""}${count} of ${lines}` : lines;
  return `${plural(rows.length, "row")}${rows.length < total ? ` of ${total.toLocaleString("en")}` : ""} from ${lines}`;
}

/** How many lines a query read, and for how many requests these stand: each line for as many as its sample_weight. */
export const scanned = ({ scanned: lines, requests }) =>
  `${plural(lines, "line")} scanned${requests ? `, a sample that stands for ${plural(requests, "request")}` : ""}`;

function opened(record) {
  const trace = record.trace_id;
  return [
    trace && h("p", { class: "row" }, record.sampled ? traceOf(trace) : h("span", { class: "hint" }, "The trace was not sampled."), h("a", { href: linesOf(trace) }, "Log lines of the trace")),
    fields(record),
  ].filter(Boolean);
}

/** A link to a trace, once the server has said that it has it: traces come later than lines, and some not at all. */
function traceOf(trace) {
  const element = h("span", { class: "hint" });
  request("/api/traces", { id: trace }).then(
    ({ traces }) => element.replaceChildren(traces.length ? h("a", { href: link(`trace/${trace}`) }, "Trace") : "The trace is not here: it has not come yet, or it is too old."),
    (error) => element.replaceChildren(error.message));
  return element;
}

/** A link to the log lines of a trace, in the time range of the page unless the parameters have another. */
export const linesOf = (trace, parameters = {}) =>
  link("logs", { q: `fields @timestamp, event, route, status, duration_ms, @message\n| filter trace_id = "${trace}"\n| sort @timestamp`, group: "lines", ...parameters });
