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

/** Pays what `worker.js` is owed: the response to a request. */
export function pay(owed, response) {
  owed.resolve(response);
}

export function fail(owed, error) {
  owed.reject(error);
}

export function bodyOf(message) {
  return message.body;
}

/** A short body, which is waited for no longer than this. */
export function bytesOf(message, waitMs) {
  return within(message.arrayBuffer(), waitMs).then((buffer) => new Uint8Array(buffer));
}

/** Of the streams that `upload` gives: what became of the body, whether its client is waited for, and whom to tell of either. */
const uploads = new WeakMap();

/**
 * The body of a message as `send` takes it, so that a client which is slow costs the target none of its time. `length` is
 * negative where it is not known. After a longer pause than this it breaks off.
 */
export function upload(message, length, pauseMs) {
  const { readable, writable } = pipe(length < 0 ? undefined : length);
  const state = { fault: undefined, awaitsClient: true, turned: () => {}, brokeOff: () => {} };
  uploads.set(readable, state);
  moveUp(message.body.getReader({ mode: "byob" }), writable.getWriter(), pauseMs, state);
  return readable;
}

async function moveUp(client, target, pauseMs, state) {
  const turn = (awaitsClient) => {
    state.awaitsClient = awaitsClient;
    state.turned();
  };
  let buffer = new ArrayBuffer(CHUNK_BYTES);
  const rate = new Rate();
  try {
    for (;;) {
      turn(true);
      const next = rate.of(() => within(client.read(new Uint8Array(buffer)), pauseMs));
      const { value, done } = await next.catch((error) => {
        state.fault = error instanceof Pause ? "paused" : "broke off";
        throw error;
      });
      turn(false);
      if (done) break;
      await target.write(value);
      buffer = value.buffer;
    }
    await target.close();
  } catch (error) {
    // First of all: a request whose stream is aborted the runtime would end as if its body were whole.
    state.brokeOff();
    await Promise.allSettled([target.abort(error), client.cancel(error)]);
  }
}

/**
 * Reads a body until it ends or has brought more than `bytesMax`. Resolves to the bytes, and in the second case to a message
 * whose body is these bytes and the rest; `length` is that of the whole body, negative where it is not known.
 */
export async function peek(message, bytesMax, length, pauseMs) {
  const reader = message.body.getReader();
  const chunks = [];
  const rate = new Rate();
  let read = 0;
  while (read <= bytesMax) {
    const { done, value } = await rate.of(() => within(reader.read(), pauseMs));
    if (done) return [joined(chunks, read)];
    chunks.push(value);
    read += value.byteLength;
  }
  reader.releaseLock();
  const bytes = joined(chunks, read);
  // A body of known length stays one, so that the target is told the length as well.
  const { readable, writable } = length < 0 ? new IdentityTransformStream() : new FixedLengthStream(length);
  goOn(bytes, message.body, writable).catch(() => {});
  return [bytes, new Response(readable)];
}

async function goOn(bytes, rest, writable) {
  const writer = writable.getWriter();
  try {
    await writer.write(bytes);
  } catch (error) {
    await rest.cancel(error);
    throw error;
  }
  writer.releaseLock();
  await rest.pipeTo(writable);
}

const WITHOUT_BODY = new Set([101, 204, 205, 304]);

/**
 * `coded`: the body is in its content coding already. Otherwise the runtime, which decodes what it reads, codes it again. A body
 * that is a WebSocket is coupled to the client's.
 */
export function respond(status, kept, fields, body, coded) {
  const content = WITHOUT_BODY.has(status) ? null : body;
  const headers = kept ?? fieldsOf(fields);
  const init = { status, headers, encodeBody: coded ? "manual" : "automatic" };
  if (body instanceof WebSocket) init.webSocket = body;
  const response = new Response(content, init);
  // The response has a copy of what is kept.
  if (kept !== undefined) append(response.headers, fields);
  return response;
}

/**
 * Sends a request and resolves to the head and body of the response, or to a head that only names a fault. The time is that
 * of the target: to take more of the body, and to answer.
 */
