#!/usr/bin/env bash
# @openfeature/flagd-core 4.0.1 with json-logic-engine 5.0.7 (npm), Node 20.20, Linux x86-64.
#
# A comparison whose second side is an `if` over lists, or a `reduce`, throws where the rule is compiled, which is the default: the flag
# is an error for everybody. flagd evaluates it, and so does the library with disableDynamicCodeGeneration.
#
# Seen: compiled: GENERAL, interpreted: yes
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
echo '{"type": "module"}' > package.json
npm install --silent --no-audit --no-fund @openfeature/flagd-core@4.0.1
cat > try.js <<'END'
import { FlagdCore } from '@openfeature/flagd-core'

const silent = { error() {}, warn() {}, info() {}, debug() {} }
const second = { if: [{ in: ['eu', { var: 'tags' }] }, 'a', 'b'] }
const targeting = { if: [{ '==': ['a', second] }, 'yes', 'no'] }
const flag = { state: 'ENABLED', variants: { yes: 'yes', no: 'no' }, defaultVariant: 'no', targeting }
function of(options) {
  const core = new FlagdCore(undefined, silent, options)
  core.setConfigurations(JSON.stringify({ flags: { f: flag } }))
  const found = core.resolveStringEvaluation('f', '', { tags: ['eu'] })
  return found.errorCode ?? found.value
}
console.log(`compiled: ${of({})}, interpreted: ${of({ disableDynamicCodeGeneration: true })}`)
END
seen=$(node try.js)
echo "$seen"
[[ $seen == 'compiled: GENERAL, interpreted: yes' ]] || {
  echo 'changed' >&2
  exit 1
}
