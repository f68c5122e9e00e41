// Makes the keys and the tokens of the benchmark: node tokens.mjs FOLDER COUNT. Writes FOLDER/hs256.txt (one token) and
// FOLDER/es256.txt (COUNT tokens, all distinct), and prints the keys as a JSON Web Key Set.

import { createHmac, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { writeFileSync } from "node:fs";

const [folder, count] = [process.argv[2], Number(process.argv[3])];
const secret = randomBytes(32);
const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
const now = Math.floor(Date.now() / 1000);

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function token(alg, kid, subject, signature) {
  const claims = {
    iss: "https://issuer.bench.example",
    aud: "https://api.bench.example",
    sub: subject,
    scope: "bench",
    iat: now,
    exp: now + 24 * 3600,
  };
  const signed = `${encode({ alg, typ: "JWT", kid })}.${encode(claims)}`;
  return `${signed}.${signature(signed).toString("base64url")}\n`;
}

const hs256 = (text) => createHmac("sha256", secret).update(text).digest();
const es256 = (text) => sign("sha256", text, { key: pair.privateKey, dsaEncoding: "ieee-p1363" });

writeFileSync(`${folder}/hs256.txt`, token("HS256", "hs", "client-00000", hs256));
const tokens = Array.from({ length: count }, (_, index) =>
  token("ES256", "es", `client-${String(index).padStart(5, "0")}`, (text) => es256(Buffer.from(text))),
);
writeFileSync(`${folder}/es256.txt`, tokens.join(""));

const { x, y } = pair.publicKey.export({ format: "jwk" });
const keys = [
  { kid: "hs", alg: "HS256", kty: "oct", k: secret.toString("base64url") },
  { kid: "es", alg: "ES256", kty: "EC", crv: "P-256", x, y },
];
console.log(JSON.stringify({ keys }));
