"""How figures, and text that others wrote, are put before people."""

from collections.abc import Sequence

_MINUS = "−"


def number(value: float, interval: Sequence[float] | None = None, *, sign: bool = False) -> str:
    """Write a figure to three digits, its interval to the same place: `0.412 [0.398, 0.426]`."""
    digits = _decimals(value)
    form = f"{'+' if sign else ''},.{digits}f"
    text = f"{value:{form}}"
    if interval is not None:
        text += f" [{interval[0]:{form}}, {interval[1]:{form}}]"
    return text.replace("-", _MINUS)


def percent(share: float, interval: Sequence[float] | None = None) -> str:
    """Write a share: `63.1% [61.0, 65.2]`."""
    ends = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * share:.1f}%{ends}"


def points(difference: float, interval: Sequence[float] | None = None) -> str:
    """Write a difference of shares in percentage points: `+2.1 points [+1.0, +3.2]`."""
    ends = "" if interval is None else f" [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
    return f"{100 * difference:+.1f} points{ends}".replace("-", _MINUS)


def visible(text: str) -> str:
    """Replace what HTML cannot hold by a visible sign: controls by their picture, lone surrogates by U+FFFD."""
    return "".join(map(_visible, text))


def shown(value: object) -> object:
    """Make the text of every expression visible; what is markup already stays as it is."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _visible(letter: str) -> str:
    code = ord(letter)
    if code < 0x20 and letter not in "\n\t":
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000 else letter


def _decimals(value: float) -> int:
    """Return decimals that show three digits of a figure, at most four decimals."""
    magnitude = abs(value)
    for limit, decimals in ((100, 0), (10, 1), (1, 2), (0.1, 3)):
        if magnitude >= limit:
            return decimals
    return 4
