// The entry module: serves through the Wasm instance that worker-build wraps, and keeps a broken one from being felt.
//
// Rust panics abort: the instance traps, and constructing the wrapper's entry point makes a new one. Of the requests that
// the broken instance still owes an answer, safe ones without a body are made again, once, and the others get a problem
// at once, so that a trap costs the request that made it and unsafe ones of that moment, and nothing after.

import Instance, { LimitAuthority } from "./build/index.js";

export { LimitAuthority };

// Called straight: constructing the entry point for every request, with its proxies, would cost more than routing.
const { serve, scheduled, waitMsMax } = Instance.prototype;
/** A request whose client left never comes to an end by itself; after this time it is forgotten. Named in src/limits.rs. */
const WAIT_MS_MAX = waitMsMax();

/** What the present instance owes to requests that wait, with the time since when they do, the oldest first. */
const waiting = new Map();
let broken = false;
/** Methods that change nothing (RFC 9110, section 9.2.1), which may be made again. */
const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);

// Whatever nobody catches has come through the instance's frames, and left what they had borrowed.
addEventListener("error", breakDown);

function breakDown() {
  broken = true;
  for (const owed of waiting.keys()) owed.resolve();
  waiting.clear();
}

function renew(env, ctx) {
  new Instance(ctx, env);
  broken = false;
}

export default {
  fetch(request, env, ctx) {
    const owed = new Owed();
    return begin(request, env, ctx, owed) ?? answered(owed, request, env, ctx);
  },

  async scheduled(event, env, ctx) {
    if (broken) renew(env, ctx);
    await scheduled.call({ env, ctx }, event);
  },
};

/** An answer that the instance gives later. */
class Owed {
  resolve = undefined;
  reject = undefined;

  /** What comes of it; nothing where the instance breaks before. */
  async paid() {
    const now = Date.now();
    for (const [oldest, since] of waiting) {
      if (now - since < WAIT_MS_MAX) break;
      waiting.delete(oldest);
    }
    waiting.set(this, now);
    try {
      return await new Promise((resolve, reject) => {
        this.resolve = resolve;
        this.reject = reject;
      });
    } finally {
      waiting.delete(this);
    }
  }
}

/** The response to a request; nothing where it is owed. */
function begin(request, env, ctx, owed) {
  if (broken) renew(env, ctx);
  try {
    return serve(request, env, ctx, owed);
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) breakDown();
    return failure(error, request, Date.now());
  }
}

async function answered(owed, request, env, ctx) {
  const now = Date.now();
  try {
    let answer = await owed.paid();
    if (answer === undefined && SAFE.has(request.method) && request.body === null) {
      // An answer of the first attempt may still come, where it was not the instance that failed.
      const again = new Owed();
      answer = begin(request, env, ctx, again) ?? (await again.paid());
    }
    // A response belongs to the request in whose turn it is made, so that it is made here and not where the trap was.
    return answer ?? failure("the instance that would have answered is broken", request, now);
  } catch (error) {
    return failure(error, request, now);
  }
}

/** A problem (RFC 9457) in the place of the reply that the broken instance owes, with what every reply says. */
function failure(error, request, sinceMs) {
  const nowMs = Date.now();
  const decision = decisionId(nowMs);
  console.error(`decision ${decision}: request failed:`, error);
  const problem = {
    type: "https://meridian.example/problems/edge-failed",
    title: "The edge failed",
    status: 500,
    detail: "The edge could not finish this request. Trying again is safe if the request is idempotent.",
    decision,
  };
  return new Response(JSON.stringify(problem), {
    status: 500,
    headers: {
      "Content-Type": "application/problem+json",
      "Cache-Control": "no-store",
      "Meridian-Decision": decision,
      "Meridian-Region": "edge",
      "Meridian-Bundle": "none",
      "Server-Timing": `edge;dur=${nowMs - sinceMs}`,
      traceparent: traceOf(request.headers.get("traceparent")),
    },
  });
}

/** As the engine makes it: 26 characters of Crockford base 32, 48 bits of milliseconds and 80 random ones. */
function decisionId(nowMs) {
  const random = crypto.getRandomValues(new Uint8Array(10));
  let bits = BigInt(nowMs);
  for (const byte of random) bits = (bits << 8n) | BigInt(byte);
  let id = "";
  for (let digit = 25n; digit >= 0n; digit--) id += "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(bits >> (digit * 5n)) & 31n];
  return id;
}

/** The client's trace continued, or a new one (W3C Trace Context). */
function traceOf(parent) {
  const digits = (byte) => byte.toString(16).padStart(2, "0");
  const hex = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), digits).join("");
  const [, id, flags] = /^00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})$/.exec(parent) ?? [];
  return `00-${id ?? hex(16)}-${hex(8)}-${flags ?? "00"}`;
}
