"""Whatever a client sends, Envoy answers and no VM traps."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from stack.edge import SECRET, get, raw, raw_get, trap_count
from stack.launcher import Stack

AUTH = b"authorization: Bearer " + SECRET.encode()
PATH = b"/flags/definitions"


@pytest.mark.parametrize(
    ("name", "request_bytes", "allowed"),
    [
        (
            "lower-case scheme",
            raw_get(headers := PATH + b"?token=phc_sample_team_one", b"authorization: bearer x"),
            {401},
        ),
        ("other scheme", raw_get(headers, b"authorization: Basic eDp5"), {401}),
        ("scheme alone", raw_get(headers, b"authorization: Bearer"), {401}),
        ("empty field", raw_get(headers, b"authorization:"), {401}),
        ("bytes that are not UTF-8", raw_get(headers, b"authorization: Bearer \xff\xfe\x80"), {401}),
        # Envoy joins repeated Authorization fields with a comma: the result is nobody's credential.
        ("two credentials, the first good", raw_get(headers, AUTH, b"authorization: Bearer x"), {401}),
        ("two credentials, the second good", raw_get(headers, b"authorization: Bearer x", AUTH), {401}),
        ("50 KB credential", raw_get(headers, b"authorization: Bearer phs_" + b"a" * 50_000), {401}),
        ("50 KB token", raw_get(PATH + b"?token=" + b"a" * 50_000, AUTH), {401}),
        ("broken escapes", raw_get(PATH + b"?token=%&%zz=%e&token%", AUTH), {401}),
        ("escape of nothing", raw_get(PATH + b"?token=%00%ff", AUTH), {400, 401}),
        ("duplicate token", raw_get(headers + b"&token=phc_sample_team_one", AUTH), {400}),
        ("a query of ampersands", raw_get(PATH + b"?" + b"&" * 30_000, AUTH), {200}),
        ("a query of question marks", raw_get(PATH + b"?" + b"?" * 30_000, AUTH), {200}),
        ("no token, not UTF-8", raw_get(PATH + b"?\xff=\xfe", AUTH), {200, 400}),
        ("2 500 entity tags", raw_get(headers, AUTH, b"if-none-match: " + b'"x", ' * 2_500), {200}),
        (
            "2 500 entity tags and a star",
            raw_get(headers, AUTH, b"if-none-match: " + b'"x", ' * 2_500 + b"*"),
            {304},
        ),
        ("unbalanced quotes", raw_get(headers, AUTH, b'if-none-match: W/"""","'), {200}),
        ("validators not UTF-8", raw_get(headers, AUTH, b"if-none-match: \xff\xfe"), {200}),
        ("90 validator fields", raw_get(headers, AUTH, *[b'if-none-match: "x"'] * 90), {200}),
        ("origin not UTF-8", raw_get(headers, AUTH, b"origin: \xff\xfe"), {200}),
        ("61 KiB of headers", raw_get(headers, AUTH, b"x-filler: " + b"a" * (61 * 1024)), {431}),
        ("NUL in a header", raw_get(headers, AUTH, b"origin: a\x00b"), {400}),
        ("no host", b"GET /flags/definitions HTTP/1.1\r\n\r\n", {400}),
        ("HTTP/1.0", b"GET /flags/definitions HTTP/1.0\r\n\r\n", {401}),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_bad_input_table(samples: Stack, name: str, request_bytes: bytes, allowed: set[int]) -> None:
    assert raw(samples, request_bytes) in allowed
    assert trap_count(samples) == 0


def test_ten_megabytes_of_random_bytes(samples: Stack) -> None:
    """As header values, queries and methods, one request a connection, with a fixed seed."""
    rng = random.Random(20_26)
    visible = bytes(range(0x21, 0x7F)).replace(b"#", b"")
    # Envoy refuses control characters in fields; everything else reaches the filter.
    opaque = bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F)
    names = [b"authorization", b"if-none-match", b"origin", b"access-control-request-headers", b"user-agent"]
    prefixes = [b"", b"Bearer ", b"Bearer phs_", b'W/"', b'"', b"*,"]
    methods = [b"GET"] * 20 + [b"POST", b"HEAD", b"OPTIONS", b"BREW"]
    targets = [b"", b"?", b"?token=", b"?token=phc_sample_team_one&"]
    sent = 0
    answers: Counter[int | None] = Counter()
    while sent < 10_000_000:
        size = rng.choice([60, 700, 7_000, 25_000])
        target = PATH + rng.choice(targets) + bytes(rng.choices(visible, k=min(size, 8_000)))
        fields = [
            rng.choice(names) + b": " + rng.choice(prefixes) + bytes(rng.choices(opaque, k=size))
            for _ in range(rng.randrange(1, 3))
        ]
        method = rng.choice([*methods, rng.randbytes(rng.randrange(1, 20)).translate(None, b"\r\n")])
        request = raw_get(target, *fields).replace(b"GET", method, 1)
        answers[raw(samples, request, timeout=1.0)] += 1
        sent += len(request)
    for _ in range(50):
        # Not HTTP at all; Envoy may wait for more of it.
        answers[raw(samples, rng.randbytes(2_000) + b"\r\n\r\n", timeout=0.2)] += 1
    print(dict(answers))
    # Most of it came as far as the filter, and nothing was taken for an outage.
    assert answers[401] > 200
    assert set(answers) <= {200, 400, 401, 404, 405, 431, None}
    assert trap_count(samples) == 0
    assert get(samples).status_code == 200
