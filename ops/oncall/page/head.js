// The top of the page: the state of the alarms, the error budgets, and the status of the recording.

import { byId, h, show } from "./dom.js";
import { clock, day, digits, duration, plural } from "./format.js";
import { changed, link } from "./route.js";

const STATES = {
  ALARM: { icon: "▲", word: "Firing", kind: "bad" },
  INSUFFICIENT_DATA: { icon: "?", word: "No data", kind: "unsure" },
  OK: { icon: "✓", word: "OK", kind: "good" },
};
/** How the state of an alarm is shown: tickets are amber, pages red; what lacks data says why. */
export function stateOf({ state, severity, absence }) {
  const shown = STATES[state];
  if (state === "ALARM" && severity === "ticket") return { ...shown, kind: "unsure" };
  return state === "INSUFFICIENT_DATA" && absence ? { ...shown, word: `${shown.word}: ${absence}` } : shown;
}

export const SEVERITIES = { page: "Page", ticket: "Ticket" };

let announced = null;

export function showHead(head) {
  const firing = isIdle(head) ? [] : firingOf(head.alarms);
  const unsure = notifying(head.alarms).filter((alarm) => alarm.state === "INSUFFICIENT_DATA");
  byId("brand").textContent = head.name;
  const silent = silenceOf(head);
  document.title = `${firing.length ? `(${firing.length}) ${firing[0].name}` : silent ? sentence(silent[0]) : "All quiet"} – ${head.name}`;
  byId("icon").href = favicon(firing);
  const data = { budgets: head.budgets, firing: firing.map((alarm) => [alarm, duration(head.time - alarm.since)]), unsure: unsure.length, silent, known: head.alarms.length };
  show(byId("summary"), data, () => summary(firing, unsure, head, silent));
  show(byId("source"), sourceText(head), (text) => text);
  announce(firing);
}

/** The alarms without those that are only parts of composite alarms. */
export const notifying = (alarms) => alarms.filter((alarm) => alarm.severity !== "part");

/** The firing alarms, pages first. */
function firingOf(alarms) {
  const order = ["page", "ticket"];
  return notifying(alarms)
    .filter((alarm) => alarm.state === "ALARM")
    .sort((one, other) => order.indexOf(one.severity) - order.indexOf(other.severity) || one.since - other.since);
}

const SILENT_SECONDS = 25; // more than two intervals of metrics
const STOPPED_SECONDS = 65; // more than the longest interval of metrics
const IDLE_SECONDS = 900; // after that, what fires only repeats that the service has stopped

/** What the recording lacks, and since when or for how long, if that is known; null where its newest line is recent. */
function silenceOf({ source, time }) {
  if (source.kind !== "follow" || source.state === "reading") return null;
  if (source.state === "waiting") return ["no recording yet"];
  if (source.newest === null) return ["no line yet"];
  const seconds = time - source.newest;
  if (seconds > STOPPED_SECONDS) return ["the service stopped", `at ${moment(source.newest, time)}`];
  return seconds > SILENT_SECONDS ? ["no line", `for ${duration(seconds)}`] : null;
}

const moment = (at, now) => `${day(at) === day(now) ? "" : `${day(at)} `}${clock(at)} UTC`;

const isIdle = (head) => silenceOf(head) !== null && head.time - head.source.newest > IDLE_SECONDS;

/** What to start where the page's time range has no line; null where it has some. */
export function startHint(head, start) {
  const silent = silenceOf(head);
  if (!silent || head.source.newest >= start) return null;
  return [`${sentence(silent.join(" "))}. `, h("code", {}, "make run"), " in another terminal starts the service, and this page then shows it."];
}

function summary(firing, unsure, head, silent) {
  const kind = firing.length ? stateOf(firing[0]).kind : silent ? "unsure" : "good";
  const icon = firing.length ? STATES.ALARM.icon : silent ? "?" : STATES.OK.icon;
  const title = firing.length ? `${firing.length} firing` : silent ? sentence(silent[0]) : "All quiet";
  const aside = asideOf(firing, unsure, head, silent);
  return [
    h("div", { class: `verdict ${kind}` }, h("span", { class: "icon", "aria-hidden": "true" }, icon), h("h1", {}, title), h("p", {}, h("a", { href: link("alarms") }, aside))),
    h("div", { class: "budgets" }, head.budgets.map(budget)),
    firing.length > 0 && h("ul", { class: `firing ${kind}` }, firing.map((alarm) => firingAlarm(alarm, head.time))),
  ].filter(Boolean);
}

