"""What counts: ratios within one run, and what each of them should be."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from latency import at_same_rate

Figures = dict[str, Any]  # as in bench/results.json


@dataclass(frozen=True)
class Rounds:
    """What rounds say of the one and the other; `best` picks the one that was disturbed least."""

    figure: str
    one: str
    other: str
    best: Callable[[list[float]], float]

    def __call__(self, figures: Figures) -> float:
        """The median of what the rounds say each for itself: both took their turns within half a minute."""
        pairs = zip(*self._both(figures), strict=True)
        return statistics.median(numerator / denominator for numerator, denominator in pairs)

    def of_best(self, figures: Figures) -> float:
        numerators, denominators = self._both(figures)
        return self.best(numerators) / self.best(denominators)

    def _both(self, figures: Figures) -> tuple[list[float], list[float]]:
        return figures["rounds"][self.one][self.figure], figures["rounds"][self.other][self.figure]


@dataclass(frozen=True)
class Ratio:
    """`of` raises KeyError where a figure was not measured."""

    name: str
    of: Rounds | Callable[[Figures], float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "–" if self.at_most is None else f"≤ {self.at_most:g}"

    def verdict(self, value: float) -> str:
        if self.at_least is None and self.at_most is None:
            return ""
        low = self.at_least is not None and value < self.at_least
        high = self.at_most is not None and value > self.at_most
        return "MISSED" if low or high else "met"


def _rate(one: str, other: str) -> Rounds:
    return Rounds("rate", one, other, best=max)


def _per_cpu(one: str, other: str) -> Rounds:
    """Requests per CPU second of the one, as a multiple of the other's."""
    return Rounds("cpu_seconds_per_million", other, one, best=min)


def _p99(one: str, other: str) -> Rounds:
    return Rounds("p99", one, other, best=min)


