"""How every figure looks: one set of colours, sizes and names, so that two figures can be compared without a legend lost in between.

Colours are Okabe & Ito's (2008), which stay apart for colour-blind readers; markers differ as well. Sizes are those of the
printed page: a column is 3.4 in wide, a page 7 in, and no text is smaller than 7 pt.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

STUDENT, TEACHER, GREY = "#0072B2", "#D55E00", "#7F7F7F"
STUDENT_MARKER, TEACHER_MARKER = "o", "s"
BASELINES = (("#009E73", "^"), ("#CC79A7", "D"), ("#8C6D00", "v"))
"""Colour and marker of the baselines in their order; the last is Okabe & Ito's yellow darkened, since theirs is lost on white."""
COLUMN_IN, PAGE_IN = 3.4, 7.0

STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,  # a unit may be called "$a$"
    "svg.hashsalt": "nwb-compact",
}
styled = mpl.rc_context(dict(STYLE))  # type: ignore[arg-type]  # matplotlib types every key
"""Decorator: the function draws in this style and leaves the caller's settings as they were."""


def axes_or_new(ax: Axes | None, height_in: float, width_in: float = COLUMN_IN) -> Axes:
    """The given axes, or those of a new figure when none is given.

    Examples
    --------
    >>> axes_or_new(None, 2.0).figure.get_size_inches().tolist()
    [3.4, 2.0]
    """
    return plt.subplots(figsize=(width_in, height_in), layout="constrained")[1] if ax is None else ax


def spikes_text(value: float) -> str:
    """A mean number of spikes with one digit after the point, from 100 on with none; a dash where it is not known.

    Examples
    --------
    >>> spikes_text(2.25), spikes_text(-0.04), spikes_text(-1.0), spikes_text(123.4), spikes_text(float("nan"))
    ('2.2', '0.0', '−1.0', '123', '–')
    """
    if not np.isfinite(value):
        return "–"
    places = 1 if abs(value) < 100 else 0
    return f"{round(float(value), places) + 0.0:.{places}f}".replace("-", "−")  # + 0.0: never "−0.0"


def short_label(name: str, most: int = 20) -> str:
    """A name that fits: its middle goes when it is longer than `most` characters, since names differ at both ends.

    Characters that the font has no picture of become "?"; the table of the page shows every name in full.

    Examples
    --------
    >>> short_label("unit-7"), short_label("array-2-electrode-081-unit-2", 16), short_label("a\\nb")
    ('unit-7', 'array-…81-unit-2', 'a?b')
    """
    drawn = "".join(character if ord(character) in _drawable() else "?" for character in name)
    tail = (most - 1) * 3 // 5  # the end tells more: array-2-electrode-081-unit-2
    return drawn if len(drawn) <= most else f"{drawn[: most - 1 - tail]}…{drawn[-tail:]}"


def number(value: float) -> str:
    """A count as a person reads it.

    Examples
    --------
    >>> number(950.0), number(12469.0), number(2_400_000.0), number(3.2e12), number(float("nan"))
    ('950', '12.5 k', '2.4 M', '3.2 T', 'not known')
    """
    if not np.isfinite(value):
        return "not known"
    for size, suffix in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= 0.9995 * size:  # what rounds to 1 k is written so
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def chunks(items: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """`items` in parts of nearly equal length, none longer than `size`, so that no figure is left with one lonely row.

    Examples
    --------
    >>> chunks(range(7), 3)
    [(0, 1, 2), (3, 4), (5, 6)]
    """
    n_parts = -(-len(items) // size)
    return [tuple(int(item) for item in part) for part in np.array_split(np.asarray(items, dtype=int), n_parts)] if n_parts else []


@cache
def _drawable() -> frozenset[int]:
    font = FT2Font(findfont(FontProperties(family=["DejaVu Sans"])))
    return frozenset(font.get_charmap())
