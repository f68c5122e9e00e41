// Bearer tokens: jose verifies them by WebCrypto, with keys that are imported once. It verifies every token anew.

import { importJWK, jwtVerify } from "jose";

let keys;

/** What the request's token says; nothing where it has none that is valid. */
export async function claimsOf(request, env) {
  keys ??= await keysOf(env);
  const authorization = request.headers.get("authorization") ?? "";
  if (!authorization.startsWith("Bearer ")) return undefined;
  try {
    const { payload } = await jwtVerify(authorization.slice(7), keyFor, {
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
