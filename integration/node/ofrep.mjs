// A program that uses OpenFeature's OFREP providers as a browser and as a server would, for tests/ofrep.
//
//   node ofrep.mjs web|server BASE_URL HEADERS POLL_MILLISECONDS [SECONDS]
//
// HEADERS is a JSON object. Reads one JSON line for each question, and prints one for its answer, in the same order:
//   {"context":{…}}                        from now on it is asked for this context; the first one starts the provider
//   {"key":"a","default":false,"context"?} a flag, by the type of the default; for a server in this context
//   {"keys":{"a":false,…}}                 several
//   {"wait":300}                           nothing but what happened meanwhile
// Each answer has `seen`, what happened since the last one: "POST 304" of requests, "PROVIDER_STALE" of events. A flag is
// {"value":…,"reason":…,"variant":…,"error":…}. Ends when standard input is closed, or after SECONDS (240).

import { createInterface } from 'node:readline'

const [mode, baseUrl, headers, poll, seconds = '240'] = process.argv.slice(2)
const isWeb = mode === 'web'
const { OpenFeature, ProviderEvents } = await import(isWeb ? '@openfeature/web-sdk' : '@openfeature/server-sdk')
const { OFREPWebProvider } = isWeb ? await import('@openfeature/ofrep-web-provider') : {}
const { OFREPProvider } = isWeb ? {} : await import('@openfeature/ofrep-provider')

let seen = []

async function fetchImplementation(input, init) {
  try {
    const response = await fetch(input, init)
    seen.push(`${init?.method ?? input.method ?? 'GET'} ${response.status}`)
    return response
  } catch (error) {
    seen.push('no answer')
    throw error
  }
}

const silent = Object.fromEntries(['error', 'warn', 'info', 'debug'].map((level) => [level, () => {}]))
OpenFeature.setLogger(silent)
const options = { baseUrl, headers: Object.entries(JSON.parse(headers)), fetchImplementation }
const provider = isWeb
  ? new OFREPWebProvider({ ...options, pollInterval: Number(poll) }, silent)
  : new OFREPProvider(options)
for (const event of Object.values(ProviderEvents)) {
  OpenFeature.addHandler(event, () => seen.push(event))
}
const client = OpenFeature.getClient()
let isStarted = false

function evaluate(key, fallback, context) {
  const type = { boolean: 'Boolean', string: 'String', number: 'Number', object: 'Object' }[typeof fallback]
  const ask = client[`get${type}Details`].bind(client)
  return isWeb ? ask(key, fallback) : ask(key, fallback, context)
}

async function flag(key, fallback, context) {
  const { value, reason, variant, errorCode } = await evaluate(key, fallback, context)
  return { value, reason, variant, error: errorCode }
}

async function start(context) {
  if (isWeb) {
    await OpenFeature.setContext(context)
  }
  if (!isStarted) {
    isStarted = true
    await OpenFeature.setProviderAndWait(provider).catch((error) => seen.push(`start: ${error.message}`))
  }
}

async function answer({ context, key, keys, default: fallback, wait }) {
  if (wait !== undefined) {
    await new Promise((resolve) => setTimeout(resolve, wait))
    return {}
  }
  if (keys !== undefined) {
    const flags = Object.entries(keys).map(async ([key, fallback]) => [key, await flag(key, fallback, context)])
    return { flags: Object.fromEntries(await Promise.all(flags)) }
  }
  if (key !== undefined) {
    return { flag: await flag(key, fallback, context) }
  }
  await start(context)
  return {}
}

setTimeout(() => process.exit(0), Number(seconds) * 1000)
for await (const line of createInterface({ input: process.stdin })) {
  const answered = await answer(JSON.parse(line)).catch((error) => ({ error: error.message }))
  process.stdout.write(JSON.stringify({ ...answered, seen }) + '\n')
  seen = []
}
process.exit(0)
