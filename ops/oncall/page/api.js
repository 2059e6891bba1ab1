// Requests to the server.

export class RequestRefused extends Error {}
export class ServerUnreachable extends Error {}

/** The JSON of a response. Throws RequestRefused with the server's message, or ServerUnreachable. */
export async function request(path, parameters = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined && value !== "") url.searchParams.set(name, value);
  const [isOk, body] = await send(url);
  if (!isOk) throw new RequestRefused(body.problem);
  return body;
}

async function send(url) {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(20000) });
    return [response.ok, await response.json()];
  } catch (error) {
    throw new ServerUnreachable(error.message, { cause: error });
  }
}
