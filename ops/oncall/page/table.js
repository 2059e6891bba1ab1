// Tables of query results.

import { h } from "./dom.js";

const isNumber = (value) => typeof value === "number";

/** A table; `open`, if given, returns the details of a row, which a click shows or hides. */
export function table(columns, rows, open) {
  const kinds = columns.map((_, at) => kind(rows.map((row) => row[at]).filter((value) => value !== null)));
  const head = h("tr", {}, open && h("th", {}, h("span", { class: "hidden" }, "Open")), columns.map((name, at) => h("th", { class: kinds[at], scope: "col" }, name)));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, lines(rows, kinds, open)));
}

/** Adds rows at the top of a table, and keeps at most so many. */
export function prepend(element, rows, open, maximum) {
  const kinds = [...element.tHead.querySelectorAll("th[scope]")].map((name) => name.className);
  const [body] = element.tBodies;
  body.prepend(...lines(rows, kinds, open));
  while (body.rows.length > maximum) body.lastElementChild.remove();
}

const lines = (rows, kinds, open) => rows.map((row, number) => line(row, kinds, open && (() => open(number))));

const TIME = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/;

const SHORT = 48; // characters that fit on one line, such as an id

function kind(values) {
  if (values.length && values.every(isNumber)) return "number";
  if (values.length && values.every((value) => TIME.test(value))) return "time";
  return values.every((value) => String(value).length <= SHORT) ? "text short" : "text";
}

function line(row, kinds, open) {
  const cells = row.map((value, at) => h("td", { class: kinds[at] }, written(value)));
  if (!open) return h("tr", {}, cells);
  const button = h("button", { type: "button", class: "opener", "aria-expanded": "false", "aria-label": "Details" }, "›");
  const element = h("tr", { class: "opens" }, h("td", {}, button), cells);
  element.addEventListener("click", () => toggle(element, button, open));
  return element;
}

function toggle(element, button, open) {
  if (String(getSelection())) return; // the user selects text to copy
  const isOpen = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!isOpen));
  if (isOpen) element.nextElementSibling.remove();
  else element.after(h("tr", { class: "opened" }, h("td", { colspan: element.children.length }, h("div", { class: "detail" }, open()))));
}

export function written(value) {
  if (value === null || value === undefined) return "–";
  if (isNumber(value)) return value.toLocaleString("en", { maximumFractionDigits: 3, useGrouping: Math.abs(value) >= 1e4 });
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A list of names and values. */
export function fields(named) {
  return h("dl", { class: "fields" }, Object.entries(named).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, written(value))]));
}
