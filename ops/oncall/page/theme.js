// Not a module: it runs before the first paint, so that the page never flashes in the other colours.
"use strict";

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const useTheme = () => {
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (systemIsDark.matches ? "dark" : "light");
};
systemIsDark.addEventListener("change", useTheme);
useTheme();
