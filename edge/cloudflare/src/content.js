// What a body becomes on its way to the client: its HTML changed by the runtime's own rewriter, and a content coding.
// Both hand on what they have as it comes; a fault breaks the response off, so that nobody takes a part for the whole.

/** Asked for when it is needed; an import would have to be resolved by what bundles the worker, which knows none of Node. */
const zlib = () => process.getBuiltinModule("node:zlib");

/** Where more time stops to pay for what is made on the fly; windows that every client has room for. */
const CODERS = {
  gzip: ({ createGzip }) => createGzip({ level: 6 }),
  br: ({ createBrotliCompress, constants: { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN } }) =>
    createBrotliCompress({ params: { [BROTLI_PARAM_QUALITY]: 4, [BROTLI_PARAM_LGWIN]: 18 } }),
  zstd: ({ createZstdCompress, constants: { ZSTD_c_compressionLevel, ZSTD_c_windowLog } }) =>
    createZstdCompress({ params: { [ZSTD_c_compressionLevel]: 3, [ZSTD_c_windowLog]: 18 } }),
};

/** A body, a stream or bytes, in a content coding. What is there after `pauseMs` without more is sent. */
export function code(body, coding, pauseMs) {
  const coder = CODERS[coding](zlib());
  const source = streamOf(body).getReader();
  let coded = [];
  coder.on("data", (chunk) => coded.push(chunk));
  const fault = new Promise((_, reject) => coder.once("error", reject));
  fault.catch(() => {});
  const done = (act) => Promise.race([fault, new Promise(act)]);
  let next = null;
  return new ReadableStream({
    async pull(controller) {
      while (coded.length === 0) {
        next ??= source.read();
        if (await pauses(next, pauseMs)) {
          await done((resolve) => coder.flush(resolve));
          if (coded.length > 0) break;
        }
        const { done: ended, value } = await next;
        next = null;
        if (ended) {
          await done((resolve) => {
            coder.once("end", resolve);
            coder.end();
          });
          for (const chunk of coded) controller.enqueue(chunk);
          controller.close();
          return;
        }
        await done((resolve) => coder.write(value, resolve));
      }
      for (const chunk of coded) controller.enqueue(chunk);
      coded = [];
    },
    cancel(reason) {
      coder.destroy();
      return source.cancel(reason);
    },
  });
}

/** Whether a promise takes longer than `ms`: a source that has more at hand does not. */
async function pauses(promise, ms) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, ms, true);
  });
  const pause = await Promise.race([promise.then(() => false, () => false), late]);
  clearTimeout(timer);
  return pause;
}

const CHANGES = {
  setAttribute: (element, name, value) => element.setAttribute(name, value),
  removeAttribute: (element, name) => element.removeAttribute(name),
  remove: (element) => element.remove(),
  before: (element, markup, value) => element.before(value, { html: markup === "html" }),
  prepend: (element, markup, value) => element.prepend(value, { html: markup === "html" }),
  append: (element, markup, value) => element.append(value, { html: markup === "html" }),
  after: (element, markup, value) => element.after(value, { html: markup === "html" }),
  inner: (element, markup, value) => element.setInnerContent(value, { html: markup === "html" }),
  replace: (element, markup, value) => element.replace(value, { html: markup === "html" }),
};

/**
 * Removes comments but for some, and makes one space of each run of white space between two tags or comments, outside of
 * the elements that are left. What is remembered goes on over pieces of a text. The same, to the letter, as `minify.rs` of
 * `shared/content`, which says why.
 */
function minify(rewriter, { left, kept }) {
  let depth = 0;
  let isAfterSpace = false;
  let isUnfinished = false;
  rewriter.on(left, {
    element(element) {
      try {
        element.onEndTag(() => void (depth -= 1));
        depth += 1;
      } catch {
        // `<style/>` in SVG: there is no end tag to come.
      }
    },
  });
  rewriter.onDocument({
    text(chunk) {
      if (depth > 0) return;
      const { text } = chunk;
      if (text !== "") {
        const last = /[^#0-9A-Za-z](?=[#0-9A-Za-z]*$)/.exec(text);
        if (last !== null) isUnfinished = last[0] === "<" || last[0] === "&";
        let short = text.replace(/[\t\n\f\r ]+/g, " ");
        if (isAfterSpace && short.startsWith(" ")) short = short.slice(1);
        isAfterSpace = /[\t\n\f\r ]$/.test(text);
        if (short !== text) chunk.replace(short, { html: true });
      }
      if (chunk.lastInTextNode) isAfterSpace = false;
    },
    comments(comment) {
      if (depth > 0 || isUnfinished) return;
      const text = comment.text.replace(/^[\t\n\f\r ]+/, "");
      if (!kept.some((beginning) => text.startsWith(beginning))) comment.remove();
    },
  });
}

/**
 * A page, a stream or bytes, with changes made to it. They are JSON: `edits` (selector, change, its name or kind of markup,
 * value), and what `minify` leaves and keeps, if it is wanted. What edits put in is seen by no handler.
 */
export function rewrite(body, changes, decision) {
  const rewriter = new HTMLRewriter();
  const plan = JSON.parse(changes);
  for (const [select, change, first, value] of plan.edits) {
    rewriter.on(select, { element: (element) => void CHANGES[change](element, first, value) });
  }
  if (plan.minify) minify(rewriter, plan.minify);
  const page = rewriter.transform(new Response(body, { headers: { "Content-Type": "text/html; charset=utf-8" } }));
  const source = page.body.getReader();
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await source.read();
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        console.error(`decision ${decision}: the HTML can't be rewritten: ${error?.message}`);
        controller.error(error);
      }
    },
    cancel: (reason) => source.cancel(reason),
  });
}

/** The whole of a page with changes made to it, for the corpus. */
export function rewriteWhole(bytes, changes) {
  return new Response(rewrite(bytes, changes, "corpus")).arrayBuffer().then((buffer) => new Uint8Array(buffer));
}

function streamOf(body) {
  return body instanceof Uint8Array ? new Response(body).body : body;
}
