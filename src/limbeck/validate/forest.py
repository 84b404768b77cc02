"""A forest plot: one interval a row against the margin, as SVG that follows the page's colours."""

import html
from collections.abc import Sequence

Row = tuple[str, Sequence[float] | None, str]
"""Label, [point, low, high] or None, verdict."""

_WIDTH, _LEFT, _RIGHT = 720.0, 150.0, 24.0
_ROW, _TOP, _FOOT = 30.0, 26.0, 34.0
_CLASSES = {"KEEPS": "keeps", "LOSES": "loses"}


def forest(rows: Sequence[Row], *, margin: float) -> str:
    """Return the drawing.

    Args:
        rows: From top to bottom; a row without an interval says so.
        margin: Drawn as a line, as is 100%.
    """
    low, high = _span(rows, margin)
    height = _TOP + _ROW * len(rows) + _FOOT

    def across(value: float) -> float:
        inside = min(max(value, low), high)
        return _LEFT + (inside - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [
        f'<svg role="img" viewBox="0 0 {_WIDTH:g} {height:g}" aria-labelledby="forest-title">',
        '<title id="forest-title">Retention of each task with its interval, against the margin</title>',
    ]
    parts += [_tick(across(t), t, height) for t in _ticks(low, high)]
    parts.append(_line(across(1), height, "whole", ""))
    parts.append(_line(across(margin), height, "margin", f"margin {margin:.0%}"))
    for number, (label, interval, verdict) in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(f'<text x="0" y="{y + 4:.1f}" class="label">{html.escape(label)}</text>')
        if interval is None:
            parts.append(f'<text x="{_LEFT:g}" y="{y + 4:.1f}" class="none">no claim</text>')
            continue
        point, start, end = (across(v) for v in interval)
        kind = _CLASSES.get(verdict, "open")
        parts.append(
            f'<g class="{kind}"><line x1="{start:.1f}" x2="{end:.1f}" y1="{y:g}" y2="{y:g}"/>'
        )
        parts.append(f'<circle cx="{point:.1f}" cy="{y:g}" r="4.5"/></g>')
    return "".join([*parts, "</svg>"])


def _span(rows: Sequence[Row], margin: float) -> tuple[float, float]:
    ends = [v for _, interval, _ in rows if interval is not None for v in interval[1:]]
    low = max(-0.5, min([*ends, margin - 0.05, 0.9]))
    high = min(2.0, max([*ends, 1.05]))
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.05, 0.1, 0.2, 0.5) if (high - low) / s <= 9)
    first = -int(-low // step)
    return [k * step for k in range(first, int(high // step) + 1)]


def _tick(x: float, value: float, height: float) -> str:
    bottom = height - _FOOT
    return (
        f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:g}" y2="{bottom:g}"/>'
        f'<text class="axis" x="{x:.1f}" y="{bottom + 16:g}">{value:.0%}</text>'
    )


def _line(x: float, height: float, kind: str, label: str) -> str:
    return (
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6:g}" y2="{height - _FOOT:g}"/>'
        f'<text class="axis {kind}" x="{x:.1f}" y="{_TOP - 11:g}">{label}</text>'
    )
