"""How long one callback takes that reads, decodes and answers a large payload."""

from __future__ import annotations

import re
import statistics

import cpu
from documents import definitions_of_size
from models.posthog.writers import put_definitions_django
from stack.edge import get
from stack.launcher import Stack
from stack.processes import StackError
from stack.settings import Settings

LARGE = 1_500_000  # bytes of JSON text, the largest payload seen at PostHog
# Each request reads the payload again.
NO_BODY_CACHE = {"definitions": {"body_cache_bytes": 0}}


def milliseconds(requests: int) -> dict[str, float]:
    """Of 1.5 MB, pickled and compressed with zstd by Django's own cache; the first one runs in a fresh VM."""
    text = definitions_of_size(LARGE)
    with Stack(
        Settings.on_free_ports(callout_timeout=None, concurrency=1, log_level="debug", config=NO_BODY_CACHE)
    ) as stack:
        cpu.give_a_core(stack.processes["envoy"].pid)
        put_definitions_django(stack, 1, text)
        for _ in range(requests):
            answer = get(stack)
            if answer.status_code != 200 or answer.text != text:
                raise StackError(f"the large payload was answered with {answer.status_code}")
        stack.wait_until(lambda: len(_logged(stack)) >= requests)
        times = _logged(stack)
    first, usual = times[0], statistics.median(times[1:])
    print(f"1.5 MB zstd+pickle, one callback: {usual:.1f} ms; the first of a VM: {first:.1f} ms", flush=True)
    return {"decode_1500_kb": round(usual, 2), "decode_1500_kb_first_of_vm": round(first, 2)}


def _logged(stack: Stack) -> list[float]:
    found = re.findall(r"a reply of \d+ bytes was read and answered in (\d+) us", stack.log("envoy"))
    return [int(micros) / 1000 for micros in found]
