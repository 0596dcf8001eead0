"""Customers whose SDKs ask for definitions and who keep every receipt: what they must be billed for."""

from __future__ import annotations

import functools
import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass

from models.posthog.endpoint import Team, etag_of
from stack.edge import PATH
from stack.launcher import Stack

# User agent → the SDK's name in PostHog's usage hashes.
SDKS = {
    "posthog-python/7.91.1": "posthog-python",
    "posthog-node/5.70.0": "posthog-node",
    "posthog-go/1.6.0": "posthog-go",
    "posthog-dotnet/2.13.3 (.NET 8.0; Linux; x64)": "posthog-dotnet",
    "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0": "posthog-js",
    "posthog-rs/0.30.0": "other",
}
TWO_MINUTES = 120


@dataclass(frozen=True)
class Plan:
    """A team and what it should get."""

    team: Team
    text: str | None  # its definitions


@dataclass(frozen=True)
class Receipt:
    """A billable 200 that was received to its last byte."""

    team_id: int
    sdk: str
    asked_at: float  # Unix time
    received_at: float


class Customers:
    """Threads with a keep-alive connection each, until they are told to stop."""

    def __init__(self, stack: Stack, plans: list[Plan], threads: int = 8, pause: float = 0.0) -> None:
        self.stack, self.plans, self.pause = stack, plans, pause
        self.receipts: list[Receipt] = []
        self.foreign: list[tuple[int, str]] = []  # what was not the team's own
        self.statuses: Counter[str] = Counter()
        self.unanswered: Counter[int] = Counter()  # by team; none, or not all of an answer came
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(random.Random(seed),)) for seed in range(threads)
        ]

    def __enter__(self) -> Customers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Every request is answered, or failed, when this returns."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident:
                thread.join(60)
                assert not thread.is_alive()

    @property
    def asked(self) -> int:
        return sum(self.statuses.values())

    def billed(self, until: float = float("inf")) -> Counter[tuple[int, str]]:
        """How many receipts each team has by SDK, of answers that were there by then."""
        return Counter((r.team_id, r.sdk) for r in self.receipts if r.received_at <= until)

    def _ask(self, chance: random.Random) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.settings.edge_port, timeout=30)
        while not self._stop.is_set():
            plan, agent = chance.choice(self.plans), chance.choice(list(SDKS))
            kind = chance.choices(["get", "current", "stale", "HEAD"], [5, 4, 1, 0.3])[0]
            headers = {"User-Agent": agent, "Authorization": f"Bearer {plan.team.secret}"}
            if kind == "stale" or (kind == "current" and plan.text):
                etag = etag_of(plan.text) if plan.text and kind == "current" else "0" * 16
                headers["If-None-Match"] = f'W/"{etag}"'
            method = "HEAD" if kind == "HEAD" else "GET"
            asked_at = time.time()
            try:
                connection.request(method, f"{PATH}?token={plan.team.token}", headers=headers)
                answer = connection.getresponse()
                body = answer.read()  # raises when not all of it comes
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.statuses[type(error).__name__] += 1
                self.unanswered[plan.team.id] += 1
                self._stop.wait(0.05)
                continue
            self.statuses[f"{method} {answer.status}"] += 1
            if (method, answer.status) == ("GET", 200):
                self._receive(plan, body.decode(), SDKS[agent], asked_at)
            if answer.status == 503:
                self._stop.wait(0.02)
            elif self.pause:
                time.sleep(self.pause)
        connection.close()

    def _receive(self, plan: Plan, text: str, sdk: str, asked_at: float) -> None:
        if text != plan.text:
            self.foreign.append((plan.team.id, text[:80]))
        if is_billed(text):
            self.receipts.append(Receipt(plan.team.id, sdk, asked_at, time.time()))


@functools.cache
def is_billed(text: str) -> bool:
    """PostHog's rule: definitions with a flag that is neither a survey's nor a product tour's."""
    free = ("survey-targeting-", "product-tour-targeting-")
    return any(not flag["key"].startswith(free) for flag in json.loads(text)["flags"])
