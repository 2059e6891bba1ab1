// Keyboard shortcuts. They are off while the user types in a field.

const PAGES = { s: "service", p: "platform", r: "requests", l: "logs", t: "traces", a: "alarms" };
const SECOND_KEY_MS = 1200; // within which the second key of a shortcut has to follow

export function setUpKeys({ goTo, writeQuery, toggleTail, togglePause, showShortcuts }) {
  const actions = { "/": writeQuery, l: toggleTail, ".": togglePause, "?": showShortcuts };
  let begun = -Infinity; // when "g" was pressed, if nothing was since
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) {
      if (event.key === "Escape") event.target.blur?.();
      return;
    }
    const isSecond = event.timeStamp - begun < SECOND_KEY_MS;
    begun = -Infinity;
    if (isSecond && PAGES[event.key]) goTo(PAGES[event.key]);
    else if (event.key === "g") begun = event.timeStamp;
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });
}

const isTyping = (target) => target.matches?.("textarea, select, input:not([type=radio], [type=checkbox])");
