"""Pictures of the results, as SVG without a background: their grey reads on white and on black."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

INK = "#76808c"
FAINT = 'stroke="#76808c" stroke-opacity="0.25"'
OURS, OTHERS = "#2f81f7", "#8b949e"
SHADES = {"p50": "#2da44e", "p99": "#2f81f7", "p99.9": "#db6d28"}
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 860, 250, 90, 44, 46
ROW = 24


def rates(path: Path, of: dict[str, float], ours: Sequence[str]) -> None:
    """Horizontal bars, `ours` in another colour."""
    height = TOP + ROW * len(of) + BOTTOM
    step = nice_step(max(of.values()))
    top = step * ceil(max(of.values()) / step)
    scale = (WIDTH - LEFT - RIGHT) / top
    parts = [_text(LEFT, 22, "Requests per second, one Envoy worker, 64 connections", "start", 15)]
    for value in range(0, int(top) + 1, int(step)):
        parts += _vertical(LEFT + value * scale, height, f"{value:,}".replace(",", " "))
    for number, (name, value) in enumerate(of.items()):
        y = TOP + ROW * number
        colour = OURS if name in ours else OTHERS
        parts.append(_text(LEFT - 8, y + 16, name.replace("_", " "), "end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y + 4}" width="{value * scale:.1f}" height="{ROW - 8}" fill="{colour}"/>'
        )
        parts.append(_text(LEFT + value * scale + 6, y + 16, f"{value:,.0f}".replace(",", " "), "start"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 8, "requests per second", "middle"))
    _write(path, height, parts)


def latencies(path: Path, of: dict[str, dict[str, float]]) -> None:
    """A row for each subject, a dot for each percentile, on a logarithmic axis of milliseconds."""
    height = TOP + ROW * len(of) + BOTTOM
    values = [row[name] for row in of.values() for name in SHADES]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    scale = (WIDTH - LEFT - RIGHT) / (high - low)

    def x(milliseconds: float) -> float:
        return LEFT + (log10(milliseconds) - low) * scale

    parts = [_text(20, 22, "Latency at half of the peak rate", "start", 15)]
    for number, (name, colour) in enumerate(SHADES.items()):
        parts.append(f'<circle cx="{LEFT + 120 + 80 * number}" cy="17" r="5" fill="{colour}"/>')
        parts.append(_text(LEFT + 132 + 80 * number, 22, name, "start"))
    for power in range(low, high + 1):
        parts += _vertical(x(10**power), height, f"{10.0**power:g}")
    for number, (name, row) in enumerate(of.items()):
        y = TOP + ROW * number + 12
        parts.append(_text(LEFT - 8, y + 4, name.replace("_", " "), "end"))
        first, last = x(row["p50"]), x(row["p99.9"])
        parts.append(f'<line x1="{first:.1f}" y1="{y}" x2="{last:.1f}" y2="{y}" {FAINT} stroke-width="3"/>')
        for percentile, colour in SHADES.items():
            parts.append(f'<circle cx="{x(row[percentile]):.1f}" cy="{y}" r="5" fill="{colour}"/>')
        parts.append(_text(last + 10, y + 4, f"{row['p99.9']:.2g}", "start"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 8, "milliseconds (logarithmic)", "middle"))
    _write(path, height, parts)


def memory(path: Path, samples: Sequence[tuple[float, float]], warm: float) -> None:
    """A line of (million requests, MB); `warm` is where growth is counted from, in million requests."""
    height, left = 320, 70
    end = max(requests for requests, _ in samples)
    step_x, step_y = nice_step(end), nice_step(max(rss for _, rss in samples))
    right, top = step_x * ceil(end / step_x), step_y * ceil(max(rss for _, rss in samples) / step_y)
    wide, high = WIDTH - left - 30, height - TOP - BOTTOM

    def point(requests: float, rss: float) -> tuple[float, float]:
        return left + requests / right * wide, TOP + high - rss / top * high

    parts = [_text(left, 22, "Resident memory of Envoy with one worker under load", "start", 15)]
    for number in range(round(right / step_x) + 1):
        parts += _vertical(point(number * step_x, 0)[0], height, f"{number * step_x:g}")
    for number in range(round(top / step_y) + 1):
        _, y = point(0, number * step_y)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + wide}" y2="{y:.1f}" {FAINT}/>')
        parts.append(_text(left - 8, y + 4, f"{number * step_y:g} MB", "end"))
    x = point(warm, 0)[0]
    parts.append(
        f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{TOP + high}" stroke="{INK}"'
        ' stroke-dasharray="4 4"/>'
    )
    parts.append(_text(x + 6, TOP + high - 8, "warm", "start"))
    line = " ".join("{:.1f},{:.1f}".format(*point(*sample)) for sample in samples)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{OURS}" stroke-width="2"/>')
    parts.append(_text(left + wide / 2, height - 8, "million requests", "middle"))
    _write(path, height, parts)


def nice_step(largest: float) -> float:
    """1, 2 or 5 times a power of ten: four to ten of them reach `largest`."""
    power = 10 ** floor(log10(largest / 4)) if largest > 0 else 1
    return next(factor * power for factor in (5, 2, 1) if factor * power <= largest / 4)


def _vertical(x: float, height: int, label: str) -> list[str]:
    bottom = height - BOTTOM
    line = f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" {FAINT}/>'
    return [line, _text(x, bottom + 18, label, "middle")]


def _text(x: float, y: float, text: Any, anchor: str, size: int = 12) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {where} fill="{INK}">{escape(str(text))}</text>'


def _write(path: Path, height: int, parts: Sequence[str]) -> None:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f'{head} font-family="sans-serif">', *parts, "</svg>"]) + "\n")
