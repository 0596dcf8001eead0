"""A GET may have a body, which nobody asked for. It is answered as one without, also when it has to wait."""

from __future__ import annotations

import pytest

from stack.edge import get, in_background, trap_count, wait_until_active
from stack.launcher import Stack
from stack.settings import Settings


@pytest.mark.parametrize("upstream", ["none", "forward"])
@pytest.mark.parametrize("length", [1_000, 100_000])
def test_a_body_does_not_end_a_request_that_waits_for_a_callout(upstream: str, length: int) -> None:
    patient = {"callout_timeout": "20s", "idle_timeout": "20s"}
    with Stack(Settings.on_free_ports(config={"upstream": upstream}, **patient)) as stack:
        stack.pause("redis")
        waiting = in_background(*[lambda: get(stack, data=b"x" * length)] * 3)
        wait_until_active(stack, 3)
        stack.resume("redis")
        assert [answer.result(timeout=60).status_code for answer in waiting] == [200] * 3
        assert get(stack, data=b"x" * length).status_code == 200
        assert trap_count(stack) == 0


def test_a_body_of_any_length_is_let_go_where_nothing_is_forwarded() -> None:
    with Stack(Settings.on_free_ports(callout_timeout="20s", idle_timeout="20s")) as stack:
        stack.pause("redis")
        waiting = in_background(lambda: get(stack, data=b"x" * (5 << 20)))
        wait_until_active(stack, 1)
        stack.resume("redis")
        assert waiting[0].result(timeout=60).status_code == 200
