"""Programs that answer each line of JSON with one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stack.processes import StackError
from stack.programs import tool


class LineProgram:
    """Such a program. It ends when its input does."""

    def __init__(self, command: list[str]) -> None:
        self.name = " ".join(Path(part).name for part in command[:2])
        started = [tool(command[0]), *command[1:]]
        self.process = subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to one question. It has no `error`."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line: dict[str, Any] = json.loads(self.process.stdout.readline() or '{"error": "the program ended"}')
        if "error" in line:
            raise StackError(f"{self.name}: {line['error']}")
        return line

    def stop(self) -> None:
        assert self.process.stdout
        end(self.process)
        self.process.stdout.close()


def end(process: subprocess.Popen[str]) -> None:
    """Ends a program that reads lines until there are no more."""
    assert process.stdin
    process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def answering(command: list[str]) -> Iterator[LineProgram]:
    program = LineProgram(command)
    try:
        yield program
    finally:
        program.stop()
