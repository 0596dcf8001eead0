#!/usr/bin/env bash
# flagsmith-nodejs 8.1.2 (npm), Node 20, Linux x86-64.
#
# Local evaluation, and an identity that has an override in the document. Traits that one call gave are still there in the next calls
# for that identity, until the document is polled anew: the call changes the identity's model that is kept of the document. Traits
# that the document has of the identity count as well. And a trait that is false, 0 or "" is dropped, so that no condition sees it.
# Identities without an override have none of this, nor has the Python SDK (flagsmith 6.3.0), nor the Edge Proxy.
#
# Seen: with an override: pro pro, false trait: off; without: pro basic, false trait: on
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund flagsmith-nodejs@8.1.2
cat > try.mjs <<'END'
import { createServer } from 'node:http'
import { Flagsmith } from 'flagsmith-nodejs'

const state = (id, name, value) => ({
  feature: { id, name, type: 'STANDARD' },
  enabled: true,
  feature_state_value: value,
  django_id: id,
  featurestate_uuid: `00000000-0000-4000-8000-00000000000${id}`,
  multivariate_feature_state_values: [],
})
const segment = (id, property, operand, override) => ({
  id,
  name: property,
  rules: [{ type: 'ALL', rules: [], conditions: [{ operator: 'EQUAL', property_: property, value: operand }] }],
  feature_states: [override],
})
const environment = {
  id: 1,
  api_key: 'k',
  name: 'n',
  updated_at: '2026-01-01T00:00:00Z',
  project: {
    id: 1,
    name: 'p',
    organisation: { id: 1, name: 'o' },
    segments: [segment(1, 'plan', 'pro', state(1, 'plan', 'pro')), segment(2, 'beta', 'false', state(2, 'beta', 'on'))],
  },
  feature_states: [state(1, 'plan', 'basic'), state(2, 'beta', 'off'), state(3, 'other', 'x')],
  identity_overrides: [
    { identifier: 'special', environment_api_key: 'k', identity_traits: [], identity_features: [state(3, 'other', 'y')] },
  ],
}
const server = createServer((_, response) => response.end(JSON.stringify(environment)))
server.listen(0, '127.0.0.1', async () => {
  const apiUrl = `http://127.0.0.1:${server.address().port}/api/v1/`
  const client = new Flagsmith({ apiUrl, environmentKey: 'ser.k', enableLocalEvaluation: true })
  const value = async (identity, traits, flag) => (await client.getIdentityFlags(identity, traits)).getFeatureValue(flag)
  const seen = async (identity) => {
    const first = await value(identity, { plan: 'pro' }, 'plan')
    const second = await value(identity, {}, 'plan')
    return `${first} ${second}, false trait: ${await value(identity, { beta: false }, 'beta')}`
  }
  console.log(`with an override: ${await seen('special')}; without: ${await seen('plain')}`)
  process.exit(0)
})
END
seen=$(node try.mjs)
echo "$seen"
[[ $seen == 'with an override: pro pro, false trait: off; without: pro basic, false trait: on' ]] || {
  echo 'changed' >&2
  exit 1
}
