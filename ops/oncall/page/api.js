// What the server is asked.

export class Refused extends Error {}
export class Lost extends Error {}

/** An answer; throws Refused with the server's own sentence, or Lost where there is no server. */
export async function ask(path, parameters = {}) {
  const url = new URL(path, location.origin);
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined && value !== "") url.searchParams.set(name, value);
  const [isAnswered, answer] = await sent(url);
  if (!isAnswered) throw new Refused(answer.problem);
  return answer;
}

async function sent(url) {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(20000) });
    return [response.ok, await response.json()];
  } catch (error) {
    throw new Lost(error.message, { cause: error });
  }
}