export async function send(method, url, kept, fields, body, timeoutMs, through, limit = new AbortController()) {
  const sending = uploads.get(body);
  let timer;
  const turned = () => {
    clearTimeout(timer);
    if (!sending?.awaitsClient) timer = setTimeout(() => limit.abort(), timeoutMs);
  };
  if (sending !== undefined) Object.assign(sending, { turned, brokeOff: () => limit.abort() });
  turned();
  try {
    const response = await (through ?? globalThis).fetch(url, {
      method,
      headers: kept === undefined ? fieldsOf(fields) : append(new Headers(kept), fields),
      body,
      redirect: "manual",
      signal: limit.signal,
      cf: NOT_CACHED,
    });
    let head = `${response.status}`;
    const about = {};
    for (const [name, value] of response.headers) {
      head += `\n${name}\n${value}`;
      if (name === "content-length") about.length = Number(value);
      if (name === "content-encoding") about.encoded = true;
    }
    if (response.webSocket) return { head, body: response.webSocket };
    if (response.body !== null) known.set(response.body, about);
    return { head, body: response.body };
  } catch (error) {
    if (sending?.fault !== undefined) return { head: `body ${sending.fault}`, body: null };
    return { head: limit.signal.aborted ? "timeout" : `broken ${error?.message}`, body: null };
  } finally {
    clearTimeout(timer);
    if (sending !== undefined) sending.turned = () => {};
  }
}

/**
 * What runs functions: the script of this name in the dispatch namespace, the service that runs all of them, or nothing.
 * A script may send one request, and take so much processor time.
 */
export function functionOf(env, script, cpuMs) {
  if (env.FUNCTIONS === undefined) return env.FUNCTION_SERVICE;
  return env.FUNCTIONS.get(script, {}, { limits: { cpuMs, subRequests: 1 } });
}

/** Like `send`, for an attempt that may be given up. */
export function begin(method, url, kept, fields, body, timeoutMs, through) {
  const limit = new AbortController();
  return { limit, answer: send(method, url, kept, fields, body, timeoutMs, through, limit) };
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
  attempt.answer.then(({ body }) => body && cancel(body)).catch(() => {});
}

/**
 * What is known of the stream of a body: its `length`, whether it is `encoded`, so that bytes read here are not those of
 * its length, the `key` and `entry` that it is stored with, and whether it is `tooLarge` to be stored.
 */
const known = new WeakMap();

/** Meridian's own cache is the one that a purge reaches. */
const NOT_CACHED = { cacheTtl: 0 };

/** Like `send`, with the whole body read within the time and `bytesMax`; a larger one is the fault `large`. */
export async function call(method, url, fields, body, timeoutMs, bytesMax) {
  const startedMs = Date.now();
  const answer = await send(method, url, undefined, fields, body, timeoutMs);
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
  return joined(chunks, length);
}

