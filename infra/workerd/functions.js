// A service that runs tenants' functions: an example of what an operator binds as FUNCTION_SERVICE where there is no dispatch
// namespace. A request comes as it would to its target, with the field that names tenant, function and version; the
// response says what came of it.

const FIELD = "meridian-function";
const ENDED = "meridian-function-ended";

/** Functions by tenant and name. */
const functions = {
  /** Passes the request on, and says so to both sides. */
  "acme/probe": async (request) => {
    const onward = new Request(request);
    onward.headers.set("x-function", "service");
    const response = await fetch(onward, { redirect: "manual" });
    const changed = new Response(response.body, response);
    changed.headers.set("x-function", "service");
    changed.headers.set(ENDED, "sent-on");
    return changed;
  },
};

export default {
  async fetch(request) {
    const field = request.headers.get(FIELD) ?? "";
    const [name, ...members] = field.split(";");
    const tenant = members.find((member) => member.startsWith("tenant="))?.slice("tenant=".length);
    const run = functions[`${tenant}/${name}`];
    if (run === undefined) {
      return new Response(null, { status: 502, headers: { [ENDED]: "failed;missing" } });
    }
    const own = new Request(request);
    own.headers.delete(FIELD);
    return run(own);
  },
};
