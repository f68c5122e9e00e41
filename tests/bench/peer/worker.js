// What a good hand-written worker does for the same requests: Hono routes, jose verifies by WebCrypto each token that the isolate
// does not remember, the platform's own cache keeps responses, and every request gets what a worker in production gives it: an id, its trace continued, an event in
// a batch, and what proxies say of a request that they forward. Below /full/ and /counted-here/ it also does what the edge does
// there: scope, limit, split, headers. It knows one tenant, no rules that change, no steering, no explanation.

import { Hono } from "hono";
import { rememberedClaimsOf } from "./token.js";

const app = new Hono();

// Answered by the worker itself.
app.get("/local/open", (c) => refused(c, begin(c, "none"), 404, "Nothing here"));
app.get("/local/auth", withToken("local-auth", (c, seen) => refused(c, seen, 403, "Not allowed")));

// Answered by the upstream.
app.all("/open/*", async (c) => {
  const seen = begin(c, "open");
  return answered(c, seen, await forward(c, seen, headersFor(c, seen)));
});
app.all("/auth/*", withToken("auth", async (c, seen, claims) => {
  return answered(c, seen, await forward(c, seen, headersFor(c, seen, claims.sub)));
}));

// Answered by the upstream, with the whole pipeline. Only the edge tells these limits apart: this isolate counts all of them.
app.get("/full/*", withToken("full", (c, seen, claims) => full(c, seen, claims, PER_SUBJECT)));
app.get("/counted-here/*", withToken("counted-here", (c, seen, claims) => full(c, seen, claims, PER_SUBJECT_HERE)));
app.get("/limited/*", withToken("limited", (c, seen, claims) => full(c, seen, claims, FEW_PER_SUBJECT)));
app.get("/limited-here/*", withToken("limited-here", (c, seen, claims) => full(c, seen, claims, FEW_PER_SUBJECT_HERE)));

// Answered by the cache.
app.get("/cached/*", async (c) => {
  const seen = begin(c, "cached");
  const found = await caches.default.match(c.req.url);
  const answer = found ?? (await forward(c, seen, headersFor(c, seen)));
  if (found === undefined && answer.ok) c.executionCtx.waitUntil(caches.default.put(c.req.url, answer.clone()));
  const response = answered(c, seen, answer, { cache: found === undefined ? "miss" : "hit" });
  response.headers.set("cache-status", found === undefined ? "peer; fwd=uri-miss" : "peer; hit");
  return response;
});

export default app;

/** A handler of requests with a valid token. */
function withToken(route, handler) {
  return async (c) => {
    const seen = begin(c, route);
    const claims = await rememberedClaimsOf(c.req.raw, c.env);
    if (claims !== undefined) return handler(c, seen, claims);
    return refused(c, seen, 401, "A valid bearer token is needed", { "www-authenticate": "Bearer" });
  };
}

const PER_SUBJECT = { name: "per-subject", quota: 60_000_000, windowMs: 60_000, arrivals: new Map() };
const PER_SUBJECT_HERE = { ...PER_SUBJECT, name: "per-subject-here", arrivals: new Map() };
const FEW_PER_SUBJECT = { name: "few-per-subject", quota: 5, windowMs: 60_000, arrivals: new Map() };
const FEW_PER_SUBJECT_HERE = { ...FEW_PER_SUBJECT, name: "few-per-subject-here", arrivals: new Map() };
const SUBJECTS_MAX = 50_000;

async function full(c, seen, claims, limit) {
  if (!(claims.scope ?? "").split(" ").includes("bench")) return refused(c, seen, 403, "The scope is missing");
  const { allowed, remaining, seconds } = take(limit, claims.sub, seen.at);
  if (!allowed) return refused(c, seen, 429, "Too many requests", { "retry-after": `${seconds}` });
  const variant = hash(`checkout:${claims.sub}`) & 1 ? "classic" : "express";

  const headers = headersFor(c, seen, claims.sub);
  headers.set("x-edge", "bench");
  const answer = await forward(c, seen, headers);

  const response = answered(c, seen, answer, { variants: { checkout: variant } });
  response.headers.set("variant", `checkout=${variant}`);
  response.headers.set("x-checkout", variant);
  response.headers.set("ratelimit-policy", `"${limit.name}";q=${limit.quota};w=${limit.windowMs / 1000}`);
  response.headers.set("ratelimit", `"${limit.name}";r=${remaining};t=${seconds}`);
  return response;
}

/** What is known of a request from the beginning. */
function begin(c, route) {
  const request = c.req.raw;
  const { host, pathname, search } = new URL(request.url);
  return {
    id: crypto.randomUUID(),
    at: Date.now(),
    tenant: "bench",
    route,
    method: request.method,
    host,
    path: pathname,
    search,
    trace: traceOf(request.headers.get("traceparent")),
  };
}

/** The fields of a forwarded request: what proxies say (RFC 7239; RFC 9110, section 7.6.3), and the subject for the token. */
function headersFor(c, seen, subject) {
  const headers = new Headers(c.req.raw.headers);
  if (subject !== undefined) {
    headers.delete("authorization");
    headers.set("x-subject", subject);
  }
  const client = headers.get("x-forwarded-for") ?? "127.0.0.1";
  headers.set("via", "1.1 peer");
  headers.set("forwarded", `for=${client};host="${seen.host}";proto=http`);
  headers.set("x-forwarded-for", client);
  headers.set("x-forwarded-host", seen.host);
  headers.set("x-forwarded-proto", "http");
  headers.set("traceparent", seen.trace);
  return headers;
}

function forward(c, seen, headers) {
  const { method, body } = c.req.raw;
  return fetch(c.env.UPSTREAM + seen.path + seen.search, { method, headers, body, redirect: "manual" });
}

/** The response of an answer from elsewhere. */
function answered(c, seen, answer, more) {
  const elapsed = Date.now() - seen.at;
  const response = new Response(answer.body, answer);
  response.headers.set("decision", seen.id);
  response.headers.set("traceparent", seen.trace);
  response.headers.set("server-timing", `total;dur=${elapsed}`);
  log(c, { ...seen, outcome: "answered", status: answer.status, elapsed, ...more });
  return response;
}

/** An answer of its own (RFC 9457). */
function refused(c, seen, status, title, more) {
  const { id, trace } = seen;
  const headers = { "content-type": "application/problem+json", decision: id, traceparent: trace, ...more };
  log(c, { ...seen, outcome: "refused", status });
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
  const [, id, flags] = /^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$/.exec(parent ?? "") ?? [];
  return `00-${id ?? hexadecimal(32)}-${hexadecimal(16)}-${flags ?? "00"}`;
}

function hexadecimal(digits) {
  return crypto.randomUUID().replaceAll("-", "").slice(0, digits);
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
