// The least that answers: Hono routes, jose verifies, and the platform's own cache keeps responses. No ids, no trace, no
// event, nothing said to the upstream of whom it forwards for, no limit and no split: what nobody would run, and nobody can
// call slowed.

import { Hono } from "hono";
import { claimsOf } from "./token.js";

const app = new Hono();

const authenticated = async (c, next) => {
  const claims = await claimsOf(c.req.raw, c.env);
  if (claims === undefined) return c.json({ title: "A valid bearer token is needed", status: 401 }, 401);
  c.set("subject", claims.sub);
  return next();
};

const forwarded = (c) => {
  const url = new URL(c.req.url);
  const headers = new Headers(c.req.raw.headers);
  headers.delete("authorization");
  const subject = c.get("subject");
  if (subject !== undefined) headers.set("x-subject", subject);
  return fetch(c.env.UPSTREAM + url.pathname + url.search, { method: c.req.method, headers, body: c.req.raw.body });
};

// Answered by the worker itself.
app.get("/local/open", (c) => c.json({ title: "Nothing here", status: 404 }, 404));
app.get("/local/auth", authenticated, (c) => c.json({ title: "Not allowed", status: 403, subject: c.get("subject") }, 403));

// Answered by the upstream.
app.all("/open/*", forwarded);
app.all("/auth/*", authenticated, forwarded);

// Answered by the cache.
app.get("/cached/*", async (c) => {
  const found = await caches.default.match(c.req.url);
  if (found !== undefined) {
    const response = new Response(found.body, found);
    response.headers.set("Cache-Status", "peer; hit");
    return response;
  }
  const response = await forwarded(c);
  if (response.ok) c.executionCtx.waitUntil(caches.default.put(c.req.url, response.clone()));
  return response;
});

export default app;
