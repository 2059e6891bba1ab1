// Elements, made without HTML: whatever a log says stays text.

/** An element; children are elements, text, or nothing. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (key === "style") for (const [property, amount] of Object.entries(value)) element.style.setProperty(property, amount);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

const shown = new WeakMap();

/** Fills an element anew, where what it shows has changed; the reader's focus and place stay. */
export function show(element, what, render) {
  const now = JSON.stringify(what);
  if (shown.get(element) === now) return;
  shown.set(element, now);
  const focus = focusIn(element);
  const { scrollTop, scrollLeft } = element.querySelector(".scroll") ?? {};
  element.replaceChildren(...[render(what)].flat());
  if (scrollTop || scrollLeft) element.querySelector(".scroll")?.scrollTo(scrollLeft, scrollTop);
  if (focus) reachable(element).find(focus)?.focus({ preventScroll: true });
}

const reachable = (element) => [...element.querySelectorAll("a[href], button, input, summary, [tabindex]")];

function focusIn(element) {
  const place = reachable(element).indexOf(document.activeElement);
  if (place < 0) return null;
  const href = document.activeElement.getAttribute("href");
  return (other, at) => (href ? other.getAttribute("href") === href : at === place);
}

/** HTML that our server made from this repository's Markdown, in which it lets no HTML through. */
export function rendered(html) {
  const nodes = new DOMParser().parseFromString(html, "text/html").body;
  for (const link of nodes.querySelectorAll("a[href^=http]")) {
    link.target = "_blank";
    link.rel = "noreferrer";
  }
  return [...nodes.childNodes].map((node) => document.adoptNode(node));
}
