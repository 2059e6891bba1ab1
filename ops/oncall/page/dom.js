// Creates elements without HTML, so that the content of logs stays text.

/** Creates an element; children are elements, texts, null, undefined or false. */
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

/** Renders data into an element where the data has changed. Keeps the focus and the scroll position. */
export function show(element, data, render) {
  const json = JSON.stringify(data);
  if (shown.get(element) === json) return;
  shown.set(element, json);
  const focus = focusIn(element);
  const { scrollTop, scrollLeft } = element.querySelector(".scroll") ?? {};
  element.replaceChildren(...[render(data)].flat());
  if (scrollTop || scrollLeft) element.querySelector(".scroll")?.scrollTo(scrollLeft, scrollTop);
  if (focus) focusable(element).find(focus)?.focus({ preventScroll: true });
}

const focusable = (element) => [...element.querySelectorAll("a[href], button, input, summary, [tabindex]")];

function focusIn(element) {
  const place = focusable(element).indexOf(document.activeElement);
  if (place < 0) return null;
  const href = document.activeElement.getAttribute("href");
  return (other, at) => (href ? other.getAttribute("href") === href : at === place);
}

/** The nodes of HTML that the server rendered from this repository's Markdown, with HTML in it escaped. */
export function rendered(html) {
  const nodes = new DOMParser().parseFromString(html, "text/html").body;
  for (const link of nodes.querySelectorAll("a[href^=http]")) {
    link.target = "_blank";
    link.rel = "noreferrer";
  }
  return [...nodes.childNodes].map((node) => document.adoptNode(node));
}
