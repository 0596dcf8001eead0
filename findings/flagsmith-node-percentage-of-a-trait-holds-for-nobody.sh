#!/usr/bin/env bash
# flagsmith-nodejs 8.1.2 (npm), Node 20, Linux x86-64.
#
# A segment of a percentage by a trait: PERCENTAGE_SPLIT of 100 with the property `company`. In local evaluation nobody is in it,
# whatever the trait says: the property is only looked up as a path, so `$.identity.traits.company` works and `company` does not. Other
# operators take both, and so does the Python SDK (flagsmith 6.3.0) with this one.
#
# Seen: in the first 100 %: by identity true, by company false, by $.identity.traits.company true
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
npm install --silent --no-audit --no-fund flagsmith-nodejs@8.1.2
cat > try.mjs <<'END'
import { createServer } from 'node:http'
import { Flagsmith } from 'flagsmith-nodejs'

const properties = { identity: '', company: 'company', '$.identity.traits.company': '$.identity.traits.company' }
const state = (id, value) => ({
  feature: { id, name: `f${id}`, type: 'STANDARD' },
  enabled: true,
  feature_state_value: value,
  django_id: id,
  featurestate_uuid: `00000000-0000-4000-8000-00000000000${id}`,
  multivariate_feature_state_values: [],
})
const condition = (property) => ({ operator: 'PERCENTAGE_SPLIT', property_: property, value: '100' })
const environment = {
  id: 1,
  api_key: 'k',
  name: 'n',
  updated_at: '2026-01-01T00:00:00Z',
  project: {
    id: 1,
    name: 'p',
    organisation: { id: 1, name: 'o' },
    segments: Object.values(properties).map((property, at) => ({
      id: at + 1,
      name: 's',
      rules: [{ type: 'ALL', rules: [], conditions: [condition(property)] }],
      feature_states: [state(at + 1, true)],
    })),
  },
  feature_states: Object.keys(properties).map((_, at) => state(at + 1, false)),
}
const server = createServer((_, response) => response.end(JSON.stringify(environment)))
server.listen(0, '127.0.0.1', async () => {
  const apiUrl = `http://127.0.0.1:${server.address().port}/api/v1/`
  const client = new Flagsmith({ apiUrl, environmentKey: 'ser.k', enableLocalEvaluation: true })
  const flags = await client.getIdentityFlags('i', { company: 'Acme' })
  const seen = Object.keys(properties).map((name, at) => `by ${name} ${flags.getFeatureValue(`f${at + 1}`)}`)
  console.log(`in the first 100 %: ${seen.join(', ')}`)
  process.exit(0)
})
END
seen=$(node try.mjs)
echo "$seen"
[[ $seen == 'in the first 100 %: by identity true, by company false, by $.identity.traits.company true' ]] || {
  echo 'changed' >&2
  exit 1
}
