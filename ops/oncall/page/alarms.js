// All alarms: those that fire first, then those without data, each with the reason of its state and its runbook.

import { request } from "./api.js";
import { h, show } from "./dom.js";
import { clock } from "./format.js";
import { notifying, SEVERITIES, stateOf } from "./head.js";
import { changed } from "./route.js";

const ORDER = ["ALARM", "INSUFFICIENT_DATA", "OK"];

export class Alarms {
  constructor(main) {
    this.list = h("section", { class: "panel", "aria-labelledby": "all-alarms" });
    main.replaceChildren(this.list);
  }

  async refresh() {
    const head = await request("/api/head");
    const rank = ({ state, severity }) => 2 * ORDER.indexOf(state) + (severity === "page" ? 0 : 1);
    const alarms = notifying(head.alarms).sort((one, other) => rank(one) - rank(other));
    return { head, draw: () => show(this.list, alarms, listed) };
  }
}

const listed = (alarms) => [h("h2", { id: "all-alarms" }, "Alarms"), h("ul", { class: "events all" }, alarms.map(row))];

function row(alarm) {
  const state = stateOf(alarm);
  return h("li", {},
    h("span", { class: `state ${state.kind}` }, h("span", { "aria-hidden": "true" }, `${state.icon} `), state.word),
    h("strong", {}, alarm.name),
    h("span", { class: `severity ${alarm.state === "ALARM" ? alarm.severity : ""}` }, SEVERITIES[alarm.severity]),
    h("span", { class: "time" }, `since ${clock(alarm.since)}`),
    h("span", { class: "row" }, h("a", { href: changed({ runbook: alarm.name }), "aria-label": `Runbook of ${alarm.name}` }, "Runbook")),
    h("p", {}, alarm.means, " ", h("span", { class: "reason" }, alarm.reason)));
}