RATIOS = [
    Ratio("304_of_reply_only", _rate("confirmed_304", "reply_only_304"), at_least=0.8),
    Ratio("304_of_bare", _rate("confirmed_304", "direct_response_304"), at_least=0.6),
    Ratio("reply_only_304_of_bare", _rate("reply_only_304", "direct_response_304")),
    Ratio("304_of_host_calls", _rate("confirmed_304", "host_calls_304")),
    Ratio("host_calls_304_of_reply_only", _rate("host_calls_304", "reply_only_304")),
    Ratio("304_of_no_limits", _rate("confirmed_304", "confirmed_304_no_limits"), at_least=0.92),
    Ratio("200_of_reply_only", _rate("cached_200_24k", "reply_only_200_24k"), at_least=0.78),
    Ratio("200_of_bare", _rate("cached_200_24k", "direct_response_200_24k"), at_least=0.58),
    Ratio("reply_only_200_of_bare", _rate("reply_only_200_24k", "direct_response_200_24k")),
    Ratio("host_calls_200_of_bare", _rate("host_calls_200_24k", "direct_response_200_24k")),
    Ratio("200_gzip_of_reply_only", _rate("cached_200_24k_gzip", "reply_only_200_24k_gzip"), at_least=0.78),
    Ratio("200_gzip_of_host_calls", _rate("cached_200_24k_gzip", "host_calls_200_24k_gzip")),
    Ratio("host_calls_200_gzip_of_reply_only", _rate("host_calls_200_24k_gzip", "reply_only_200_24k_gzip")),
    Ratio("200_of_host_calls", _rate("cached_200_24k", "host_calls_200_24k")),
    Ratio("host_calls_200_of_reply_only", _rate("host_calls_200_24k", "reply_only_200_24k")),
    Ratio("200_200k_of_bare", _rate("cached_200_200k", "direct_response_200_200k")),
    Ratio("callout_of_route", _rate("callout_200_24k", "webdis_route_24k"), at_least=0.85),
    Ratio("callout_per_cpu_of_route", _per_cpu("callout_200_24k", "webdis_route_24k")),
    Ratio("callout_of_callout_only", _rate("callout_200_24k", "callout_only_200_24k")),
    Ratio("callout_only_of_route", _rate("callout_only_200_24k", "webdis_route_24k")),
    Ratio("untouched_of_no_op", _rate("untouched_path", "no_op_304")),
    Ratio("304_per_cpu_of_service", _per_cpu("confirmed_304", "service_304"), at_least=3),
    Ratio("reply_only_304_per_cpu_of_service", _per_cpu("reply_only_304", "service_304")),
    Ratio("host_calls_304_per_cpu_of_service", _per_cpu("host_calls_304", "service_304")),
    Ratio("304_per_cpu_of_service_in_memory", _per_cpu("confirmed_304", "service_in_memory_304")),
    Ratio("200_per_cpu_of_service", _per_cpu("cached_200_24k", "service_200_24k"), at_least=2),
    Ratio("reply_only_200_per_cpu_of_service", _per_cpu("reply_only_200_24k", "service_200_24k")),
    Ratio("200_per_cpu_of_service_in_memory", _per_cpu("cached_200_24k", "service_in_memory_200_24k")),
    Ratio("p99_304_of_bare", _p99("confirmed_304", "direct_response_304"), at_most=1.5),
    Ratio(
        "p99_304_of_bare_at_same_rate",
        _p99("confirmed_304", at_same_rate("direct_response_304")),
        at_most=1.5,
    ),
    Ratio(
        "p99_reply_only_304_of_bare_at_same_rate",
        _p99(at_same_rate("reply_only_304"), at_same_rate("direct_response_304")),
    ),
    Ratio("p99_reply_only_304_of_bare", _p99("reply_only_304", "direct_response_304")),
    Ratio("p99_304_of_reply_only", _p99("confirmed_304", "reply_only_304")),
    Ratio(
        "throughput_1m_of_10",
        _rate("confirmed_304_many_credentials", "confirmed_304_10_credentials"),
        at_least=0.95,
    ),
    Ratio(
        "throughput_1m_spread_of_10",
        _rate("confirmed_304_many_credentials_spread", "confirmed_304_10_credentials"),
    ),
    Ratio("flagsmith_flags_of_reply_only", _rate("flagsmith_flags", "reply_only_flags"), at_least=0.8),
    Ratio("flagsmith_flags_of_host_calls", _rate("flagsmith_flags", "host_calls_flags"), at_least=0.95),
    Ratio("flagsmith_flags_gzip_of_reply_only", _rate("flagsmith_flags_gzip", "reply_only_flags_gzip")),
    Ratio("flagsmith_flags_gzip_of_host_calls", _rate("flagsmith_flags_gzip", "host_calls_flags_gzip")),
    Ratio(
        "flagsmith_flags_per_cpu_of_service",
        _per_cpu("flagsmith_flags", "edge_proxy_flags"),
        at_least=2.5,
    ),
    Ratio(
        "flagsmith_identity_per_cpu_of_service",
        _per_cpu("flagsmith_identity", "edge_proxy_identity"),
        at_least=2,
    ),
    Ratio(
        "flagsmith_flags_gzip_per_cpu_of_service", _per_cpu("flagsmith_flags_gzip", "edge_proxy_flags_gzip")
    ),
    Ratio(
        "flagsmith_document_gzip_per_cpu_of_service",
        _per_cpu("flagsmith_document_gzip", "edge_proxy_document_gzip"),
    ),
    Ratio("ofrep_304_of_reply_only", _rate("ofrep_304", "reply_only_ofrep_304"), at_least=0.75),
    Ratio("ofrep_304_of_host_calls", _rate("ofrep_304", "host_calls_ofrep_304")),
    Ratio("ofrep_304_per_cpu_of_flagd", _per_cpu("ofrep_304", "flagd_poll"), at_least=12),
    Ratio("ofrep_bulk_per_cpu_of_flagd", _per_cpu("ofrep_bulk", "flagd_bulk"), at_least=8),
    Ratio("bytes_per_credential", lambda figures: figures["scale"]["bytes_per_credential"], at_most=200),
]


def ratios(figures: Figures) -> dict[str, float]:
    """Those whose figures are there."""
    return _those_there(figures, {ratio.name: ratio.of for ratio in RATIOS})


def ratios_of_best(figures: Figures) -> dict[str, float]:
    """Of the best round of each: a busy machine makes rounds worse, never better."""
    of = {ratio.name: ratio.of.of_best for ratio in RATIOS if isinstance(ratio.of, Rounds)}
    return _those_there(figures, of)


def _those_there(figures: Figures, of: dict[str, Callable[[Figures], float]]) -> dict[str, float]:
    found = {}
    for name, ratio in of.items():
        with contextlib.suppress(KeyError):
            value = ratio(figures)
            found[name] = round(value, 3 if value < 10 else 1)
    return found


def table(found: dict[str, float], of_best: dict[str, float]) -> str:
    lines = [f"{'ratio':40} {'median':>7} {'of best':>8}  {'target':8}"]
    for ratio in RATIOS:
        if (value := found.get(ratio.name)) is not None:
            best = of_best.get(ratio.name, "")
            line = f"{ratio.name:40} {value:7g} {best:>8}  {ratio.target:8} {ratio.verdict(value)}"
            lines.append(line.rstrip())
    return "\n".join(lines)
