"""Drawings of a report as SVG fragments that live inside its page and follow its colours.

matplotlib draws with placeholder colours; they become the page's CSS variables, so one drawing serves light
and dark. Identifiers carry a prefix, for a page holds several drawings. Equal figures give equal bytes.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Figures = Mapping[str, Any]

COLOURS = {"student": "#010301", "cross_entropy": "#010302", "undistilled": "#010303"}
"""Placeholders that become `var(--student)` and so on."""
MARKERS = {"student": "o", "cross_entropy": "s", "undistilled": "^"}
_INK, _RULE = "#010304", "#010305"
_VARIABLES = {
    **{colour: f"var(--{name.replace('_', '-')})" for name, colour in COLOURS.items()},
    _INK: "var(--muted)",
    _RULE: "var(--rule)",
}
_FONT = 8.5
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "limbeck",
    "font.size": _FONT,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.size": 0,
    "figure.constrained_layout.use": True,
}
_SIZE = (4.3, 2.7)
_FLOOR = 1e-4
"""Nats: smaller divergences are drawn here on a logarithmic axis."""


def loss_curves(curves: Mapping[str, Sequence[Figures]], *, prefix: str, title: str) -> str:
    """Draw training loss against steps: thin each point, bold the mean of its neighbours.

    Args:
        curves: Arm name to points with `step` and `loss`.
        prefix: Starts every identifier of the drawing.
        title: Read out instead of the drawing.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("optimiser step", "loss, nats per token")
        for arm, points in curves.items():
            steps, losses = [p["step"] for p in points], [p["loss"] for p in points]
            colour = COLOURS[arm]
            axes.plot(steps, losses, color=colour, linewidth=0.7, alpha=0.35)
            axes.plot(steps, smooth(losses), color=colour, linewidth=1.8)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return _svg(figure, prefix, title)


def smooth(values: Sequence[float]) -> list[float]:
    """Return each value's mean with its neighbours, over at most a fifteenth of the curve."""
    reach = len(values) // 30
    means: list[float] = []
    for i in range(len(values)):
        near = min(reach, i, len(values) - 1 - i)
        window = values[i - near : i + near + 1]
        means.append(sum(window) / len(window))
    return means


def divergence_by_bucket(
    arms: Mapping[str, Sequence[Figures]], *, label: str, prefix: str, title: str
) -> str:
    """Draw the mean divergence of each arm in each bucket with its interval, on a logarithmic axis.

    Points, not bars: a bar's length means nothing where the axis has no zero.

    Args:
        arms: Arm name to its buckets, the same ones for each arm.
        label: Of the horizontal axis.
        prefix: Starts every identifier of the drawing.
        title: Read out instead of the drawing.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(label, "KL(teacher ‖ arm), nats")
        names: list[str] = []
        shown: list[float] = []
        for turn, (arm, buckets) in enumerate(arms.items()):
            names = [b["bucket"] for b in buckets]
            shift = 0.13 * (turn - (len(arms) - 1) / 2)
            places = [i + shift for i in range(len(buckets))]
            shown += _points(axes, arm, places, buckets)
        axes.set_yscale("log")
        axes.set_ylim(min(shown) / 1.4, max(shown) * 1.4)
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_formatter(FuncFormatter(_minor(min(shown), max(shown))))
        axes.tick_params(axis="y", which="minor", labelsize=_FONT)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_xticks(range(len(names)), names)
        return _svg(figure, prefix, title)


def _points(
    axes: Axes, arm: str, places: Sequence[float], buckets: Sequence[Figures]
) -> list[float]:
    """Draw one arm and return every height that the axis must show."""
    heights = [max(_FLOOR, b["kl_mean"]) for b in buckets]
    ends = [b["kl_interval"] or [b["kl_mean"]] * 2 for b in buckets]
    lows = [min(max(_FLOOR, low), h) for (low, _), h in zip(ends, heights, strict=True)]
    highs = [max(high, h) for (_, high), h in zip(ends, heights, strict=True)]
    colour = COLOURS[arm]
    axes.plot(places, heights, color=colour, linewidth=1, alpha=0.45)
    axes.vlines(places, lows, highs, color=colour, linewidth=1.4)
    axes.plot(places, heights, MARKERS[arm], color=colour, markersize=4.8)
    return [*lows, *highs]


def _axes(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    axes = figure.add_subplot()
    axes.set_xlabel(across)
    axes.set_title(up, loc="left", fontsize=_FONT, color=_INK)
    return figure, axes


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _minor(low: float, high: float) -> Any:
    """Label 2 and 5 between the powers of ten where the axis spans less than a hundredfold."""
    wanted = {"2", "5"} if high / low < 100 else set[str]()

    def label(value: float, _: object) -> str:
        return f"{value:g}" if f"{value:.0e}"[0] in wanted else ""

    return label


def _svg(figure: Figure, prefix: str, title: str) -> str:
    """Return a figure as an SVG element for the inside of an HTML page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"font-family: [^;\"]*;? ?", "", drawing)
    drawing = re.sub(r'\bid="', f'id="{prefix}-', drawing)
    drawing = re.sub(r'xlink:href="#', f'href="#{prefix}-', drawing)
    drawing = re.sub(r"url\(#", f"url(#{prefix}-", drawing)
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, variable)
    _, _, body = drawing.partition(">")
    width, height = (72 * side for side in _SIZE)
    return (
        f'<svg role="img" viewBox="0 0 {width:g} {height:g}" aria-labelledby="{prefix}-title">'
        f'<title id="{prefix}-title">{html.escape(title)}</title>{body.strip()}'
    )
