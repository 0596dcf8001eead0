"""An Envoy whose instructions valgrind counts: all outside the kernel, code of VMs as V8 compiled it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from bench_stack import BenchStack
from stack.processes import StackError


@dataclass
class CountedStack(BenchStack):
    """With an Envoy whose instructions are counted on demand."""

    def _start(self, name: str, command: list[object], *more: object, **others: object) -> None:
        if name == "envoy":
            # Envoy's package has a launcher, hence the children; V8 writes code, which is to be read again.
            counter = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--smc-check=all-non-file"]
            where = self.settings.run_dir / "callgrind.%p"
            command = [*counter, "--instr-atstart=no", f"--callgrind-out-file={where}", *command]
        super()._start(name, command, *more, **others)

    def control(self, *options: str) -> None:
        pid = str(self.processes["envoy"].pid)
        done = subprocess.run(["callgrind_control", *options, pid], capture_output=True, text=True)
        if done.returncode or "Error" in done.stdout:
            raise StackError(f"callgrind_control: {done.stdout}{done.stderr}")

    def counted(self) -> int:
        """Instructions since the last call, or since counting began."""
        self.control("--dump")
        pid = self.processes["envoy"].pid
        last = max(self.settings.run_dir.glob(f"callgrind.{pid}.*"), key=lambda dump: int(dump.suffix[1:]))
        summary = next(line for line in last.read_text().splitlines() if line.startswith("summary:"))
        last.unlink()
        return int(summary.split()[1])