function asideOf(firing, unsure, head, silent) {
  if (silent) return firing.length ? silent.join(" ") : sentence(silent[1] ?? "the current state is unknown");
  const all = plural(notifying(head.alarms).length, "alarm");
  if (firing.length) return `of ${all}`;
  return unsure.length ? `${plural(unsure.length, "alarm")} without data` : `${all}, none firing`;
}

const OBJECTIVE_SECONDS = 30 * 86400;

function budget({ name, percent, means, spent, seconds }) {
  const over = seconds < OBJECTIVE_SECONDS ? `, of ${duration(seconds)} recorded` : "";
  return h("div", { class: "budget", title: means },
    h("h2", {}, h("span", {}, sentence(name)), h("span", {}, `${percent} % over 30 days`)),
    spent === null ? h("p", {}, "No requests yet") : h("p", { class: spent > 100 && "bad" },
      h("b", {}, spent > 100 ? `▲ ${digits(spent / 100)}×` : `${digits(spent)} %`), h("span", {}, `${spent > 100 ? "" : "of "}the error budget spent${over}`)));
}

function firingAlarm(alarm, now) {
  return h("li", {},
    h("span", { class: `severity ${alarm.severity}` }, SEVERITIES[alarm.severity]),
    h("strong", {}, alarm.name),
    h("span", { class: "since" }, `since ${clock(alarm.since)}, ${duration(now - alarm.since)}`),
    h("a", { class: "runbook", href: changed({ runbook: alarm.name }) }, "Runbook"),
    h("p", {}, alarm.means),
    h("p", { class: "reason" }, alarm.reason));
}

const megabytes = (bytes) => `${Math.ceil(bytes / 1e6)} MB`;

const sentence = (text) => text[0].toUpperCase() + text.slice(1);

function sourceText({ source, time }) {
  const file = h("code", {}, source.path);
  const refused = source.refused ? `, ${plural(source.refused, "invalid line")}` : "";
  const read = `${plural(source.lines, "line")}${refused}`;
  const now = h("time", {}, `${day(time)} ${clock(time)} UTC`);
  if (source.kind === "replay") {
    const how = source.state === "ended" ? "Replayed" : `Replaying${source.speed ? ` at ${source.speed}×` : ""}, ${Math.round(source.share * 100)} %`;
    return [h("b", { class: "tag" }, "Replay"), ` ${how} `, file, `: ${read}. Time in the recording: `, now];
  }
  if (source.state === "waiting") return [h("b", { class: "tag" }, "Waiting"), " There is no ", file, " yet: ", h("code", {}, "make run"), " in another terminal creates it."];
  if (source.state === "reading") return [h("b", { class: "tag" }, "Catching up"), ` ${Math.round(source.share * 100)} % of `, file, " read."];
  const silent = silenceOf({ source, time });
  const size = `${megabytes(source.bytes)} of at most ${megabytes(source.max_bytes)}`;
  return [h("b", { class: `tag ${silent ? "unsure" : "live"}` }, silent ? "Silent" : "Live"), " ", file, `, ${size}: ${read}${silent ? `; ${silent.join(" ")}` : ""}. `, now];
}

function announce(firing) {
  const names = firing.map((alarm) => alarm.name);
  if (announced !== null) {
    const began = names.filter((name) => !announced.includes(name)).map((name) => `${name} is firing`);
    const ended = announced.filter((name) => !names.includes(name)).map((name) => `${name} is no longer firing`);
    if (began.length + ended.length) byId("announcement").textContent = [...began, ...ended].join("; ");
  }
  announced = names;
}

/** Reports that the server does not answer: all data on the page is old. */
export function showUnreachable(since) {
  document.title = "No server – On call";
  show(byId("source"), `unreachable ${since}`, () => [h("b", { class: "tag bad" }, "No server"), ` The server has not answered since ${clock(since)} UTC. The page shows the data from then, and retries every few seconds.`]);
}

function favicon(firing) {
  const count = firing.length;
  const canvas = h("canvas", { width: 32, height: 32 });
  const context = canvas.getContext("2d");
  context.fillStyle = { bad: "#c62828", unsure: "#8a5a00" }[count && stateOf(firing[0]).kind] ?? "#1a7f4b";
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
