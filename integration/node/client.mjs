// A program that uses posthog-node as a server would, for test_sdks.py.
//
//   node client.mjs HOST TOKEN secretKey|personalApiKey SECRET INTERVAL_MS [PATH] [SECONDS]
//
// Prints one JSON line for each poll of the definitions, once the SDK has taken the answer in:
//   {"event":"poll","asked":1763728000.123,"status":200,"sent":"W/\"…\""|null,"etag":"W/\"…\""|null,"flags":{…}|null}
// `asked` is the Unix time at which it asked.
// `flags` is what getAllFlags evaluates locally, sorted; null until a first document was loaded, because the
// SDK would ask again for each evaluation. Errors that the SDK reports are {"event":"error","message":…}.
// Ends when standard input is closed, or after SECONDS (60).

import { PostHog } from 'posthog-node'

const [host, token, kind, secret, interval, path = '/flags/definitions', seconds = '60'] = process.argv.slice(2)
const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')

let loaded = false
let client

// Lines are in the order of answers. To evaluate flags takes longer than to find that there are none, as after a 402.
let printed = Promise.resolve()

function report(asked, status, sent, etag) {
  const found = loaded ? client.getAllFlags('user-1', { onlyEvaluateLocally: true }) : null
  printed = Promise.all([found, printed]).then(([found]) => {
    const flags = found && Object.fromEntries(Object.entries(found).sort())
    print({ event: 'poll', asked, status, sent, etag, flags })
  })
}

// The real fetch. It only looks on, and replaces the path for the older alias, which this release of the SDK
// no longer asks for.
async function watchedFetch(url, options) {
  if (!url.includes('/flags/definitions')) return fetch(url, options)
  const asked = Date.now() / 1000
  const response = await fetch(url.replace('/flags/definitions', path), options)
  // Read to its end here, so that what the SDK still does with it takes no turn of the event loop.
  const text = await response.text()
  const { status, headers } = response
  setImmediate(report, asked, status, options.headers['If-None-Match'] ?? null, headers.get('etag'))
  return { status, headers, text: async () => text, json: async () => JSON.parse(text) }
}

async function end() {
  await client.shutdown(1000)
  process.exit(0)
}

client = new PostHog(token, {
  host,
  [kind]: secret,
  featureFlagsPollingInterval: Number(interval),
  fetch: watchedFetch,
})
client.on('localEvaluationFlagsLoaded', () => (loaded = true))
client.on('error', (error) => print({ event: 'error', message: String(error?.message ?? error) }))

process.stdin.on('end', end).resume()
setTimeout(end, Number(seconds) * 1000)
