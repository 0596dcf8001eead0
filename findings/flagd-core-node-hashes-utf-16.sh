#!/usr/bin/env bash
# @openfeature/flagd-core 4.0.1 (npm), Node 20.20, Linux x86-64.
#
# `fractional` puts whoever has a targeting key, or other bucketing value, with characters beyond ASCII into another bucket than flagd
# does. flagd (Go module github.com/open-feature/flagd/core 0.17.0) hashes the bytes of UTF-8; the library gives the text to imurmurhash
# 0.1.4, which hashes UTF-16 code units. An in-process provider and a flagd on the same definitions disagree about half of these users.
#
# Seen: ann a, ø a (flagd: a, b)
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
echo '{"type": "module"}' > package.json
npm install --silent --no-audit --no-fund @openfeature/flagd-core@4.0.1
cat > try.js <<'END'
import { FlagdCore } from '@openfeature/flagd-core'

const silent = { error() {}, warn() {}, info() {}, debug() {} }
const core = new FlagdCore(undefined, silent)
const targeting = { fractional: [{ var: 'user' }, ['a', 1], ['b', 1]] }
const flag = { state: 'ENABLED', variants: { a: 'a', b: 'b' }, defaultVariant: 'a', targeting }
core.setConfigurations(JSON.stringify({ flags: { f: flag } }))
const of = (user) => core.resolveStringEvaluation('f', '', { user }).value
console.log(['ann', 'ø'].map((user) => `${user} ${of(user)}`).join(', '))
END
seen=$(node try.js)
echo "$seen"
[[ $seen == 'ann a, ø a' ]] || {
  echo 'changed' >&2
  exit 1
}
