// What a good hand-written worker does for the same requests: Hono routes, jose verifies by WebCrypto with keys imported
// once, and the platform's own cache keeps responses. It verifies every token anew, as jose does. Below /full/ it does what
// the edge does there: scope, limit, split, headers, ids and an event. It knows one tenant, no rules that change, no
// steering, no explanation.

import { Hono } from "hono";
import { importJWK, jwtVerify } from "jose";

let keys;

async function keysOf(env) {
  const jwks = JSON.parse(env.JWKS).keys;
  const imported = await Promise.all(jwks.map(async (jwk) => [jwk.kid, { alg: jwk.alg, key: await keyOf(jwk) }]));
  return new Map(imported);
}

function keyOf(jwk) {
  if (jwk.kty !== "oct") return importJWK(jwk, jwk.alg);
  return crypto.subtle.importKey("jwk", jwk, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
}

const app = new Hono();

const authenticated = async (c, next) => {
  keys ??= await keysOf(c.env);
  const authorization = c.req.header("authorization") ?? "";
  if (!authorization.startsWith("Bearer ")) return c.json({ title: "A bearer token is needed", status: 401 }, 401);
  try {
    const find = ({ kid, alg }) => {
      const known = keys.get(kid);
      if (known?.alg !== alg) throw new Error("no such key");
      return known.key;
    };
    const { payload } = await jwtVerify(authorization.slice(7), find, {
      issuer: c.env.ISSUER,
      audience: c.env.AUDIENCE,
      algorithms: ["HS256", "ES256", "EdDSA"],
    });
    c.set("subject", payload.sub);
    c.set("scope", payload.scope);
  } catch {
    return c.json({ title: "The token is not valid", status: 401 }, 401);
  }
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

// Answered by the upstream, with the whole pipeline.
app.get("/full/*", authenticated, (c) => full(c, PER_SUBJECT));
app.get("/limited/*", authenticated, (c) => full(c, FEW_PER_SUBJECT));

const PER_SUBJECT = { name: "per-subject", quota: 60_000_000, windowMs: 60_000, arrivals: new Map() };
const FEW_PER_SUBJECT = { name: "few-per-subject", quota: 5, windowMs: 60_000, arrivals: new Map() };
const SUBJECTS_MAX = 10_000;

async function full(c, limit) {
  const now = Date.now();
  const id = crypto.randomUUID();
  const request = c.req.raw;
  const { host, pathname, search } = new URL(request.url);
  const trace = traceOf(request.headers.get("traceparent"));
  const seen = { id, at: now, tenant: "bench", route: c.req.routePath, method: request.method, host, path: pathname, trace };
  if (!(c.get("scope") ?? "").split(" ").includes("bench")) {
    log(c, { ...seen, outcome: "denied", status: 403 });
    return problem(403, "The scope is missing", id, trace);
  }
  const subject = c.get("subject");
  const { allowed, remaining, seconds } = take(limit, subject, now);
  if (!allowed) {
    log(c, { ...seen, outcome: "limited", status: 429 });
    return problem(429, "Too many requests", id, trace, { "Retry-After": `${seconds}` });
  }
  const variant = hash(`checkout:${subject}`) & 1 ? "classic" : "express";

  const headers = new Headers(request.headers);
  headers.delete("authorization");
  headers.set("x-subject", subject);
  headers.set("x-edge", "bench");
  headers.set("via", "1.1 peer");
  const client = request.headers.get("x-forwarded-for") ?? "127.0.0.1";
  headers.set("forwarded", `for=${client};host="${host}";proto=http`);
  headers.set("x-forwarded-for", client);
  headers.set("x-forwarded-host", host);
  headers.set("x-forwarded-proto", "http");
  headers.set("traceparent", trace);
  const answer = await fetch(c.env.UPSTREAM + pathname + search, { method: request.method, headers, redirect: "manual" });

  const response = new Response(answer.body, answer);
  response.headers.set("decision", id);
  response.headers.set("variant", `checkout=${variant}`);
  response.headers.set("x-checkout", variant);
  response.headers.set("traceparent", trace);
  response.headers.set("ratelimit-policy", `"${limit.name}";q=${limit.quota};w=${limit.windowMs / 1000}`);
  response.headers.set("ratelimit", `"${limit.name}";r=${remaining};t=${seconds}`);
  const elapsed = Date.now() - now;
  response.headers.set("server-timing", `origin;dur=${elapsed}`);
  log(c, { ...seen, outcome: "forwarded", status: answer.status, variants: { checkout: variant }, elapsed });
  return response;
}

function problem(status, title, id, trace, more) {
  const headers = { "Content-Type": "application/problem+json", decision: id, traceparent: trace, ...more };
  return new Response(JSON.stringify({ title, status, decision: id }), { status, headers });
}

/** Counts a request of the subject: the generic cell rate algorithm, with the whole quota as burst. */
function take(limit, subject, now) {
  const { quota, windowMs, arrivals } = limit;
  const intervalMs = windowMs / quota;
  const next = Math.max(arrivals.get(subject) ?? 0, now) + intervalMs;
  const aheadMs = next - now;
  if (aheadMs > windowMs) return { allowed: false, remaining: 0, seconds: Math.ceil((aheadMs - windowMs) / 1000) };
  if (arrivals.size >= SUBJECTS_MAX && !arrivals.has(subject)) arrivals.delete(arrivals.keys().next().value);
  arrivals.set(subject, next);
  return { allowed: true, remaining: Math.floor((windowMs - aheadMs) / intervalMs), seconds: Math.ceil(aheadMs / 1000) };
}

/** FNV-1a, its bits mixed as MurmurHash3 does at the end, so that each of them splits evenly. */
function hash(text) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** The client's trace continued, or a new one (W3C Trace Context). */
function traceOf(parent) {
  const random = crypto.randomUUID().replaceAll("-", "");
  const [, id, flags] = /^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$/.exec(parent ?? "") ?? [];
  return `00-${id ?? crypto.randomUUID().replaceAll("-", "")}-${random.slice(0, 16)}-${flags ?? "00"}`;
}

const EVENTS_MAX = 500;
const EVENTS_WAIT_MS = 500;
let events = [];

/** One event a request, sent in batches: when a batch is full, and half a second after its first event. */
function log(c, event) {
  events.push(event);
  if (events.length === 1) c.executionCtx.waitUntil(scheduler.wait(EVENTS_WAIT_MS).then(() => flush(c.env)));
  if (events.length >= EVENTS_MAX) c.executionCtx.waitUntil(flush(c.env));
}

async function flush(env) {
  if (events.length === 0) return;
  const body = JSON.stringify({ edge: "peer", events });
  events = [];
  const headers = { "content-type": "application/json" };
  const answer = await fetch(`${env.UPSTREAM}/events`, { method: "POST", headers, body });
  if (!answer.ok) console.warn(`events refused: status ${answer.status}`);
}

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
