// Storage behind the Cache API of plain workerd.
//
// workerd hands every operation of the Cache API to a service as HTTP: `match` is a GET, `put` a PUT whose body is the
// whole response as an HTTP/1.1 message, `delete` a PURGE. On Cloudflare's network that service is the data centre's
// cache; as software of its own it exists nowhere, so this worker stands in for it. It keeps small entries in memory, up
// to a number of bytes, and larger ones in a number of files, through which they are streamed; it evicts those that were
// used longest ago. Like the real one it honours `max-age`, answers a single range of bytes and forgets without notice;
// unlike the real one it knows neither `Vary` nor conditional requests, which Meridian's engine answers by itself.

const STORED_BYTES_MAX = 64 * 1024 * 1024;
const SMALL_BYTES_MAX = 1024 * 1024;
const ENTRY_BYTES_MAX = 65 * 1024 * 1024;
const HEAD_BYTES_MAX = 256 * 1024;
const FILES = 16;
const OVERHEAD_BYTES = 256;

/** Entries by cache name and URL, the one used longest ago first. */
const entries = new Map();
let storedBytes = 0;
/** Files that no entry has, and nobody writes. */
const vacant = Array.from({ length: FILES }, (_, file) => file);

export default {
  async fetch(request, env) {
    const key = `${request.headers.get("cf-cache-namespace") ?? ""}\n${request.url}`;
    switch (request.method) {
      case "GET":
        return match(key, request.headers.get("Range"), env.FILES);
      case "PUT":
        return put(key, request.body, env.FILES);
      case "PURGE":
        return new Response(null, { status: forget(key) ? 200 : 404 });
      default:
        return new Response(null, { status: 405 });
    }
  },
};

async function match(key, range, files) {
  const entry = entries.get(key);
  if (entry === undefined || entry.expiresMs <= Date.now()) {
    forget(key);
    return miss();
  }
  entries.delete(key);
  entries.set(key, entry);
  const { status, headers, body, file, length } = entry;
  // The body was stored as it is encoded.
  if (body !== null) return new Response(body, { status, headers, encodeBody: "manual" });
  const asked = range === null ? {} : { Range: range };
  const found = await files.fetch(fileOf(file), { headers: asked });
  // Evicted and written anew while the file was opened.
  if (!found.ok || entries.get(key) !== entry) return miss();
  const fields = new Headers(headers);
  const part = found.headers.get("Content-Range");
  if (part !== null) fields.set("Content-Range", part);
  fields.set("Content-Length", found.headers.get("Content-Length") ?? `${length}`);
  return new Response(found.body, { status: part === null ? status : 206, headers: fields, encodeBody: "manual" });
}

function miss() {
  return new Response(null, { status: 504, headers: { "CF-Cache-Status": "MISS" } });
}

async function put(key, message, files) {
  const reader = message.getReader({ mode: "byob" });
  const begun = await readHead(reader);
  const entry = begun && parse(begun.head);
  if (!entry || entry.length > ENTRY_BYTES_MAX) {
    await reader.cancel();
    forget(key);
    return new Response(null, { status: 413 });
  }
  const small = await readSmall(reader, begun.rest);
  const kept = small.ended ? { body: small.bytes, file: null, length: small.bytes.byteLength } : await writeFile(reader, small.bytes, entry.length, files);
  forget(key);
  if (kept === null) return new Response(null, { status: 413 });
  const stored = { ...entry, ...kept, heldBytes: OVERHEAD_BYTES + key.length + begun.head.byteLength + (kept.body?.byteLength ?? 0) };
  entries.set(key, stored);
  storedBytes += stored.heldBytes;
  for (const [oldest, { file }] of entries) {
    if (storedBytes <= STORED_BYTES_MAX) break;
    if (file === null) forget(oldest);
  }
  return new Response(null, { status: 204 });
}

