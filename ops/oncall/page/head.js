// The top of the page: one glance says whether all is well, and if not, what is the matter.

import { byId, h, show } from "./dom.js";
import { clock, day, digits, duration, plural } from "./format.js";
import { changed } from "./route.js";

export const STATES = {
  ALARM: { icon: "▲", word: "Firing", kind: "bad" },
  INSUFFICIENT_DATA: { icon: "?", word: "No data", kind: "unsure" },
  OK: { icon: "✓", word: "OK", kind: "good" },
};
const SEVERITIES = { page: "Page", ticket: "Ticket" };

let announced = null;

export function showHead(head) {
  const firing = firingOf(head.alarms);
  const unsure = head.alarms.filter((alarm) => alarm.severity !== "part" && alarm.state === "INSUFFICIENT_DATA");
  byId("brand").textContent = head.name;
  document.title = firing.length ? `(${firing.length}) ${firing[0].name} – ${head.name}` : `All quiet – ${head.name}`;
  byId("icon").href = favicon(firing.length);
  const silent = silence(head.source);
  const what = { budgets: head.budgets, firing: firing.map((alarm) => [alarm, duration(head.time - alarm.since)]), unsure: unsure.length, silent, known: head.alarms.length };
  show(byId("glance"), what, () => glance(firing, unsure, head, silent));
  show(byId("source"), sourceWords(head), (words) => words);
  announce(firing);
}

/** What fires, the worst first; parts of others only decide those. */
function firingOf(alarms) {
  const order = ["page", "ticket"];
  return alarms
    .filter((alarm) => alarm.state === "ALARM" && order.includes(alarm.severity))
    .sort((one, other) => order.indexOf(one.severity) - order.indexOf(other.severity) || one.since - other.since);
}

const SILENT_SECONDS = 25; // two tellings of metrics, and a little

function silence(source) {
  if (source.kind !== "follow") return null;
  if (source.state === "waiting") return "no recording yet";
  if (source.silent_seconds === null) return "no line yet";
  return source.silent_seconds > SILENT_SECONDS ? `no line for ${duration(source.silent_seconds)}` : null;
}

function glance(firing, unsure, head, silent) {
  const kind = firing.length ? "bad" : silent ? "unsure" : "good";
  const icon = { bad: STATES.ALARM.icon, unsure: "?", good: STATES.OK.icon }[kind];
  const words = firing.length ? `${firing.length} firing` : silent ? sentence(silent) : "All quiet";
  const aside = firing.length ? silent : unsure.length ? `${plural(unsure.length, "alarm")} without data` : silent ? "so nothing is known of now" : `${plural(head.alarms.length, "alarm")}, none fires`;
  return [
    h("div", { class: `verdict ${kind}` }, h("span", { class: "icon", "aria-hidden": "true" }, icon), h("h1", {}, words), aside && h("p", {}, aside)),
    h("div", { class: "budgets" }, head.budgets.map(budget)),
    firing.length > 0 && h("ul", { class: "firing" }, firing.map((alarm) => firingAlarm(alarm, head.time))),
  ].filter(Boolean);
}

function budget({ name, percent, means, left, burn }) {
  return h("div", { class: "budget", title: means },
    h("h2", {}, h("span", {}, sentence(name)), h("span", {}, `${percent} % over 30 days`)),
    left === null ? h("p", {}, "No requests yet") : h("p", {}, budgetLeft(left), h("span", {}, h("b", {}, burn === null ? "–" : `${burn.toFixed(1)}×`), "as fast as allowed")));
}

function budgetLeft(left) {
  if (left >= 0) return h("span", {}, h("b", {}, `${Math.floor(left * 10) / 10} %`), "of the budget left");
  return h("span", { class: "bad" }, h("b", {}, "▲ 0 %"), `left: spent ${digits(1 - left / 100)} times`);
}

function firingAlarm(alarm, now) {
  return h("li", {},
    h("span", { class: `severity ${alarm.severity}` }, SEVERITIES[alarm.severity]),
    h("strong", {}, alarm.name),
    h("span", { class: "since" }, `since ${clock(alarm.since)}, ${duration(now - alarm.since)}`),
    h("a", { class: "runbook", href: changed({ runbook: alarm.name }) }, "Runbook"),
    h("p", {}, alarm.means),
    h("p", { class: "why" }, alarm.reason));
}

const sentence = (words) => words[0].toUpperCase() + words.slice(1);

function sourceWords({ source, time }) {
  const file = h("code", {}, source.path);
  const refused = source.refused ? `, ${plural(source.refused, "line")} not understood` : "";
  const read = `${plural(source.lines, "line")}${refused}`;
  const now = h("time", {}, `${day(time)} ${clock(time)} UTC`);
  if (source.kind === "replay") {
    const how = source.state === "ended" ? "Replayed" : `Replaying${source.speed ? ` at ${source.speed}×` : ""}, ${Math.round(source.share * 100)} %`;
    return [h("b", { class: "tag" }, "Replay"), ` ${how} `, file, `: ${read}. It is `, now, " there."];
  }
  if (source.state === "waiting") return [h("b", { class: "tag" }, "Waiting"), " There is no ", file, " yet: ", h("code", {}, "make run"), " writes it."];
  if (source.state === "reading") return [h("b", { class: "tag" }, "Catching up"), ` ${Math.round(source.share * 100)} % of `, file, " is read."];
  const silent = silence(source);
  return [h("b", { class: `tag ${silent ? "unsure" : "live"}` }, silent ? "Silent" : "Live"), " ", file, `: ${read}${silent ? `; ${silent}` : ""}. `, now];
}

function announce(firing) {
  const names = firing.map((alarm) => alarm.name);
  if (announced !== null) {
    const began = names.filter((name) => !announced.includes(name)).map((name) => `${name} fires`);
    const ended = announced.filter((name) => !names.includes(name)).map((name) => `${name} no longer fires`);
    if (began.length + ended.length) byId("announcement").textContent = [...began, ...ended].join("; ");
  }
  announced = names;
}

/** The server is gone: all that the page shows is old. */
export function showLost(since) {
  document.title = "No server – On call";
  show(byId("source"), `lost ${since}`, () => [h("b", { class: "tag bad" }, "Lost"), ` This page lost its server since ${clock(since)} UTC; what it shows is as old. It asks again every few seconds.`]);
}

function favicon(count) {
  const canvas = h("canvas", { width: 32, height: 32 });
  const context = canvas.getContext("2d");
  context.fillStyle = count ? "#c62828" : "#1a7f4b";
  context.beginPath();
  context.arc(16, 16, 15, 0, 2 * Math.PI);
  context.fill();
  context.fillStyle = "#fff";
  context.font = "bold 20px sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(count ? String(Math.min(count, 99)) : "✓", 16, 17);
  return canvas.toDataURL();
}
