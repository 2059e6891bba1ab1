// What lies over the page for a while: a runbook, the shortcuts.

import { ask } from "./api.js";
import { byId, h, rendered } from "./dom.js";
import { changed, here, link } from "./route.js";

const SHORTCUTS = [
  [["g", "s"], "the service"], [["g", "p"], "the platform"], [["g", "l"], "the log"], [["g", "t"], "the traces"],
  [["/"], "write a query"], [["."], "pause, or go on"], [["?"], "these shortcuts"], [["Esc"], "close this"],
];

function open(title, ...content) {
  byId("dialog-title").textContent = title;
  byId("dialog-body").replaceChildren(...content);
  const dialog = byId("dialog");
  if (!dialog.open) dialog.showModal();
}

export function showShortcuts() {
  const rows = SHORTCUTS.flatMap(([keys, does]) => [h("dt", {}, keys.map((key) => [h("kbd", {}, key), " "]).flat()), h("dd", {}, does)]);
  open("Shortcuts", h("dl", { class: "shortcuts" }, rows));
}

/** Shows the runbook that the page's address names, or closes it where it names none. */
export async function followRunbook() {
  const alarm = here().parameters.get("runbook");
  if (!alarm) {
    if (byId("dialog").dataset.runbook) byId("dialog").close();
    return;
  }
  byId("dialog").dataset.runbook = alarm;
  open("Runbook", ...(await runbook(alarm)));
  byId("dialog").scrollTo(0, 0);
}

async function runbook(alarm) {
  try {
    const [{ html }, queries] = await Promise.all([ask(`/api/runbook/${encodeURIComponent(alarm)}`), ask("/api/queries")]);
    const content = h("div", { class: "prose" }, rendered(html));
    content.querySelectorAll("a").forEach(pointHere);
    content.querySelectorAll("code").forEach((code) => pointToQuery(code, queries));
    return [content];
  } catch (error) {
    return [h("p", {}, error.message)];
  }
}

/** A link that works in the repository leads to the same place here, or else says where it leads there. */
function pointHere(anchor) {
  const href = anchor.getAttribute("href");
  const other = href.match(/^([a-z0-9-]+)\.md(#.*)?$/);
  if (other) anchor.setAttribute("href", changed({ runbook: other[1] }));
  else if (!/^(#|https?:)/.test(href)) anchor.replaceWith(...anchor.childNodes, " (", h("code", {}, href.replace(/^(\.\.\/)+|#.*$/g, "")), ")");
}

function pointToQuery(code, queries) {
  const name = code.textContent;
  if (code.closest("pre, a") || !queries.some((query) => query.name === name)) return;
  const anchor = h("a", { href: link("logs", { query: name }) });
  code.replaceWith(anchor);
  anchor.append(code);
}

export function setUpDialog() {
  const dialog = byId("dialog");
  byId("dialog-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    if (!dialog.dataset.runbook) return;
    delete dialog.dataset.runbook;
    if (here().parameters.get("runbook")) location.hash = changed({ runbook: "" });
  });
}
