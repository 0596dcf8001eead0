#!/usr/bin/env bash
# flagsmith 6.3.0 (PyPI) with requests 2.34.2 and urllib3 2.8.0, Python 3.11, Linux x86-64.
#
# A 429 or 503 with Retry-After makes `get_environment_flags()` sleep for that long, and ask again, three times: its session has
# urllib3's Retry(total=3), which heeds the header though no status is named there to retry on. `request_timeout_seconds` does
# not bound it; with `Retry-After: 3600` the calling thread is gone for three hours.
# Without the header the same answers are an error at once. A POST (`get_identity_flags()`) is never repeated.
#
# Seen: 429 with Retry-After 2: 4 requests, 6 s; 503 with it: 4 requests, 6 s; without: 1 request, 0 s; POST: 1 request, 0 s
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flagsmith==6.3.0 requests==2.34.2 urllib3==2.8.0
cat > try.py <<'END'
import http.server
import threading
import time

from flagsmith import Flagsmith
from flagsmith.exceptions import FlagsmithAPIError

asked, told = [], {}


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        asked.append(self.path)
        self.send_response(told["status"])
        if told["wait"]:
            self.send_header("retry-after", str(told["wait"]))
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/api/v1/"
client = Flagsmith(environment_key="k", api_url=url, request_timeout_seconds=1)


def seen(status, wait, ask=client.get_environment_flags):
    told.update(status=status, wait=wait)
    asked.clear()
    began = time.monotonic()
    try:
        ask()
    except FlagsmithAPIError:
        pass
    requests = f"{len(asked)} request{'s' if len(asked) > 1 else ''}"
    return f"{requests}, {int(time.monotonic() - began)} s"


print(
    f"429 with Retry-After 2: {seen(429, 2)}; 503 with it: {seen(503, 2)}; without: {seen(429, 0)}; "
    f"POST: {seen(429, 2, lambda: client.get_identity_flags('i'))}"
)
END
seen=$(venv/bin/python try.py)
echo "$seen"
[[ $seen == '429 with Retry-After 2: 4 requests, 6 s; 503 with it: 4 requests, 6 s; without: 1 request, 0 s; POST: 1 request, 0 s' ]] || {
  echo 'changed' >&2
  exit 1
}
