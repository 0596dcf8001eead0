#!/usr/bin/env bash
# Installs the pinned tools and the real parts that the Makefile's targets need, each only when missing.
#
#   integration/setup.sh packages redis-server webdis   Debian packages, by the command they bring; postgresql by its name
#   integration/setup.sh python                         .venv/ from integration/requirements.txt
#   integration/setup.sh node-packages                 integration/node/node_modules/ from its package-lock.json
#   integration/setup.sh rust                           the wasm targets of the pinned toolchain
#   integration/setup.sh nextest | wasm-bindgen         into .tools/, unless the machine has them
#   integration/setup.sh jvm                            nothing: fails where a JDK of at least 17 or Maven is missing
#   integration/setup.sh go-compiler                    nothing: fails where Go of at least 1.26 is missing
#   integration/setup.sh fuzz | oha                     cargo-fuzz; the load generator oha: into .tools/
set -euo pipefail
cd "$(dirname "$0")/.."

WASM_BINDGEN=0.2.130 # the runner must be of the same version as the crate in Cargo.lock
NEXTEST=0.9.143
CARGO_FUZZ=0.13.2
OHA=1.16.0

fail() {
  echo "error: $*" >&2
  exit 1
}

packages() {
  local missing=()
  for command in "$@"; do
    # The package is named like its command, but for Node and Postgres.
    there "$command" || missing+=("${command/#node/nodejs}")
  done
  ((${#missing[@]})) || return 0

  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "${missing[*]} is missing, and there is neither root nor sudo. As root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  command -v apt-get >/dev/null || fail "${missing[*]} is missing, and this is not Debian or Ubuntu: install it and call make again"
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends)
  "${as_root[@]}" apt-get update -q
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    # The package would start a server on port 5432; the tests start their own.
    "${install[@]}" postgresql-common
    "${as_root[@]}" sed -i '$a create_main_cluster = false' /etc/postgresql-common/createcluster.conf
  fi
  "${install[@]}" "${missing[@]}"
}

there() {
  # Debian keeps the server's programs off the PATH, one directory for each version.
  if [[ "$1" == postgresql ]]; then
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null
  else
    command -v "$1" >/dev/null
  fi
}

python() {
  command -v python3 >/dev/null || fail "python3 is missing"
  python3 -m venv .venv || fail "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"
  .venv/bin/pip install --quiet --disable-pip-version-check --requirement integration/requirements.txt
}

node-packages() {
  command -v npm >/dev/null || packages npm
  npm ci --prefix integration/node --no-audit --no-fund --loglevel=error
}

rust() {
  command -v rustup >/dev/null || fail "rustup is missing, see https://rustup.rs"
  local installed
  installed=$(rustup target list --installed)
  for target in wasm32-wasip1 wasm32-unknown-unknown; do
    grep -qx "$target" <<<"$installed" || rustup target add "$target"
  done
}

jvm() {
  local remedy='on Debian and Ubuntu: apt-get install openjdk-17-jdk-headless maven' version
  version=$(javac -version 2>&1) || fail "a JDK is missing (17 or newer); $remedy"
  version=${version#javac }
  ((${version%%.*} >= 17)) || fail "the JDK is of version $version, not of 17 or newer; $remedy"
  command -v mvn >/dev/null || fail "Maven is missing; $remedy"
}

go-compiler() {
  local remedy='see https://go.dev/dl' version
  version=$(go env GOVERSION 2>&1) || fail "Go is missing (1.26 or newer); $remedy"
  [[ "$version" =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 26)) || fail "Go is of version ${version#go}, not of 1.26 or newer; $remedy"
}

# Neither tool has a package with a binary in a registry. Unoptimized they are built in a third of the time; the Node tests take 40 s
# longer for it, the others as long.
unoptimized() {
  CARGO_PROFILE_DEV_DEBUG=0 cargo install "$@" --debug --root .tools
}

nextest() {
  command -v cargo-nextest >/dev/null || unoptimized cargo-nextest --version "$NEXTEST" --locked
}

wasm-bindgen() {
  # Without --locked: its lock file names a dependency version that does not exist any more.
  [[ "$(.tools/bin/wasm-bindgen --version 2>/dev/null)" == "wasm-bindgen $WASM_BINDGEN" ]] ||
    unoptimized wasm-bindgen-cli --version "$WASM_BINDGEN"
}

fuzz() {
  [[ "$(.tools/bin/cargo-fuzz --version 2>/dev/null)" == "cargo-fuzz $CARGO_FUZZ" ]] ||
    cargo install cargo-fuzz --version "$CARGO_FUZZ" --locked --root .tools
}

oha() {
  [[ "$(.tools/bin/oha --version 2>/dev/null)" == "oha $OHA" ]] ||
    cargo install oha --version "$OHA" --locked --root .tools
}

"$@"
