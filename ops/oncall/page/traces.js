// Traces: the newest ones, and the waterfall of one.

import { request, RequestRefused } from "./api.js";
import { h, show } from "./dom.js";
import { clock, milliseconds, plural } from "./format.js";
import { linesOf } from "./logs.js";
import { changed, here, link } from "./route.js";
import { fields } from "./table.js";

const AROUND_SECONDS = 60; // before and after a trace, in which its log lines are looked for
const FILTERS = ["route", "status", "min_ms", "id", "errors", "probes"];

export class Traces {
  constructor(main) {
    this.list = h("div", { class: "panel" });
    const field = (name, attributes) => h("input", { type: "text", name, spellcheck: "false", autocomplete: "off", ...attributes });
    this.fields = {
      route: h("select", { name: "route" }),
      status: field("status", { size: 7, placeholder: "5xx, 503" }),
      min_ms: field("min_ms", { size: 5, inputmode: "decimal" }),
      id: field("id", { size: 14, placeholder: "its first digits" }),
      errors: h("input", { type: "checkbox", name: "errors", value: "1" }),
      probes: h("input", { type: "checkbox", name: "probes", value: "1" }),
    };
    const { route, status, min_ms: minimum, id, errors, probes } = this.fields;
    main.replaceChildren(h("div", { class: "traces" },
      h("form", { class: "row", on: { submit: (event) => event.preventDefault(), change: () => this.filter() } },
        h("label", {}, "Route ", route), h("label", {}, "Status ", status), h("label", {}, "At least ", minimum, " ms"), h("label", {}, "Trace ID ", id),
        h("label", {}, errors, " only errors"), h("label", {}, probes, " with probes")),
      this.list));
  }

  /** Puts the filter into the page's URL, or opens the trace of a whole ID. */
  filter() {
    const id = this.fields.id.value.trim().toLowerCase().replace(/^1-/, "").replaceAll("-", ""); // X-Ray's form has these
    const chosen = Object.fromEntries(Object.entries(this.fields).map(([name, field]) => [name, field.type === "checkbox" ? field.checked && "1" : field.value.trim()]));
    location.hash = /^[0-9a-f]{32}$/.test(id) ? link(`trace/${id}`, filtersOf(here())) : changed({ ...chosen, id });
  }

  async refresh(range) {
    const chosen = filtersOf(here());
    const head = await request("/api/head");
    let found;
    try {
      found = await request("/api/traces", { ...chosen, ...range });
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error;
      found = { problem: error.message };
    }
    return { head, draw: () => this.update(found, chosen) };
  }

  update(found, chosen) {
    const { route } = this.fields;
    const routes = [...new Set([...(found.routes ?? []), chosen.route].filter(Boolean))];
    show(route, [routes, chosen.route], () => [h("option", { value: "" }, "all"), ...routes.map((name) => h("option", { value: name, selected: name === chosen.route }, name))]);
    for (const [name, field] of Object.entries(this.fields)) {
      if (field.type === "checkbox") field.checked = chosen[name] === "1";
      else if (field.type === "text" && document.activeElement !== field) field.value = chosen[name] ?? "";
      field.setAttribute("aria-invalid", String(Boolean(found.problem?.startsWith(`${name} `))));
    }
    show(this.list, [found, chosen, location.hash], () => (found.problem ? h("p", { class: "outcome problem", role: "alert" }, found.problem) : listed(found, chosen)));
  }
}

const filtersOf = ({ parameters }) => Object.fromEntries(FILTERS.filter((name) => parameters.get(name)).map((name) => [name, parameters.get(name)]));

function listed({ traces, matched, kept }, chosen) {
  if (!kept) return h("p", { class: "nothing" }, "No trace yet: only sampled requests have one.");
  if (!matched) return h("p", { class: "nothing" }, `No trace ${chosen.id ? "" : "in this time range "}matches the filter.`);
  const count = matched > traces.length ? `Newest ${traces.length} of ${plural(matched, "trace")}` : plural(matched, "trace");
  const hint = `${count}, a sample: failed and slow requests before others. The service's dashboard has the counts.`;
  const longest = Math.max(...traces.map((trace) => trace.duration_ms));
  const head = ["Time", "Request", "Status", "Duration", ""].map((name) => h("th", { scope: "col", class: name === "Duration" ? "number" : undefined }, name || h("span", { class: "hidden" }, "Duration as a bar")));
  return [h("p", { class: "hint", role: "status" }, hint), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Traces" },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, traces.map((trace) => summary(trace, longest, chosen)))))];
}

function summary(trace, longest, chosen) {
  return h("tr", {},
    h("td", { class: "time" }, clock(trace.start, true)),
    h("td", {}, h("a", { href: link(`trace/${trace.trace_id}`, chosen) }, trace.name)),
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
    this.content = h("div", { class: "trace" });
    this.id = id;
    main.replaceChildren(this.content);
  }

  async refresh() {
    const head = await request("/api/head");
    try {
      this.found = await request(`/api/trace/${encodeURIComponent(this.id)}`);
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error;
      this.found ??= { problem: error.message }; // a trace that is shown stays, even if the server has dropped it meanwhile
    }
    return { head, draw: () => show(this.content, this.found, (trace) => waterfall(trace, this.id)) };
  }
}

function waterfall(trace, id) {
  const filters = filtersOf(here());
  const back = h("a", { href: link("traces", filters) }, Object.keys(filters).length ? "‹ Traces of the filter" : "‹ All traces");
  if (trace.problem) return [h("p", { class: "row" }, back), h("section", { class: "panel" }, h("p", { class: "nothing" }, trace.problem))];
  const [root] = trace.rows;
  const total = Math.max(...trace.rows.map((row) => row.offset_ms + row.duration_ms));
  const around = { from: Math.floor(root.start) - AROUND_SECONDS, to: Math.ceil(root.start + total / 1000) + AROUND_SECONDS };
  const lines = h("a", { href: linesOf(id, { ...around, trace: id }), "data-range": "", id: "lines" }, "Log lines");
  return [
    h("p", { class: "row" }, back, lines),
    h("section", { class: "panel" },
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
      h("span", { class: "what", style: { "--depth": row.depth } }, h("i", { class: "marker", "aria-hidden": "true" }, "›"), h("b", {}, row.name), " ", h("small", {}, row.kind), row.error !== null && h("span", { class: "badge bad" }, `▲ ${row.error}`)),
      bar(from, Math.max(0.004, Math.min(row.duration_ms / total, 1 - from)), row.error !== null),
      h("span", { class: "number" }, milliseconds(row.duration_ms))),
    h("div", { class: "about" },
      fields({ service: row.service, "span id": row.span_id, "starts after": milliseconds(row.offset_ms), ...row.attributes })));
}
