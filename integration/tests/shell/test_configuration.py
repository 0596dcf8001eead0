"""Plugin configuration: refused with the field's path, and changed under load without a wrong answer."""

from __future__ import annotations

import json
import threading
import time

import pytest

from stack.edge import UNLIMITED, get, trap_count
from stack.launcher import Stack
from stack.processes import StackError
from stack.running import definitions_key
from stack.settings import Settings


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"redis": {"default": {"cluster": ""}}}, "redis.default.cluster: must not be empty"),
        ({"snapshot": {"poll_interval": "1 fortnight"}}, "snapshot.poll_interval: "),
        ({"nonsense": True}, "nonsense: unknown field"),
        ({"$schema": 1}, "$schema: invalid type"),
        ("{", "plugin configuration: EOF"),
    ],
)
def test_a_bad_configuration_is_refused_at_start_and_names_the_field(config, message: str) -> None:
    with pytest.raises(StackError, match="refused the listeners") as refused:
        Stack(Settings.on_free_ports(config=config)).start()
    assert message in str(refused.value)


def test_a_cluster_that_envoy_does_not_know_is_named_once_in_the_log_and_in_health() -> None:
    config = {"$schema": "../plugin.schema.json", "redis": {"definitions": {"cluster": "no_such_cluster"}}}

    def unknown() -> list[str]:
        return json.loads(stack.http(f"{stack.health_url}/health")[1]).get("unknown_clusters", [])

    with Stack(Settings.on_free_ports(config=config | UNLIMITED)) as stack:
        assert unknown() == [], "nobody asked"
        for _ in range(20):
            assert get(stack).status_code == 503
        stack.wait_until(lambda: unknown() == ["no_such_cluster"])
        for _ in range(20):
            get(stack)
        time.sleep(1.5)
        lines = [line for line in stack.log("envoy").splitlines() if "no_such_cluster" in line]
        named = [line for line in lines if "Envoy does not know the cluster" in line]
        assert len(named) == 1, lines
        assert stack.metric("flag_definitions_callouts_total", store="definitions", outcome="not_sent") > 0


def test_a_bad_update_leaves_the_old_configuration_serving(samples: Stack) -> None:
    assert samples.change_config({"redis": {"default": {"timeout": "0s"}}}) is False
    assert "redis.default.timeout: 0ns is out of range" in samples.log("envoy")
    assert get(samples).status_code == 200
    assert samples.change_config(None) is True


def test_a_configuration_change_under_load_gives_no_wrong_answer_and_one_loader() -> None:
    with Stack(Settings.on_free_ports(config=UNLIMITED)) as stack:
        etag = stack.redis.get(definitions_key(1) + ":etag").decode()
        stop = threading.Event()
        wrong: list[object] = []
        served = [0]

        def ask(expected: int, **arguments: object) -> None:
            while not stop.is_set():
                try:
                    status = get(stack, **arguments).status_code
                except OSError as error:
                    wrong.append(error)
                    continue
                served[0] += 1
                if status != expected:
                    wrong.append((expected, status, arguments))

        load = [
            threading.Thread(target=ask, args=(200,)),
            threading.Thread(target=ask, args=(304,), kwargs={"etag": f'W/"{etag}"'}),
            threading.Thread(target=ask, args=(401,), kwargs={"secret": "phs_wrong"}),
        ]
        for thread in load:
            thread.start()
        try:
            for age in ["1s", "3s", "1500ms", "2s"]:
                assert stack.change_config(UNLIMITED | {"snapshot": {"etag_max_age": age}})
                stop.wait(1.0)
            polls, began = stack.metric("flag_definitions_callouts_total", store="snapshot"), time.monotonic()
            stop.wait(5.0)
            polls = stack.metric("flag_definitions_callouts_total", store="snapshot") - polls
            lasted = time.monotonic() - began
        finally:
            stop.set()
            for thread in load:
                thread.join()
        assert wrong == []
        assert trap_count(stack) == 0
        assert served[0] > 500
        # Five configurations tick in three VMs; the process still polls once a second.
        assert 3 <= polls <= lasted + 3, (polls, lasted)
