// The page's URL: #/service, #/logs?query=faults, #/trace/<id>.

export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...rest] = path.split("/").map(decodeURIComponent);
  return { page: page || "service", argument: rest[0] ?? "", parameters: new URLSearchParams(query) };
}

export function link(page, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return `#/${page}${query && `?${query}`}`;
}

/** A link to the current page with changed parameters; an empty parameter is removed. */
export function changed(parameters) {
  const { page, argument, parameters: all } = here();
  for (const [name, value] of Object.entries(parameters)) {
    if (value) all.set(name, value);
    else all.delete(name);
  }
  return link(argument ? `${page}/${argument}` : page, Object.fromEntries(all));
}
