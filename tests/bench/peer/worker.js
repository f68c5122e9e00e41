// What a good hand-written worker does for the same requests: Hono routes, jose verifies by WebCrypto with keys imported
// once, and the platform's own cache keeps responses. It verifies every token anew, as jose does. It knows one tenant, no
// rules that change, no limits, no steering, no explanation: the JWT and the forwarding alone.

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
