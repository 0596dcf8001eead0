"""A Redis that others find by a name, its replica, and the shipped probe that tells one from the other."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis
import yaml

from stack import processes
from stack.launcher import Stack
from stack.link import Link
from stack.paths import ROOT
from stack.ports import free_port
from stack.programs import tool
from stack.settings import Settings

NOBODYS_PORT = 1


@dataclass
class Name:
    """A name of Redis: connections stay where it led to when they were made, as with DNS or a Service."""

    link: Link
    redis_port: int
    replica_port: int
    replica: processes.Process | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """For a stack whose webdis and publisher use this name."""
        return {"redis_port": self.redis_port, "redis_name": self.link.port}

    def start_replica(self, stack: Stack) -> None:
        """Returns when it has everything."""
        self.replica = processes.start(
            "redis-replica",
            [tool("redis-server"), "--port", self.replica_port, "--bind", "127.0.0.1", "--save", ""]
            + ["--aclfile", "users.acl", "--replicaof", "127.0.0.1", self.redis_port],
            stack.settings.run_dir,
        )
        stack.wait_until(self._replicates)

    def fail_over(self, stack: Stack, isolated: bool) -> None:
        """The replica becomes the primary, and `stack.redis` with it. The former primary is its replica, or
        hears nothing any more. The name moves at once."""
        successor = redis.Redis(port=self.replica_port)
        successor.replicaof("NO", "ONE")
        stack.redis.replicaof("127.0.0.1", NOBODYS_PORT if isolated else self.replica_port)
        self.link.gateway_port = self.replica_port
        stack.settings = replace(stack.settings, redis_port=self.replica_port)

    def _replicates(self) -> bool:
        try:
            return redis.Redis(port=self.replica_port).info("replication")["master_link_status"] == "up"
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False


@contextmanager
def named_redis() -> Iterator[Name]:
    port = free_port()
    with Link(port) as link:
        name = Name(link, port, free_port())
        try:
            yield name
        finally:
            if name.replica:
                name.replica.stop()


# === The probe ===


@dataclass(frozen=True)
class Probe:
    """The liveness probe of a container, run as its image runs it: by BusyBox."""

    definition: dict[str, Any]
    programs: Path

    @classmethod
    def of_webdis(cls, directory: Path) -> Probe:
        deployment = yaml.safe_load((ROOT / "envoy/contour/deployment.yaml").read_text())
        (webdis,) = deployment["spec"]["template"]["spec"]["initContainers"]
        assert webdis["name"] == "webdis"
        for program in ("sh", "timeout", "wget"):
            (directory / program).symlink_to(tool("busybox"))
        return cls(webdis["livenessProbe"], directory)

    def run(self, settings: Settings) -> tuple[int, str]:
        """Exit code and output. Fails when the kubelet would not have waited for it."""
        program, *arguments = self.definition["exec"]["command"]
        here = f"//127.0.0.1:{settings.webdis_port}/"
        arguments = [word.replace("//127.0.0.1:7379/", here) for word in arguments]
        began = time.monotonic()
        result = subprocess.run(
            [self.programs / program, *arguments],
            env={"PATH": str(self.programs)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert time.monotonic() - began < self.definition["timeoutSeconds"]
        return result.returncode, result.stdout