function forget(key) {
  const entry = entries.get(key);
  if (entry === undefined) return false;
  entries.delete(key);
  storedBytes -= entry.heldBytes;
  if (entry.file !== null) vacant.push(entry.file);
  return true;
}

/** Reads as far as the head of a message goes, and what came with it; null where there is none. */
async function readHead(reader) {
  let bytes = new Uint8Array(0);
  while (bytes.byteLength <= HEAD_BYTES_MAX) {
    const end = endOfHead(bytes);
    if (end >= 0) return { head: bytes.subarray(0, end), rest: bytes.subarray(end + 4) };
    const { value, done } = await reader.read(new Uint8Array(64 * 1024));
    if (done) return null;
    bytes = join(bytes, value);
  }
  return null;
}

/** Reads a body to its end, or as far as it is no longer small. */
async function readSmall(reader, begun) {
  const parts = [begun];
  let length = begun.byteLength;
  let ended = false;
  while (!ended && length <= SMALL_BYTES_MAX) {
    const { value, done } = await reader.read(new Uint8Array(64 * 1024));
    ended = done;
    if (!done) {
      parts.push(value);
      length += value.byteLength;
    }
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return { bytes, ended };
}

/** Writes a body into a file that is vacant, or that of the entry used longest ago; null where it breaks or is too large. */
async function writeFile(reader, begun, declared, files) {
  if (vacant.length === 0) {
    const oldest = [...entries].find(([, { file }]) => file !== null);
    if (oldest === undefined) return null;
    forget(oldest[0]);
  }
  const file = vacant.pop();
  const { readable, writable } = declared === null ? new IdentityTransformStream() : new FixedLengthStream(declared);
  const written = files.fetch(fileOf(file), { method: "PUT", body: readable });
  const writer = writable.getWriter();
  let length = 0;
  try {
    let chunk = { value: begun, done: false };
    let buffer = new ArrayBuffer(64 * 1024);
    while (!chunk.done) {
      length += chunk.value.byteLength;
      if (length > ENTRY_BYTES_MAX) throw new RangeError("too large");
      await writer.write(chunk.value);
      chunk = await reader.read(new Uint8Array(buffer));
      buffer = chunk.value?.buffer;
    }
    await writer.close();
    if ((await written).ok) return { body: null, file, length };
  } catch {
    await Promise.allSettled([writer.abort(), reader.cancel(), written]);
  }
  vacant.push(file);
  return null;
}

function fileOf(file) {
  return `http://files/${file}`;
}

/** Takes the head of an HTTP/1.1 response message apart; null where it may not be stored. */
function parse(head) {
  const [statusLine, ...fields] = new TextDecoder("latin1").decode(head).split("\r\n");
  const status = Number(statusLine.split(" ")[1]);
  const headers = new Headers();
  for (const field of fields) {
    const colon = field.indexOf(":");
    if (colon > 0) headers.append(field.slice(0, colon), field.slice(colon + 1).trim());
  }
  const maxAge = /(?:^|[\s,])max-age=(\d+)/i.exec(headers.get("Cache-Control") ?? "");
  if (!(status >= 200) || status === 206 || headers.has("Set-Cookie") || maxAge === null) return null;
  const length = headers.has("Content-Length") ? Number(headers.get("Content-Length")) : null;
  for (const name of ["Connection", "Transfer-Encoding"]) headers.delete(name);
  headers.set("CF-Cache-Status", "HIT");
  return { status, headers, length, expiresMs: Date.now() + maxAge[1] * 1000 };
}

function endOfHead(message) {
  for (let at = 0; at + 3 < message.length; at++) {
    if (message[at] === 13 && message[at + 1] === 10 && message[at + 2] === 13 && message[at + 3] === 10) return at;
  }
  return -1;
}

function join(first, second) {
  const both = new Uint8Array(first.byteLength + second.byteLength);
  both.set(first);
  both.set(second, first.byteLength);
  return both;
}
