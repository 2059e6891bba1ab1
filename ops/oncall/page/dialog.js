// The dialog: a runbook, or the keyboard shortcuts.

import { request } from "./api.js";
import { byId, h, rendered } from "./dom.js";
import { changed, here, link } from "./route.js";

const SHORTCUTS = [
  [["g", "s"], "service dashboard"], [["g", "p"], "platform dashboard"], [["g", "r"], "requests dashboard"], [["g", "l"], "logs"], [["g", "t"], "traces"], [["g", "a"], "alarms"],
  [["/"], "write a query"], [["l"], "start or stop the live tail of the logs"], [["."], "pause or resume updates"], [["?"], "show these shortcuts"], [["Esc"], "close the dialog"],
];

function open(title, ...content) {
  byId("dialog-title").textContent = title;
  byId("dialog-body").replaceChildren(...content);
  const dialog = byId("dialog");
  if (!dialog.open) dialog.showModal();
}

export function showShortcuts() {
  const rows = SHORTCUTS.flatMap(([keys, action]) => [h("dt", {}, keys.map((key) => [h("kbd", {}, key), " "]).flat()), h("dd", {}, action)]);
  open("Keyboard shortcuts", h("dl", { class: "shortcuts" }, rows));
}

/** Shows the runbook in the page's URL, or closes the dialog where there is none. */
export async function showRunbook() {
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
    const [{ html }, queries] = await Promise.all([request(`/api/runbook/${encodeURIComponent(alarm)}`), request("/api/queries")]);
    const content = h("div", { class: "prose" }, rendered(html));
    content.querySelectorAll("a").forEach(adaptLink);
    content.querySelectorAll("code").forEach((code) => linkQuery(code, queries));
    content.querySelectorAll("pre").forEach(addCopyButton);
    return [content];
  } catch (error) {
    return [h("p", {}, error.message)];
  }
}

/** Makes a link of the repository work on this page, or replaces it by its text and its path in the repository. */
function adaptLink(anchor) {
  const href = anchor.getAttribute("href");
  const other = href.match(/^([a-z0-9-]+)\.md(#.*)?$/);
  if (other) anchor.setAttribute("href", changed({ runbook: other[1] }));
  else if (!/^(#|https?:)/.test(href)) anchor.replaceWith(...anchor.childNodes, " (", h("code", {}, href.replace(/^(\.\.\/)+|#.*$/g, "")), ")");
}

function linkQuery(code, queries) {
  const name = code.textContent;
  if (code.closest("pre, a") || !queries.some((query) => query.name === name)) return;
  const anchor = h("a", { href: link("logs", { query: name }) });
  code.replaceWith(anchor);
  anchor.append(code);
}

const COPIED_MS = 3000; // how long the button says so

/** Adds a button that copies a block of commands, and says whether it could: some browsers ask, or refuse. */
function addCopyButton(block) {
  const text = block.textContent.trimEnd();
  const button = h("button", { type: "button", "aria-live": "polite" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block);
      button.textContent = "Selected: press Ctrl-C";
    }
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  });
  const frame = h("div", { class: "copied" });
  block.replaceWith(frame);
  frame.append(button, block);
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
