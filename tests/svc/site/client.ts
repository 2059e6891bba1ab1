// Uses the client that is generated in api.ts, and prints what it got: node client.js URL KEY
import createClient from "openapi-fetch";
import type { paths } from "./api.js";

declare const process: { argv: string[] };

const [baseUrl, key] = process.argv.slice(2);
const urls: string[] = [];
const client = createClient<paths>({
  baseUrl: baseUrl!,
  headers: { Authorization: `Bearer ${key}` },
  fetch: (request) => {
    urls.push(request.url);
    return fetch(request);
  },
});

const headers = { "Idempotency-Key": "typescript" };
const body = { name: "Sofía", money: "12.50" };
const added = [
  await client.POST("/add", { body, params: { header: headers } }),
  await client.POST("/add", { body, params: { header: headers } }),
  await client.POST("/add", {
    body: { name: "Ann", money: "1" },
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  }),
].map(({ data }) => data!.id);

const listed = [];
for (let after: number | undefined = 0; after !== undefined; ) {
  const { data, response }: { data?: { id: number }[]; response: Response } = await client.GET("/getall", {
    params: { query: { limit: 2, after } },
  });
  listed.push(...data!.map(({ id }) => id));
  const next = /after=(\d+)/.exec(response.headers.get("Link") ?? "");
  after = next ? Number(next[1]) : undefined;
}

const { data: sofia } = await client.GET("/get/{id}", { params: { path: { id: added[0]! } } });
const problems = [
  (await client.GET("/get/{id}", { params: { path: { id: 999999 } } })).error!,
  (await client.POST("/add", { body: { name: "Ann", money: "much" } })).error!,
  (await client.POST("/add", { body: { ...body, money: "13" }, params: { header: headers } })).error!,
].map(({ type, status, field }) => [type, status, field ?? null]);

console.log(JSON.stringify({ added, listed, sofia, problems, urls }));
