// The time range of all pages: the last minutes, or from one time to another.

import { byId, h, show } from "./dom.js";
import { between } from "./format.js";
import { changed, here } from "./route.js";

const RANGES = [[5, "5 m"], [15, "15 m"], [60, "1 h"], [180, "3 h"]];
const LIVE = { minutes: 15 };

export function setUpRange() {
  byId("ranges").append(...RANGES.map(([value, label]) =>
    h("label", {}, h("input", { type: "radio", name: "range", value, on: { change: () => choose(value) } }), h("span", {}, label))));
  byId("period").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("period-choice").open = false;
    location.hash = changed({ from: seconds(byId("from")), to: seconds(byId("to")) });
  });
  byId("period-choice").addEventListener("toggle", ({ target }) => target.open && byId("from").focus());
  byId("period-choice").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    byId("period-choice").open = false;
    byId("period-choice").querySelector("summary").focus();
  });
}

function choose(minutes) {
  localStorage.setItem("minutes", minutes);
  location.hash = changed({ minutes });
}

// The fields have no zone, and their times are meant in UTC.
const seconds = (field) => Date.parse(`${field.value}Z`) / 1000;
const local = (time) => new Date(time * 1000).toISOString().slice(0, 19);

let now = Date.now() / 1000;

/** Shows the range of the page's URL. The time is that of the server, which is the recording's in a replay. */
export function showRange(time = now) {
  now = time;
  const { minutes, from, to } = here().range;
  for (const { control } of byId("ranges").querySelectorAll("label")) control.checked = control.value === String(minutes);
  const isValid = Number(from) < Number(to) && Number(to) < 1e11;
  show(byId("shown"), [from, to], () => (from === undefined ? [] : [
    isValid && h("b", {}, between(Number(from), Number(to))),
    h("a", { href: changed(LIVE), "data-range": "", id: "live" }, "Back to live"),
  ].filter(Boolean)));
  if (byId("period-choice").open) return;
  byId("from").value = local(isValid ? from : now - 60 * (minutes ?? LIVE.minutes));
  byId("to").value = local(isValid ? to : now);
}
