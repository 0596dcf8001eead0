// A program that uses flagsmith-nodejs as a server would, for tests/flagsmith.
//
//   node flagsmith.mjs API_URL KEY local|remote REFRESH_SECONDS [SECONDS]
//
// Reads one JSON line for each question, and prints one for its answer, in the same order:
//   {}                                                        flags without an identity
//   {"identifier":"a","traits":{…},"transient":false}         flags of an identity
//   {"flags":{"name":[enabled,value],…}} | {"status":503} | {"error":"…"}
// `status` is that of the answer that the SDK did not take. Ends when standard input is closed, or after SECONDS (240).

import { createInterface } from 'node:readline'
import { Flagsmith } from 'flagsmith-nodejs'

const [apiUrl, environmentKey, mode, refresh, seconds = '240'] = process.argv.slice(2)
const silent = Object.fromEntries(['info', 'warn', 'error', 'debug', 'trace', 'fatal'].map((level) => [level, () => {}]))

const client = new Flagsmith({
  apiUrl,
  environmentKey,
  enableLocalEvaluation: mode === 'local',
  environmentRefreshIntervalSeconds: Number(refresh),
  logger: silent,
})

async function answer({ identifier, traits, transient }) {
  try {
    const flags =
      identifier === undefined
        ? await client.getEnvironmentFlags()
        : await client.getIdentityFlags(identifier, traits, transient)
    return { flags: Object.fromEntries(flags.allFlags().map((flag) => [flag.featureName, [flag.enabled, flag.value]])) }
  } catch (error) {
    const text = `${error.message}: ${error.cause?.message}`
    const status = /Response status code: (\d+)/.exec(text)
    return status ? { status: Number(status[1]) } : { error: text }
  }
}

setTimeout(() => process.exit(0), Number(seconds) * 1000)
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + '\n')
}
process.exit(0)
