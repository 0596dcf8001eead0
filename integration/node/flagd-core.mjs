// A program that evaluates flags with @openfeature/flagd-core, for tests/ofrep.
//
//   node flagd-core.mjs
//
// Reads one JSON line for each question, and prints one for its answer, in the same order:
//   {"document":{…}}                          from now on its flags are evaluated; {}, or {"refused":"why"}
//   {"ask":[{"key":"a","context":{…}},…]}     {"outcomes":[{"value":…,"reason":…,"variant":…,"error":…,"metadata":{…}},…]}
// Ends when standard input is closed.

import { createInterface } from 'node:readline'
import { FlagdCore } from '@openfeature/flagd-core'

const silent = Object.fromEntries(['error', 'warn', 'info', 'debug'].map((level) => [level, () => {}]))
const core = new FlagdCore(undefined, silent)

// As a provider asks, but without a type: OFREP's clients name none.
function outcome({ key, context }) {
  const flag = core.getFlag(key)
  if (flag.state === 'DISABLED') {
    return { reason: 'DISABLED', metadata: flag.metadata }
  }
  const { value, reason, variant, errorCode, flagMetadata } = flag.evaluate(context)
  return { value, reason, variant, error: errorCode, metadata: flagMetadata }
}

function answer({ document, ask }) {
  if (ask !== undefined) {
    return { outcomes: ask.map(outcome) }
  }
  try {
    core.setConfigurations(JSON.stringify(document))
    return {}
  } catch (error) {
    return { refused: error.message }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(answer(JSON.parse(line))) + '\n')
}
