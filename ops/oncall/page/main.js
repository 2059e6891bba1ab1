// The page: shows the part that the URL names, and refreshes it regularly.

import { Alarms } from "./alarms.js";
import { request, RequestRefused, ServerUnreachable } from "./api.js";
import { Dashboard } from "./dashboard.js";
import { setUpDialog, showRunbook, showShortcuts } from "./dialog.js";
import { byId, h } from "./dom.js";
import { showHead, showUnreachable } from "./head.js";
import { setUpKeys } from "./keys.js";
import { Logs } from "./logs.js";
import { setUpRange, showRange } from "./range.js";
import { here, keepRange, link } from "./route.js";
import { Trace, Traces } from "./traces.js";

const REFRESH_MS = 5000;
const CATCHING_UP_MS = 1000;
const HIDDEN_MS = 15000; // in a background tab, whose title still shows firing alarms
const SETTLE_SECONDS = 90; // after which all metrics of a time have arrived

let page = null; // the content of the main part
let place = ""; // its name in the URL
let isOver = false; // whether the content is of a time of which no further data is expected
let paused = false;
let answeredAt = Date.now() / 1000;
let timer = 0;
let latest = 0;

function pageFor({ page: name, argument }) {
  const main = byId("main");
  if (name === "alarms") return new Alarms(main);
  if (name === "logs") return new Logs(main);
  if (name === "traces") return new Traces(main);
  if (name === "trace") return new Trace(main, argument);
  return new Dashboard(main, name);
}

async function go() {
  const target = here();
  const name = target.argument ? `${target.page}/${target.argument}` : target.page;
  if (name !== place) {
    page?.close?.();
    place = name;
    page = pageFor(target);
    scrollTo(0, 0);
  }
  mark(target.page);
  showRange();
  showRunbook().then(keepRange);
  await refresh();
}

/** Requests and shows the data, and schedules the next refresh. */
async function refresh({ isOnlyHead = false } = {}) {
  clearTimeout(timer);
  const mine = (latest += 1);
  const asked = page;
  let pause = document.hidden ? HIDDEN_MS : REFRESH_MS;
  try {
    const found = isOnlyHead ? { head: await request("/api/head") } : await asked.refresh(here().range);
    if (mine !== latest || asked !== page) return; // the user has opened another page meanwhile
    answeredAt = Date.now() / 1000;
    delete document.body.dataset.unreachable;
    if (tabs(found.head.dashboards)) mark(here().page);
    showHead(found.head);
    found.draw?.();
    if (!document.hidden) pause = page.refreshMs ?? pause;
    keepRange();
    showRange(found.head.time);
    if (!isOnlyHead) isOver = isSettled(found.head);
    if (found.head.source.state === "reading") pause = CATCHING_UP_MS;
  } catch (error) {
    if (mine !== latest) return;
    if (error instanceof RequestRefused) refused(error.message);
    else if (error instanceof ServerUnreachable) unreachable();
    else throw error;
  } finally {
    if (mine === latest) timer = setTimeout(() => refresh({ isOnlyHead: paused || isOver || document.hidden }), pause);
  }
}

function isSettled({ source, time }) {
  return !["reading", "waiting"].includes(source.state) && Number(here().range.to) < time - SETTLE_SECONDS;
}

function refused(problem) {
  byId("main").replaceChildren(h("p", { class: "panel nothing" }, problem));
  place = ""; // the page is built again when its URL changes
}

function unreachable() {
  document.body.dataset.unreachable = "";
  showUnreachable(answeredAt);
}

let listed = "";

/** Creates the tabs; returns whether they have changed. */
function tabs(dashboards) {
  if (listed === String(dashboards)) return false;
  listed = String(dashboards);
  const names = [...dashboards, "logs", "traces", "alarms"];
  byId("tabs").replaceChildren(...names.map((name) => h("a", { href: link(name), "data-page": name }, name[0].toUpperCase() + name.slice(1))));
  return true;
}

function mark(name) {
  document.body.dataset.page = name;
  for (const tab of byId("tabs").children) {
    if (tab.dataset.page === (name === "trace" ? "traces" : name)) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

function togglePause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Resume" : "Pause";
  document.body.toggleAttribute("data-paused", paused);
  if (!paused) refresh();
}

function setUpTheme() {
  const root = document.documentElement;
  const isDark = () => root.dataset.theme === "dark";
  const label = () => {
    byId("theme").textContent = isDark() ? "Light" : "Dark";
    byId("theme").setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
    page?.redraw?.();
  };
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });
  new MutationObserver(label).observe(root, { attributeFilter: ["data-theme"] });
  label();
}

function writeQuery() {
  if (here().page !== "logs") location.hash = link("logs");
  setTimeout(() => page.focusQuery?.());
}

setUpRange();
setUpTheme();
setUpDialog();
setUpKeys({ goTo: (name) => (location.hash = link(name)), writeQuery, toggleTail: () => page.toggleTail?.(), togglePause, showShortcuts });
byId("pause").addEventListener("click", togglePause);
byId("help").addEventListener("click", showShortcuts);
addEventListener("hashchange", go);
addEventListener("visibilitychange", () => document.hidden || refresh({ isOnlyHead: paused }));
go();
