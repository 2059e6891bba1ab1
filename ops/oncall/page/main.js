// The page: shows the part that the URL names, and refreshes it regularly.

import { request, RequestRefused, ServerUnreachable } from "./api.js";
import { Dashboard } from "./dashboard.js";
import { setUpDialog, showRunbook, showShortcuts } from "./dialog.js";
import { byId, h } from "./dom.js";
import { showHead, showUnreachable } from "./head.js";
import { setUpKeys } from "./keys.js";
import { Logs } from "./logs.js";
import { here, link } from "./route.js";
import { Trace, Traces } from "./traces.js";

const REFRESH_MS = 5000;
const CATCHING_UP_MS = 1000;
const HIDDEN_MS = 15000; // in a background tab, whose title still shows firing alarms
const RANGES = [[5, "5 m"], [15, "15 m"], [60, "1 h"], [180, "3 h"]];

let page = null; // the content of the main part
let place = ""; // its name in the URL
let minutes = Number(localStorage.getItem("minutes")) || 15;
let paused = false;
let answeredAt = Date.now() / 1000;
let timer = 0;
let latest = 0;

function pageFor({ page: name, argument }) {
  const main = byId("main");
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
  showRunbook();
  await refresh();
}

/** Requests and shows the data, and schedules the next refresh. */
async function refresh({ isOnlyHead = false } = {}) {
  clearTimeout(timer);
  const mine = (latest += 1);
  const asked = page;
  let pause = document.hidden ? HIDDEN_MS : REFRESH_MS;
  try {
    const found = isOnlyHead ? { head: await request("/api/head") } : await asked.refresh({ minutes });
    if (mine !== latest || asked !== page) return; // the user has opened another page meanwhile
    answeredAt = Date.now() / 1000;
    delete document.body.dataset.unreachable;
    if (tabs(found.head.dashboards)) mark(here().page);
    showHead(found.head);
    found.draw?.();
    if (found.head.source.state === "reading") pause = CATCHING_UP_MS;
  } catch (error) {
    if (mine !== latest) return;
    if (error instanceof RequestRefused) byId("main").replaceChildren(h("p", { class: "panel nothing" }, error.message));
    else if (error instanceof ServerUnreachable) unreachable();
    else throw error;
  } finally {
    if (mine === latest) timer = setTimeout(() => refresh({ isOnlyHead: paused || document.hidden }), pause);
  }
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
  const names = [...dashboards, "logs", "traces"];
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

function setUpRanges() {
  for (const [value, label] of RANGES) {
    const input = h("input", { type: "radio", name: "range", value, checked: value === minutes });
    input.addEventListener("change", () => {
      minutes = value;
      localStorage.setItem("minutes", value);
      refresh();
    });
    byId("ranges").append(h("label", {}, input, h("span", {}, label)));
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

setUpRanges();
setUpTheme();
setUpDialog();
setUpKeys({ goTo: (name) => (location.hash = link(name)), writeQuery, togglePause, showShortcuts });
byId("pause").addEventListener("click", togglePause);
byId("help").addEventListener("click", showShortcuts);
addEventListener("hashchange", go);
addEventListener("visibilitychange", () => document.hidden || refresh({ isOnlyHead: paused }));
go();
