#!/usr/bin/env bash
# flagsmith-nodejs 8.1.2 (npm), Node 20, Linux x86-64.
#
# Local evaluation, and an override of the identity "smith,john": it is applied to the identities "smith" and "john", and never to
# "smith,john". Identifiers of a group are joined with commas into the value of a condition IN, and split again. The Python SDK
# (flagsmith 6.3.0) keeps a list, and applies the override to "smith,john" alone.
#
# Seen: smith,john: default, smith: override, john: override
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund flagsmith-nodejs@8.1.2
cat > try.mjs <<'END'
import { createServer } from 'node:http'
import { Flagsmith } from 'flagsmith-nodejs'

const state = (value) => ({
  feature: { id: 1, name: 'f', type: 'STANDARD' },
  enabled: true,
  feature_state_value: value,
  django_id: 1,
  featurestate_uuid: '00000000-0000-4000-8000-000000000001',
  multivariate_feature_state_values: [],
})
const environment = {
  id: 1,
  api_key: 'k',
  name: 'n',
  updated_at: '2026-01-01T00:00:00Z',
  project: { id: 1, name: 'p', organisation: { id: 1, name: 'o' }, segments: [] },
  feature_states: [state('default')],
  identity_overrides: [
    { identifier: 'smith,john', environment_api_key: 'k', identity_traits: [], identity_features: [state('override')] },
  ],
}
const server = createServer((_, response) => response.end(JSON.stringify(environment)))
server.listen(0, '127.0.0.1', async () => {
  const apiUrl = `http://127.0.0.1:${server.address().port}/api/v1/`
  const client = new Flagsmith({ apiUrl, environmentKey: 'ser.k', enableLocalEvaluation: true })
  const seen = []
  for (const identity of ['smith,john', 'smith', 'john']) {
    seen.push(`${identity}: ${(await client.getIdentityFlags(identity)).getFeatureValue('f')}`)
  }
  console.log(seen.join(', '))
  process.exit(0)
})
END
seen=$(node try.mjs)
echo "$seen"
[[ $seen == 'smith,john: default, smith: override, john: override' ]] || {
  echo 'changed' >&2
  exit 1
}