function joined(chunks, length) {
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

/** Bytes of a body that may be in memory at once. */
const HELD_BYTES_MAX = 1024 * 1024;
/** Bytes that are moved at once. */
const CHUNK_BYTES = 64 * 1024;

/**
 * Divides a stream in two: one for the client, one for the cache. A response without a body, such as a 204, has nothing
 * to divide. A long body is handed on no faster than both take it, so that it is never in memory.
 */
export function tee(stream) {
  if (stream === null) return [null, null];
  const about = known.get(stream) ?? {};
  if (about.encoded || about.length <= HELD_BYTES_MAX) {
    const both = stream.tee();
    for (const one of both) known.set(one, about);
    return both;
  }
  const [client, cache] = [pipe(about.length), pipe(about.length)];
  known.set(cache.readable, about);
  divide(stream, client.writable, cache.writable).catch(() => {});
  return [client.readable, cache.readable];
}

function pipe(length) {
  return length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
}

async function divide(stream, client, cache) {
  const [toClient, toCache] = [client.getWriter(), cache.getWriter()];
  let stored = true;
  const store = (done) => done.catch(() => (stored = false));
  try {
    for await (const chunk of chunksOf(stream)) {
      await Promise.all([toClient.write(chunk), stored && store(toCache.write(chunk))]);
    }
    await Promise.all([toClient.close(), stored && store(toCache.close())]);
  } catch (error) {
    // Broken, or the client is gone: what is not whole is not stored.
    await Promise.allSettled([toCache.abort(error), toClient.abort(error), stream.cancel(error)]);
  }
}

/** The bytes of a stream, as many at once as there are; each array is good until the next one is asked for. */
async function* chunksOf(stream) {
  const reader = stream.getReader({ mode: "byob" });
  let buffer = new ArrayBuffer(CHUNK_BYTES);
  try {
    for (;;) {
      const { value, done } = await reader.read(new Uint8Array(buffer));
      if (done) return;
      yield value;
      buffer = value.buffer;
    }
  } finally {
    reader.releaseLock();
  }
}

/**
 * A stream that breaks off where it turns out to have more than `bytesMax` bytes, or pauses for longer than `pauseMs`; a
 * negative limit is none.
 */
export function limited(stream, bytesMax, pauseMs) {
  if (stream === null || stream instanceof WebSocket) return stream;
  const about = known.get(stream) ?? {};
  const { readable, writable } = pipe(about.encoded ? undefined : about.length);
  known.set(readable, about);
  limit(stream.getReader(), writable.getWriter(), bytesMax < 0 ? Infinity : bytesMax, pauseMs, about);
  return readable;
}

async function limit(source, writer, bytesMax, pauseMs, about) {
  let length = 0;
  try {
    for (;;) {
      const { done, value } = await within(source.read(), pauseMs);
      if (done) break;
      length += value.byteLength;
      about.tooLarge = length > bytesMax;
      if (about.tooLarge) throw new RangeError(`a response has more than ${bytesMax} bytes`);
      await writer.write(value);
    }
    await writer.close();
  } catch (error) {
    console.warn(`a response breaks off: ${error?.message}`);
    await Promise.allSettled([writer.abort(error), source.cancel(error)]);
  }
}

/** What a promise fails with that takes too long. */
class Pause extends Error {}

/** Bytes a second that a client's body has to come at, over so much waiting for it: longer than it may pause. */
const BODY_RATE_MIN = 240;
const BODY_RATE_WINDOW_MS = 30_000;

/** How much of a client's body came while it was waited for, a window after the other. */
class Rate {
  bytes = 0;
  waitedMs = 0;

  /** What a read brings; it fails where the body comes too slowly. */
  async of(read) {
    const since = Date.now();
    const part = await read();
    this.waitedMs += Date.now() - since;
    this.bytes += part.value?.byteLength ?? 0;
    if (this.waitedMs < BODY_RATE_WINDOW_MS) return part;
    if (!part.done && this.bytes < (BODY_RATE_MIN * BODY_RATE_WINDOW_MS) / 1000) {
      throw new Pause(`a body pauses: it brought ${this.bytes} bytes in ${this.waitedMs} ms`);
    }
    this.bytes = 0;
    this.waitedMs = 0;
    return part;
  }
}

/** A promise that fails where it takes longer than `ms`; a negative time has no end. */
async function within(promise, ms) {
  if (ms < 0) return promise;
  let late;
  const lateness = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Pause(`a body pauses for more than ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([promise, lateness]);
  } finally {
    clearTimeout(late);
  }
}

/** The bytes of a stream from `first` on, `length` of them; what follows is not read. */
export function part(stream, first, length) {
  const { readable, writable } = new FixedLengthStream(length);
  cut(stream, first, length, writable).catch(() => {});
  return readable;
}

async function cut(stream, first, length, writable) {
  const nearer = first > HELD_BYTES_MAX ? await storedPart(known.get(stream), first, length) : undefined;
  if (nearer !== undefined) {
    cancel(stream);
    return nearer.pipeTo(writable);
  }
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

/** Has the cache itself skip what comes before a part; undefined where it doesn't, or holds something else by now. */
async function storedPart(about, first, length) {
  if (about?.key === undefined) return undefined;
  const headers = { Range: `bytes=${first}-${first + length - 1}` };
  const found = await caches.default.match(new Request(urlOf(about.key), { headers }));
  if (found === undefined || found.body === null) return undefined;
  if (found.status === 206 && found.headers.get(ENTRY) === about.entry) return found.body;
  cancel(found.body);
  return undefined;
}

export function cancel(stream) {
  if (stream instanceof WebSocket) return hangUp(stream);
  stream.cancel().catch(() => {});
}

/** Ends a WebSocket that nobody has taken. */
function hangUp(socket) {
  try {
    socket.accept();
    socket.close();
  } catch {
    // It has ended already.
  }
}

/** Tells the present instance, if that waits for anything. */
let settled;

export function onSettled(callback) {
  settled = callback;
}

/** Tells the instance that watches, and no later one, what becomes of a promise. */
export function watch(promise, slot, turn) {
  const told = settled;
  promise.then(
    (value) => tell(told, slot, turn, true, value),
    (error) => tell(told, slot, turn, false, error),
  );
}

/** Requests go on in here: what breaks the instance is an error that nobody catches, and no rejection of this promise. */
function tell(told, slot, turn, fulfilled, value) {
  // One that is broken waits for nothing any more.
  if (told !== settled) return;
  try {
    told(slot, turn, fulfilled, value);
  } catch (error) {
    settled = undefined;
    reportError(error);
  }
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
  const encoded = found.headers.has("Content-Encoding");
  // What is read is decoded, so that nobody knows its length.
  const length = encoded ? "" : (found.headers.get("Content-Length") ?? "");
  if (found.body !== null) {
    known.set(found.body, { length: length === "" ? undefined : Number(length), encoded, key, entry });
  }
  return { head: `${length}\n${entry}`, body: found.body };
}

/**
 * Stores a body of at most `bytesMax`. A long one is streamed, unless it is encoded; of a short one the length is known once
 * it is here.
 * Resolves to whether it did, which it does not where the body is too large or the cache does not take it, and fails
 * where the body breaks off.
 */
export async function store(key, entry, encoding, keepSeconds, body, bytesMax) {
  const headers = { [ENTRY]: entry, "Cache-Control": `public, max-age=${keepSeconds}` };
  if (encoding !== "") headers["Content-Encoding"] = encoding;
  let content;
  try {
    content = body === null ? null : await storable(body, encoding !== "", bytesMax);
    if (content === undefined) return false;
    await caches.default.put(urlOf(key), new Response(content, { headers }));
    return true;
  } catch (error) {
    const isWhole = content === null || content instanceof Uint8Array;
    if (!isWhole && !known.get(body)?.tooLarge) throw error;
    console.warn(`not cached: ${error?.message}`);
    return false;
  }
}

/** A body as it is stored: its bytes or a stream; undefined where it is too large. */
async function storable(body, encoded, bytesMax) {
  if (encoded) return readAll(body, bytesMax);
  const { length } = known.get(body) ?? {};
  if (length > bytesMax) {
    cancel(body);
    return undefined;
  }
  if (length > HELD_BYTES_MAX) return body;
  const { readable, writable } = new IdentityTransformStream();
  return (await gathered(body, writable, bytesMax)) ?? readable;
}

/** A whole body where it is short; of a long one the beginning and then the rest goes to `writable`. */
async function gathered(body, writable, bytesMax) {
  const chunks = chunksOf(body);
  const held = [];
  let length = 0;
  for (;;) {
    const { value, done } = await chunks.next();
    if (done) return joined(held, length);
    held.push(value.slice());
    length += value.byteLength;
    if (length > HELD_BYTES_MAX) break;
  }
  const about = known.get(body) ?? {};
  known.set(body, about);
  passOn(held, length, chunks, writable.getWriter(), bytesMax, about).catch(() => cancel(body));
  return undefined;
}

async function passOn(held, length, chunks, writer, bytesMax, about) {
  try {
    for (const chunk of held.splice(0)) await writer.write(chunk);
    for await (const chunk of chunks) {
      length += chunk.byteLength;
      about.tooLarge = length > bytesMax;
      if (about.tooLarge) throw new RangeError("the body is too large to be cached");
      await writer.write(chunk);
    }
    await writer.close();
  } catch (error) {
    await writer.abort(error);
    throw error;
  }
}

export function forget(key) {
  return caches.default.delete(urlOf(key));
}

function urlOf(key) {
  return `https://cache.meridian.invalid/${encodeURIComponent(key)}`;
}

// Workers KV.

/** Resolves to the bytes of a key, or to undefined. */
export async function read(namespace, key) {
  const buffer = await namespace.get(key, "arrayBuffer");
  return buffer === null ? undefined : new Uint8Array(buffer);
}

export async function write(namespace, key, value) {
  // A copy: what comes in lies in the instance's memory, which goes on to change.
  await namespace.put(key, value.slice());
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

export function verify(algorithm, key, signature, signed) {
  return crypto.subtle.verify(ALGORITHMS[algorithm], key, signature, signed);
}

export function random(bytes) {
  crypto.getRandomValues(bytes);
}

/**
 * Header fields as fetch takes them: as an object, which costs a fraction of a list of pairs, or as `Headers` where a
 * name occurs twice. A field that HTTP does not allow is left out there, so that no rule can break a response.
 */
function fieldsOf(text) {
  if (!FIELDS.test(text)) return append(new Headers(), text);
  const lines = text.split("\n");
  const fields = {};
  for (let at = 0; at + 1 < lines.length; at += 2) {
    if (lines[at] in fields) return append(new Headers(), text);
    fields[lines[at]] = lines[at + 1];
  }
  return fields;
}

/** Names and values that HTTP allows (RFC 9110, section 5), a line each. */
const FIELDS = /^(?:[!#$%&'*+.0-9A-Z^_`a-z|~-]+\n[\t\x20-\x7e\x80-\xff]*(?:\n|$))*$/;

/** Fields that are handed over again and again, as the runtime copies them. */
export function keep(fields) {
  return append(new Headers(), fields);
}

function append(headers, fields) {
  const lines = fields.split("\n");
  for (let at = 0; at + 1 < lines.length; at += 2) {
    try {
      headers.append(lines[at], lines[at + 1]);
    } catch {
      console.warn(`header field ${JSON.stringify(lines[at])} left out: not allowed in HTTP`);
    }
  }
  return headers;
}
