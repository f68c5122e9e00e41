// Storage behind the Cache API of plain workerd.
//
// workerd hands every operation of the Cache API to a service as HTTP: `match` is a GET, `put` a PUT whose body is the
// whole response as an HTTP/1.1 message, `delete` a PURGE. On Cloudflare's network that service is the data centre's
// cache; as software of its own it exists nowhere, so this worker stands in for it. It keeps entries in memory, up to
// a number of bytes, and evicts those that were used longest ago. Like the real one it honours `max-age` and forgets
// without notice; unlike the real one it knows neither `Vary` nor conditional or range requests, which Meridian's
// engine answers by itself.

const STORED_BYTES_MAX = 64 * 1024 * 1024;
const ENTRY_BYTES_MAX = 9 * 1024 * 1024;
const OVERHEAD_BYTES = 256;

/** Entries by cache name and URL, the one used longest ago first. */
const entries = new Map();
let storedBytes = 0;

export default {
  async fetch(request) {
    const key = `${request.headers.get("cf-cache-namespace") ?? ""}\n${request.url}`;
    switch (request.method) {
      case "GET":
        return match(key);
      case "PUT":
        return put(key, new Uint8Array(await request.arrayBuffer()));
      case "PURGE":
        return new Response(null, { status: forget(key) ? 200 : 404 });
      default:
        return new Response(null, { status: 405 });
    }
  },
};

function match(key) {
  const entry = entries.get(key);
  if (entry === undefined || entry.expiresMs <= Date.now()) {
    forget(key);
    return new Response(null, { status: 504, headers: { "CF-Cache-Status": "MISS" } });
  }
  entries.delete(key);
  entries.set(key, entry);
  // The body was stored as it is encoded.
  return new Response(entry.body, { status: entry.status, headers: entry.headers, encodeBody: "manual" });
}

function put(key, message) {
  const entry = message.byteLength <= ENTRY_BYTES_MAX ? parse(message) : null;
  forget(key);
  if (entry === null) return new Response(null, { status: 413 });
  entries.set(key, entry);
  storedBytes += entry.bytes;
  for (const oldest of entries.keys()) {
    if (storedBytes <= STORED_BYTES_MAX) break;
    forget(oldest);
  }
  return new Response(null, { status: 204 });
}

function forget(key) {
  const entry = entries.get(key);
  if (entry === undefined) return false;
  entries.delete(key);
  storedBytes -= entry.bytes;
  return true;
}

/** Takes an HTTP/1.1 response message apart; null where it may not be stored. */
function parse(message) {
  const end = endOfHead(message);
  if (end < 0) return null;
  const [statusLine, ...fields] = new TextDecoder("latin1").decode(message.subarray(0, end)).split("\r\n");
  const status = Number(statusLine.split(" ")[1]);
  const headers = new Headers();
  for (const field of fields) {
    const colon = field.indexOf(":");
    if (colon > 0) headers.append(field.slice(0, colon), field.slice(colon + 1).trim());
  }
  const maxAge = /(?:^|[\s,])max-age=(\d+)/i.exec(headers.get("Cache-Control") ?? "");
  if (!(status >= 200) || status === 206 || headers.has("Set-Cookie") || maxAge === null) return null;
  for (const name of ["Connection", "Transfer-Encoding"]) headers.delete(name);
  headers.set("CF-Cache-Status", "HIT");
  const body = message.slice(end + 4);
  return { status, headers, body, bytes: message.byteLength + OVERHEAD_BYTES, expiresMs: Date.now() + maxAge[1] * 1000 };
}

function endOfHead(message) {
  for (let at = 0; at + 3 < message.length; at++) {
    if (message[at] === 13 && message[at + 1] === 10 && message[at + 2] === 13 && message[at + 3] === 10) return at;
  }
  return -1;
}
