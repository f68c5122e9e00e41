// Bearer tokens: jose verifies them by WebCrypto, with keys that are imported once.

import { importJWK, jwtVerify } from "jose";

let keys;

/** As many as an edge remembers. */
const REMEMBERED_MAX = 10_000;
const remembered = new Map();

/** As `claimsOf`, but a token that was verified is known again until it expires; the one that was verified longest ago goes first. */
export async function rememberedClaimsOf(request, env) {
  const token = bearer(request);
  if (token === undefined) return undefined;
  const known = remembered.get(token);
  if (known !== undefined && known.exp > Date.now() / 1000) return known;
  const claims = await verified(token, env);
  if (claims === undefined) return undefined;
  if (remembered.size >= REMEMBERED_MAX) remembered.delete(remembered.keys().next().value);
  remembered.set(token, claims);
  return claims;
}

/** What the request's token says, verified anew; nothing where it has none that is valid. */
export async function claimsOf(request, env) {
  const token = bearer(request);
  return token === undefined ? undefined : verified(token, env);
}

function bearer(request) {
  const authorization = request.headers.get("authorization") ?? "";
  return authorization.startsWith("Bearer ") ? authorization.slice(7) : undefined;
}

async function verified(token, env) {
  keys ??= await keysOf(env);
  try {
    const { payload } = await jwtVerify(token, keyFor, {
      issuer: env.ISSUER,
      audience: env.AUDIENCE,
      algorithms: ["HS256", "ES256", "EdDSA"],
    });
    return payload;
  } catch {
    return undefined;
  }
}

function keyFor({ kid, alg }) {
  const known = keys.get(kid);
  if (known?.alg !== alg) throw new Error("no such key");
  return known.key;
}

async function keysOf(env) {
  const jwks = JSON.parse(env.JWKS).keys;
  const imported = await Promise.all(jwks.map(async (jwk) => [jwk.kid, { alg: jwk.alg, key: await keyOf(jwk) }]));
  return new Map(imported);
}

function keyOf(jwk) {
  if (jwk.kty !== "oct") return importJWK(jwk, jwk.alg);
  return crypto.subtle.importKey("jwk", jwk, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
}
