// The JavaScript half of the boundary: each function does as much as it can in one crossing. Header fields travel as
// one text, a line for every name and every value in turn, since neither can hold a line feed.

/** Of a request: method, URL, whether there is a body, what Cloudflare knows of the place, then the header fields. */
export function head(request) {
  const method = request.method;
  const bodied = method !== "GET" && method !== "HEAD" && request.body !== null;
  const cf = request.cf;
  // The local runtime's `cf` holds the peer's address only.
  const place = cf?.country === undefined
    ? ""
    : [cf.country, cf.continent, cf.regionCode, cf.city, cf.timezone, cf.asn, cf.longitude, cf.latitude].join("\t");
  let text = `${method}\n${request.url}\n${bodied ? 1 : 0}\n${place}`;
  for (const [name, value] of request.headers) text += `\n${name}\n${value}`;
  return text;
}

export function bodyOf(message) {
  return message.body;
}

export function bytesOf(request) {
  return request.arrayBuffer().then((buffer) => new Uint8Array(buffer));
}

const WITHOUT_BODY = new Set([101, 204, 205, 304]);

/** `coded`: the body is in its content coding already. Otherwise the runtime, which decodes what it reads, codes it again. */
export function respond(status, fields, body, coded) {
  const content = WITHOUT_BODY.has(status) ? null : body;
  return new Response(content, { status, headers: fieldsOf(fields), encodeBody: coded ? "manual" : "automatic" });
}

/** Sends a request and resolves to the head and body of the response, or to a head that only names a fault. */
export async function send(method, url, fields, body, timeoutMs, limit = new AbortController()) {
  const timer = setTimeout(() => limit.abort(), timeoutMs);
  try {
    const response = await fetch(url, {
      method,
      headers: fieldsOf(fields),
      body,
      redirect: "manual",
      signal: limit.signal,
      cf: NOT_CACHED,
    });
    let head = `${response.status}`;
    for (const [name, value] of response.headers) head += `\n${name}\n${value}`;
    return { head, body: response.body };
  } catch (error) {
    return { head: limit.signal.aborted ? "timeout" : `broken ${error?.message}`, body: null };
  } finally {
    clearTimeout(timer);
  }
}

/** Like `send`, for an attempt that may be given up. */
export function begin(method, url, fields, body, timeoutMs) {
  const limit = new AbortController();
  return { limit, answer: send(method, url, fields, body, timeoutMs, limit) };
}

/**
 * Resolves to the answer of the first of these attempts to end, with its place among them, or to undefined where none has
 * within `patienceMs`; a negative patience has no end.
 */
export async function firstOf(attempts, patienceMs) {
  const answers = attempts.map(async ({ answer }, at) => ({ at, ...(await answer) }));
  if (patienceMs < 0) return Promise.race(answers);
  let late;
  const lateness = new Promise((resolve) => {
    late = setTimeout(resolve, patienceMs, undefined);
  });
  try {
    return await Promise.race([...answers, lateness]);
  } finally {
    clearTimeout(late);
  }
}

export function placeOf(answer) {
  return answer.at;
}

/** Ends an attempt whose answer nobody wants any more, together with its connection. */
export function giveUp(attempt) {
  attempt.limit.abort();
  attempt.answer.then(({ body }) => body?.cancel()).catch(() => {});
}

/** Meridian's own cache is the one that a purge reaches. */
const NOT_CACHED = { cacheTtl: 0 };

/** Like `send`, with the whole body read within the time and `bytesMax`; a larger one is the fault `large`. */
export async function call(method, url, fields, body, timeoutMs, bytesMax) {
  const startedMs = Date.now();
  const answer = await send(method, url, fields, body, timeoutMs);
  if (answer.body === null) return answer;
  let late;
  const lateness = new Promise((resolve) => {
    late = setTimeout(resolve, Math.max(0, timeoutMs - (Date.now() - startedMs)), null);
  });
  try {
    const bytes = await Promise.race([readAll(answer.body, bytesMax), lateness]);
    if (bytes === null) return { head: "timeout", body: null };
    return bytes === undefined ? { head: "large", body: null } : { head: answer.head, body: bytes };
  } catch (error) {
    return { head: `broken ${error?.message}`, body: null };
  } finally {
    clearTimeout(late);
  }
}

