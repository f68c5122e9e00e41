// The entry module: serves through the Wasm instance that worker-build wraps, and keeps a broken one from being felt.
//
// Rust panics abort: the instance traps. The wrapper then makes a new instance for the next request. Here every request
// that the broken instance still owes an answer gets one at once, so that a trap costs the requests of that moment and
// nothing after.

import Instance, { LimitAuthority } from "./build/index.js";

export { LimitAuthority };

/** Ends the requests that wait for the present instance. */
const waiting = new Set();
const BROKEN = Symbol("the instance that would have answered is broken");

addEventListener("error", (event) => {
  if (!(event.error instanceof WebAssembly.RuntimeError)) return;
  for (const end of waiting) end(BROKEN);
  waiting.clear();
});

export default {
  fetch(request, env, ctx) {
    try {
      const answer = new Instance(ctx, env).fetch(request);
      return answer instanceof Response ? answer : answered(answer);
    } catch (error) {
      return failure(error);
    }
  },

  async scheduled(event, env, ctx) {
    await new Instance(ctx, env).scheduled(event);
  },
};

async function answered(promise) {
  let end;
  const ended = new Promise((resolve) => {
    end = resolve;
  });
  waiting.add(end);
  promise.then(end, end);
  const answer = await ended;
  waiting.delete(end);
  return answer instanceof Response ? answer : failure(answer);
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
