"use strict";

// What Swagger UI renders, except for what people with a keyboard, a screen reader or a single server cannot use.
const accessible = ({ React: { createElement } }) => ({
  wrapComponents: {
    ServersContainer: () => () => null,
    DeepLink: () => ({ text }) => createElement("span", null, text), // a link in a button cannot be reached
    InfoContainer: () => ({ specSelectors, getComponent }) => {
      const info = specSelectors.info();
      return createElement(
        "header",
        { className: "info" },
        createElement("h1", null, info.get("title"), " ", createElement("small", null, info.get("version"))),
        createElement(
          "p",
          null,
          createElement("a", { href: "/" }, "Home"),
          " ",
          createElement("a", { href: "/openapi.json" }, "OpenAPI description"),
        ),
        createElement(getComponent("Markdown", true), { source: info.get("description") }),
      );
    },
  },
});

// Attributes that Swagger UI leaves out or gets wrong, by selector; null removes one.
const ATTRIBUTES = [
  [".close-modal", "aria-label", "Close"],
  [".copy-to-clipboard button", "aria-label", "Copy"],
  [".body-param__text", "aria-label", "Request body"],
  [".modal-btn", "aria-label", null], // it differs from the button's text
  [".responses-table", "role", null], // a table that is a region is no table
  [".modal-ux", "role", "dialog"],
  [".modal-ux", "aria-modal", "true"],
  [".modal-ux", "aria-label", "API key"],
  ["pre", "tabindex", "0"], // so that the keyboard can scroll it
  ["h3", "aria-level", "2"],
  ["h4", "aria-level", "3"],
  ["h5", "aria-level", "4"],
  ["h6", "aria-level", "4"],
];

const dialog = () => document.querySelector(".modal-ux");
let isOpen = false; // the dialog
let opener = document.body; // had the focus before the dialog

function mend() {
  for (const [selector, name, value] of ATTRIBUTES)
    for (const element of document.querySelectorAll(`#swagger-ui ${selector}`))
      if (value === null) element.removeAttribute(name);
      else element.setAttribute(name, value);
  for (const header of document.querySelectorAll(".col_header.response-col_status"))
    if (header.textContent !== "Status") header.textContent = "Status"; // instead of Code
  if (dialog()?.contains(document.activeElement) === false) dialog().querySelector("input, .modal-btn").focus();
  if (isOpen && !dialog()) opener.focus({ preventScroll: true });
  isOpen = dialog() !== null;
}

new MutationObserver(mend).observe(document.getElementById("swagger-ui"), { childList: true, subtree: true });
document.addEventListener("focusin", ({ target }) => {
  if (!dialog()) opener = target;
});
document.addEventListener("keydown", (event) => {
  if (!dialog()) return;
  if (event.key === "Escape") document.querySelector(".close-modal").click();
  if (event.key === "Tab") {
    const stops = [...dialog().querySelectorAll("input, button")];
    stops.at((stops.indexOf(document.activeElement) + (event.shiftKey ? -1 : 1)) % stops.length).focus();
    event.preventDefault(); // outside of the dialog, the page would scroll
  }
});

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  plugins: [accessible],
  syntaxHighlight: { theme: "tomorrow-night" },
  tryItOutEnabled: true,
  validatorUrl: null, // send the description to no external validator
});