async function readAll(stream, bytesMax) {
  const chunks = [];
  let length = 0;
  for await (const chunk of stream) {
    length += chunk.byteLength;
    if (length > bytesMax) return undefined;
    chunks.push(chunk);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  return whole;
}

export function headOf(answer) {
  return answer.head;
}

/** A response without a body, such as a 204, has nothing to divide. */
export function tee(stream) {
  return stream === null ? [null, null] : stream.tee();
}

/** The bytes of a stream from `first` on, `length` of them; what follows is not read. */
export function part(stream, first, length) {
  const { readable, writable } = new FixedLengthStream(length);
  cut(stream, first, length, writable).catch(() => {});
  return readable;
}

async function cut(stream, first, length, writable) {
  const writer = writable.getWriter();
  let skip = first;
  let left = length;
  try {
    for await (const chunk of stream) {
      const from = Math.min(skip, chunk.byteLength);
      skip -= from;
      const taken = chunk.subarray(from, from + left);
      if (taken.byteLength > 0) await writer.write(taken);
      left -= taken.byteLength;
      if (left === 0) break;
    }
    await writer.close();
  } catch (error) {
    await writer.abort(error);
  }
}

export function cancel(stream) {
  stream.cancel().catch(() => {});
}

let settled;

export function onSettled(callback) {
  settled = callback;
}

/** Tells the instance that watches, and no later one, what becomes of a promise. */
export function watch(promise, slot, turn) {
  const tell = settled;
  promise.then(
    (value) => tell(slot, turn, true, value),
    (error) => tell(slot, turn, false, error),
  );
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// The cache: entries live under made-up URLs; what the engine wants to know again of an entry is in one header field.

const ENTRY = "Meridian-Entry";

export async function lookUp(key) {
  const found = await caches.default.match(urlOf(key));
  if (found === undefined) return undefined;
  const entry = found.headers.get(ENTRY);
  if (entry === null) return undefined;
  return { head: `${found.headers.get("Content-Length") ?? ""}\n${entry}`, body: found.body };
}

/**
 * Stores a body once all of it is there, so that its length is known; nothing where it breaks or has more than
 * `bytesMax`. Resolves to whether it did.
 */
export async function store(key, entry, encoding, keepSeconds, body, bytesMax) {
  const bytes = body === null ? null : await readAll(body, bytesMax);
  if (bytes === undefined) return false;
  const headers = { [ENTRY]: entry, "Cache-Control": `public, max-age=${keepSeconds}` };
  if (encoding !== "") headers["Content-Encoding"] = encoding;
  await caches.default.put(urlOf(key), new Response(bytes, { headers }));
  return true;
}

export function forget(key) {
  return caches.default.delete(urlOf(key));
}

function urlOf(key) {
  return `https://cache.meridian.invalid/${encodeURIComponent(key)}`;
}

// Limits: a Durable Object for each shard of a limit's keys.

/** Asks an object; resolves to its answer, or to undefined where it does not give one in time. */
export async function ask(namespace, name, question, timeoutMs) {
  let late;
  const lateness = new Promise((resolve) => {
    late = setTimeout(resolve, timeoutMs, undefined);
  });
  const answer = async () => {
    const object = namespace.get(namespace.idFromName(name));
    const response = await object.fetch("https://limits.meridian.invalid/", { method: "POST", body: question });
    return response.ok ? await response.text() : undefined;
  };
  try {
    return await Promise.race([answer(), lateness]);
  } catch (error) {
    console.warn(`limit authority ${name}: ${error?.message}`);
    return undefined;
  } finally {
    clearTimeout(late);
  }
}

// Signatures (RFC 7518, section 3; RFC 8037).

const ALGORITHMS = {
  RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
  RS384: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-384" },
  RS512: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-512" },
  PS256: { name: "RSA-PSS", hash: "SHA-256", saltLength: 32 },
  PS384: { name: "RSA-PSS", hash: "SHA-384", saltLength: 48 },
  PS512: { name: "RSA-PSS", hash: "SHA-512", saltLength: 64 },
  ES256: { name: "ECDSA", hash: "SHA-256", namedCurve: "P-256" },
  ES384: { name: "ECDSA", hash: "SHA-384", namedCurve: "P-384" },
  EdDSA: { name: "Ed25519" },
};

/** Makes a key of raw bytes, or of the modulus and exponent of an RSA key as base64url with a line feed between. */
export function importKey(algorithm, material) {
  const parameters = ALGORITHMS[algorithm];
  if (typeof material !== "string") return crypto.subtle.importKey("raw", material, parameters, false, ["verify"]);
  const [n, e] = material.split("\n");
  return crypto.subtle.importKey("jwk", { kty: "RSA", n, e }, parameters, false, ["verify"]);
}

const encoder = new TextEncoder();

export function verify(algorithm, key, signature, signed) {
  return crypto.subtle.verify(ALGORITHMS[algorithm], key, signature, encoder.encode(signed));
}

export function random(bytes) {
  crypto.getRandomValues(bytes);
}

/**
 * Header fields as fetch takes them: as an object, which costs a fraction of a list of pairs, or as `Headers` where a
 * name occurs twice. A field that HTTP does not allow is left out there, so that no rule can break a response.
 */
function fieldsOf(text) {
  const lines = text.split("\n");
  if (!FIELDS.test(text)) return listOf(lines);
  const fields = {};
  for (let at = 0; at + 1 < lines.length; at += 2) {
    if (lines[at] in fields) return listOf(lines);
    fields[lines[at]] = lines[at + 1];
  }
  return fields;
}

/** Names and values that HTTP allows (RFC 9110, section 5), a line each. */
const FIELDS = /^(?:[!#$%&'*+.0-9A-Z^_`a-z|~-]+\n[\t\x20-\x7e\x80-\xff]*(?:\n|$))*$/;

function listOf(lines) {
  const headers = new Headers();
  for (let at = 0; at + 1 < lines.length; at += 2) {
    try {
      headers.append(lines[at], lines[at + 1]);
    } catch {
      console.warn(`header field ${JSON.stringify(lines[at])} left out: not allowed in HTTP`);
    }
  }
  return headers;
}
