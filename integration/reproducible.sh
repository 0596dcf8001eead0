#!/usr/bin/env bash
# Builds the filter from a copy of the sources in each of two directories, with a Cargo home of its own each, and
# compares. Prints the SHA-256.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_home=${CARGO_HOME:-$HOME/.cargo}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

places=("$work/one" "$work/another/place")
for place in "${places[@]}"; do
  mkdir -p "$place/sources" "$place/cargo/registry"
  git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$place/sources"
  # What was downloaded is shared; it is unpacked anew.
  for shared in registry/cache registry/index config.toml; do
    [[ ! -e "$cargo_home/$shared" ]] || ln -s "$cargo_home/$shared" "$place/cargo/$shared"
  done
done

for place in "${places[@]}"; do
  CARGO_HOME="$place/cargo" make --no-print-directory -C "$place/sources" filter
done

digests=()
for place in "${places[@]}"; do
  read -r digest _ <"$place/sources/target/wasm32-wasip1/release/flag_definitions_filter.wasm.sha256"
  digests+=("$digest")
done
if [[ "${digests[0]}" != "${digests[1]}" ]]; then
  echo "error: two builds of the same sources differ: ${digests[*]}" >&2
  exit 1
fi
echo "${digests[0]}"
