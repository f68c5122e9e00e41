// Makes the keys and the tokens of the benchmark: node tokens.mjs FOLDER COUNT. Writes FOLDER/hs256.txt (one token),
// FOLDER/es256.txt (COUNT tokens, all distinct), FOLDER/unscoped.txt (valid, without the scope), FOLDER/refused.txt (tokens
// that nobody may take) and FOLDER/es256.pem (the public key), and prints the keys as a JSON Web Key Set.

import { createHmac, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { writeFileSync } from "node:fs";

const [folder, count] = [process.argv[2], Number(process.argv[3])];
// Letters and digits, since some configurations take a secret only as text.
const secret = randomBytes(24).toString("base64url");
const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
const now = Math.floor(Date.now() / 1000);

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function token(alg, kid, subject, signature, different = {}) {
  const claims = {
    iss: "https://issuer.bench.example",
    aud: "https://api.bench.example",
    sub: subject,
    scope: "bench",
    iat: now,
    exp: now + 24 * 3600,
    ...different,
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
const es256With = (different) => token("ES256", "es", "client-other", (text) => es256(Buffer.from(text)), different);
writeFileSync(`${folder}/unscoped.txt`, es256With({ scope: "other benches" }));

const stranger = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
const refused = [
  token("ES256", "es", "client-00000", (text) => sign("sha256", Buffer.from(text), { key: stranger, dsaEncoding: "ieee-p1363" })),
  token("HS256", "hs", "client-00000", (text) => createHmac("sha256", "another secret").update(text).digest()),
  token("none", "es", "client-00000", () => Buffer.from("")),
  es256With({ exp: now - 3600 }),
  es256With({ iss: "https://issuer.other.example" }),
  es256With({ aud: "https://api.other.example" }),
];
writeFileSync(`${folder}/refused.txt`, refused.join(""));
writeFileSync(`${folder}/es256.pem`, pair.publicKey.export({ format: "pem", type: "spki" }));

const { x, y } = pair.publicKey.export({ format: "jwk" });
const keys = [
  { kid: "hs", alg: "HS256", kty: "oct", k: Buffer.from(secret).toString("base64url") },
  { kid: "es", alg: "ES256", kty: "EC", crv: "P-256", x, y },
];
console.log(JSON.stringify({ keys }));
