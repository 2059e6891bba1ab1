// How many lines match a query over time. A bar, or several that the mouse drags over, become the page's time range.

import { h, show } from "./dom.js";
import { clock, duration, plural } from "./format.js";
import { changed } from "./route.js";

const KINDS = [["failed", "failed or error"], ["refused", "refused or warning"], ["other", "other"]];

export class Histogram {
  constructor() {
    this.element = h("div", { class: "histogram" });
    this.bars = h("div", { class: "bars", role: "group", on: {
      keydown: (event) => this.move(event),
      pointerdown: (event) => this.start(event),
      pointermove: (event) => this.drag(event),
    } });
    this.axis = h("p", { class: "axis", "aria-hidden": "true" });
    this.legend = h("ul", { class: "legend" });
    this.element.append(this.legend, this.bars, this.axis);
    addEventListener("pointerup", this.end = () => this.choose());
    addEventListener("pointercancel", this.stop = () => this.select(null));
  }

  close() {
    removeEventListener("pointerup", this.end);
    removeEventListener("pointercancel", this.stop);
  }

  /** Shows the bars; each has the numbers of lines by kind. */
  update(data) {
    this.element.hidden = !data;
    if (!data) return;
    this.data = data;
    const most = Math.max(1, ...data.bars.map(sum));
    const totals = KINDS.map((_, kind) => sum(data.bars.map((counts) => counts[kind])));
    const length = duration(data.step);
    this.bars.setAttribute("aria-label", `Matching lines over time, in bars of ${length}. Enter makes a bar the time range.`);
    show(this.legend, [totals, length, most], () => [
      ...KINDS.map(([kind, label], at) => totals[at] > 0 && h("li", {}, h("i", { class: `swatch ${kind}` }), h("span", {}, label), h("b", {}, totals[at].toLocaleString("en")))).filter(Boolean),
      h("li", { class: "scale-of" }, `bars of ${length}, up to ${plural(most, "line")}`),
    ]);
    show(this.bars, [data, location.hash], () => {
      const last = data.bars.findLastIndex((counts) => sum(counts) > 0);
      return data.bars.map((counts, at) => this.bar(counts, at, most, at === last));
    });
    show(this.axis, [data.start, data.step, data.bars.length], () => [0, 0.5, 1].map((share) =>
      h("span", {}, clock(data.start + Math.round(share * data.bars.length) * data.step))));
  }

  bar(counts, at, most, isReachable) {
    const parts = KINDS.map(([kind], number) => counts[number] > 0 && h("i", { class: kind, style: { height: `${(100 * counts[number]) / most}%` } }));
    if (!sum(counts)) return h("span");
    const [from, to] = this.times(at, at);
    const named = KINDS.slice(0, 2).map(([, label], number) => counts[number] > 0 && `, ${counts[number]} ${label}`).filter(Boolean).join("");
    const text = `${clock(from)} to ${clock(to)} UTC: ${plural(sum(counts), "line")}${named}`;
    return h("a", { href: changed({ from, to }), "data-range": "", draggable: "false", tabindex: isReachable ? 0 : -1, "aria-label": text, title: text }, parts);
  }

  /** From the start of a bar to the end of another, in seconds since 1970. */
  times(first, last) {
    const { start, step } = this.data;
    return [start + first * step, start + (last + 1) * step];
  }

  move(event) {
    const bars = [...this.bars.querySelectorAll("a")];
    const at = bars.indexOf(document.activeElement);
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1 }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    bars[next]?.focus();
    if (bars[next]) bars.forEach((bar, number) => (bar.tabIndex = number === next ? 0 : -1));
  }

  start(event) {
    if (event.button === 0) this.select([this.under(event), this.under(event)]);
  }

  drag(event) {
    if (this.selected) this.select([this.selected[0], this.under(event)]);
  }

  /** The number of the bar at the mouse. */
  under(event) {
    const { left, width } = this.bars.getBoundingClientRect();
    const { length } = this.data.bars;
    return Math.min(length - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * length)));
  }

  select(selected) {
    this.selected = selected;
    const [first, last] = selected ? [...selected].sort((one, other) => one - other) : [1, 0];
    [...this.bars.children].forEach((bar, at) => bar.classList.toggle("selected", first !== last && first <= at && at <= last));
  }

  choose() {
    const [first, last] = [...(this.selected ?? [0, 0])].sort((one, other) => one - other);
    this.select(null);
    if (first === last) return; // a click on a bar follows its link
    const [from, to] = this.times(first, last);
    location.hash = changed({ from, to });
  }
}

const sum = (counts) => counts.reduce((total, count) => total + count, 0);
