// Shortcuts, which stay out of the way of who types.

const PAGES = { s: "service", p: "platform", l: "logs", t: "traces" };
const SECOND_MS = 1200; // for the second key of two

export function setUpKeys({ goTo, writeQuery, togglePause, showShortcuts }) {
  const actions = { "/": writeQuery, ".": togglePause, "?": showShortcuts };
  let begun = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) {
      if (event.key === "Escape") event.target.blur?.();
      return;
    }
    const isSecond = event.timeStamp - begun < SECOND_MS;
    begun = 0;
    if (isSecond && PAGES[event.key]) goTo(PAGES[event.key]);
    else if (event.key === "g") begun = event.timeStamp;
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });
}

const isTyping = (target) => target.matches?.("textarea, select, input:not([type=radio], [type=checkbox])");
