// Runs the public suite `http-cache-tests` through one edge, and prints what each of its tests came to as JSON.
//
//   node run.mjs SUITE NODE_MODULES EDGE_URL HOST PORT
//
// SUITE is the release that npm carries, or a checkout of its repository, where the files lie otherwise and more is tested.
//
// The suite's own server, which the edge forwards to, listens on 127.0.0.1:PORT. Beside the edge's outcome stands that of
// each cache whose results the suite carries.

import http from 'node:http'
import path from 'node:path'
import { createRequire } from 'node:module'
import { existsSync, readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [suite, modules, edge, host, port] = process.argv.slice(2)
const load = file => import(pathToFileURL(path.join(suite, file)))

const isCheckout = existsSync(path.join(suite, 'test-engine'))
const engine = isCheckout ? 'test-engine/' : ''

const [tests, surrogate, published, { runTests, getResults }] = await Promise.all([
  load('tests/index.mjs'), isCheckout ? { default: [] } : load('tests/surrogate-control.mjs'),
  load('results/index.mjs'), load(`${engine}client/runner.mjs`)
])
const suites = [...tests.default, surrogate.default].flat()
const byId = new Map(suites.flatMap(suite => suite.tests.map(test => [test.id, { suite: suite.name, ...test }])))

const handlers = Object.fromEntries(await Promise.all(
  ['config', 'state', 'test'].map(async name => [name, (await load(`${engine}server/handle-${name}.mjs`)).default])
))
const server = http.createServer((request, response) => {
  const [name, ...rest] = new URL(request.url, 'http://suite').pathname.split('/').slice(1)
  const handler = handlers[name]
  if (handler) return handler(rest, request, response)
  response.writeHead(404).end()
})
// Its warnings would get between the lines that are printed here.
console.log = () => {}
await new Promise((resolve, reject) => server.once('error', reject).listen(Number(port), '127.0.0.1', resolve))

const fetch = createRequire(path.join(modules, 'here'))('node-fetch')
const throughEdge = (url, init = {}) => {
  const headers = new fetch.Headers(init.headers)
  headers.set('host', host)
  return fetch(url, { ...init, headers })
}
globalThis.fetch = throughEdge
await (isCheckout ? runTests(suites, false, edge) : runTests(suites, throughEdge, false, edge))

// A test counts only where the tests that it builds on passed.
function outcome (results, test) {
  const result = results[test.id]
  if (result === undefined) return 'untested'
  if ((test.depends_on ?? []).some(id => outcome(results, byId.get(id)) !== 'passed')) return 'dependency'
  if (result === true) return 'passed'
  return result[0] === 'Setup' ? 'setup' : 'failed'
}

const others = published.default.filter(one => one.type !== 'browser').map(one => ({
  name: `${one.name} ${one.version}`,
  results: JSON.parse(readFileSync(path.join(suite, 'results', one.file), 'utf8'))
}))
const own = getResults()
const report = [...byId.values()].filter(test => !test.browser_only).map(test => ({
  id: test.id,
  suite: test.suite,
  name: test.name,
  kind: test.kind ?? 'required',
  outcome: outcome(own, test),
  detail: own[test.id] === true ? null : String(own[test.id]?.[1] ?? ''),
  others: Object.fromEntries(others.map(other => [other.name, outcome(other.results, test)]))
}))
process.stdout.write(JSON.stringify(report) + '\n', () => process.exit(0))
