// The page's URL: #/service, #/logs?query=faults, #/trace/<id>. Each also has a time range: minutes=60, or from=…&to=….

const DEFAULT_MINUTES = 15;
const RANGE = ["minutes", "from", "to"];

export function here() {
  return parsed(location.hash);
}

function parsed(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...rest] = path.split("/").map(decodeURIComponent);
  const parameters = new URLSearchParams(query);
  return { page: page || "service", argument: rest[0] ?? "", parameters, range: rangeOf(parameters) };
}

/** The time range, as parameters of a request: the last minutes, or from one second since 1970 to another. */
function rangeOf(parameters) {
  if (parameters.has("from") || parameters.has("to")) return { from: parameters.get("from") ?? "", to: parameters.get("to") ?? "" };
  return { minutes: parameters.get("minutes") ?? localStorage.getItem("minutes") ?? DEFAULT_MINUTES };
}

const hasRange = (parameters) => RANGE.some((name) => name in parameters);

/** The range in the page's URL, if it has one. */
const ownRange = () => Object.fromEntries([...here().parameters].filter(([name]) => RANGE.includes(name)));

/** A link to a page in the time range of the current one, unless the parameters have another. */
export function link(page, parameters = {}) {
  const query = new URLSearchParams({ ...parameters, ...(!hasRange(parameters) && ownRange()) }).toString();
  return `#/${page}${query && `?${query}`}`;
}

/** A link to the current page with changed parameters; an empty parameter is removed. A new range replaces the old one. */
export function changed(parameters) {
  const { page, argument, parameters: all } = here();
  if (hasRange(parameters)) RANGE.forEach((name) => all.delete(name));
  for (const [name, value] of Object.entries(parameters)) {
    if (value) all.set(name, value);
    else all.delete(name);
  }
  return link(argument ? `${page}/${argument}` : page, Object.fromEntries(all));
}

/** Takes links that were rendered earlier, or by the server, into the current range. Those marked data-range have their own. */
export function keepRange() {
  for (const anchor of document.querySelectorAll('a[href^="#/"]:not([data-range])')) {
    const { page, argument, parameters } = parsed(anchor.getAttribute("href"));
    RANGE.forEach((name) => parameters.delete(name));
    anchor.setAttribute("href", link(argument ? `${page}/${argument}` : page, Object.fromEntries(parameters)));
  }
}
