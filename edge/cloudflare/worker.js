// The entry module: serves through the Wasm instance that worker-build wraps, and keeps a broken one from being felt.
//
// Rust panics abort: the instance traps, and constructing the wrapper's entry point makes a new one. Every request that
// the broken instance still owes an answer gets one at once, so that a trap costs the requests of that moment and nothing
// after.

import Instance, { LimitAuthority } from "./build/index.js";

export { LimitAuthority };

// Called straight: constructing the entry point for every request, with its proxies, would cost more than routing.
const { fetch: serve, scheduled } = Instance.prototype;

/** What ends each request that waits for the present instance, with the time since when it does, the oldest first. */
const waiting = new Map();
/** A request whose client left never comes to an end by itself; after this time it is forgotten. */
const WAIT_MS_MAX = 10 * 60 * 1000;
let broken = false;

// Whatever nobody catches has come through the instance's frames, and left what they had borrowed.
addEventListener("error", breakDown);

function breakDown() {
  broken = true;
  for (const end of waiting.keys()) end();
  waiting.clear();
}

function renew(env, ctx) {
  new Instance(ctx, env);
  broken = false;
}

export default {
  fetch(request, env, ctx) {
    if (broken) renew(env, ctx);
    try {
      const answer = serve.call({ env, ctx }, request);
      return answer instanceof Response ? answer : answered(answer);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) breakDown();
      return failure(error);
    }
  },

  async scheduled(event, env, ctx) {
    if (broken) renew(env, ctx);
    await scheduled.call({ env, ctx }, event);
  },
};

async function answered(promise) {
  const now = Date.now();
  for (const [oldest, since] of waiting) {
    if (now - since < WAIT_MS_MAX) break;
    waiting.delete(oldest);
  }
  let end;
  try {
    const answer = await new Promise((resolve, reject) => {
      end = resolve;
      waiting.set(end, now);
      promise.then(resolve, reject);
    });
    // A response belongs to the request in whose turn it is made, so that it is made here and not where the trap was.
    return answer ?? failure("the instance that would have answered is broken");
  } catch (error) {
    return failure(error);
  } finally {
    waiting.delete(end);
  }
}

/** A problem (RFC 9457) without a decision: the request never reached one. */
function failure(error) {
  console.error("request failed:", error);
  const problem = {
    type: "https://meridian.example/problems/edge-failed",
    title: "The edge failed",
    status: 500,
    detail: "The edge could not finish this request. Trying again is safe if the request is idempotent.",
  };
  return new Response(JSON.stringify(problem), {
    status: 500,
    headers: { "Content-Type": "application/problem+json", "Cache-Control": "no-store", "Meridian-Region": "edge" },
  });
}
