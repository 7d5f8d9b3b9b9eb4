"""Strips: a point a unit in every column, the median as a bar; what several figures of all units have in common."""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes

from nwb_compact.results import median
from nwb_compact_analysis.style import GREY, STUDENT, STUDENT_MARKER

INK = "black"
"""Of medians, which must be seen before a cloud of points."""
SPREAD = 0.56
"""Width over which the points of a column are spread, in distances between columns."""
GOLDEN = (np.sqrt(5) - 1) / 2
"""Steps of the golden ratio spread points evenly and without chance."""


def draw_strip(
    ax: Axes, values: Float[np.ndarray, "unit column"], chosen: Bool[np.ndarray, "unit column"] | None = None, *, is_open: bool = False
) -> None:
    """A point a unit and column, the columns at 0, 1, ...; a bar at the median of each column that has one.

    Parameters
    ----------
    ax
        Where to draw.
    values
        NaN is left out.
    chosen
        Which points are coloured; the others are grey. All when not given.
    is_open
        Rings instead of dots, and no median.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> ax = plt.figure().subplots()
    >>> draw_strip(ax, np.array([[0.2, np.nan], [0.4, 0.1]]))
    >>> [len(points.get_offsets()) for points in ax.collections[::2]]
    [2, 1]
    """
    chosen = np.ones(values.shape, bool) if chosen is None else chosen
    for x in range(values.shape[1]):
        column, known = values[:, x], np.isfinite(values[:, x])
        across = places(x, len(column))[known]
        colours = [STUDENT if is_chosen else GREY for is_chosen in chosen[known, x]]
        look = {"facecolor": "none", "edgecolor": GREY, "linewidth": 0.5} if is_open else {"facecolor": colours, "linewidth": 0.0}
        ax.scatter(across, column[known], s=9, marker=STUDENT_MARKER, alpha=0.55, zorder=5, clip_on=False, **look)  # type: ignore[arg-type]
        if known.any() and not is_open:
            ax.hlines(median(column[known]), x - 0.36, x + 0.36, color=INK, linewidth=1.6, zorder=4)


def places(x: int, n_units: int) -> Float[np.ndarray, "unit"]:
    """Where the units' points stand about `x`: a unit has the same place in every column, so that it can be followed.

    Examples
    --------
    >>> places(2, 3).round(2).tolist()
    [2.07, 1.85, 2.2]
    """
    return x + SPREAD * (np.arange(1, n_units + 1) * GOLDEN % 1 - 0.5)


def label_columns(ax: Axes, labels: list[str]) -> None:
    """Names below the columns, and room for them."""
    ax.set_xticks(range(len(labels)), labels)
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.tick_params(axis="x", length=0)


def say_nothing_known(ax: Axes, text: str) -> None:
    """What stands in a panel that has no number to draw."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#595959", style="italic", bbox=ground, in_layout=False)


def counted_units(n: int, total: int | None = None) -> str:
    """How many units are drawn, and of how many where some are missing.

    Examples
    --------
    >>> counted_units(1), counted_units(33), counted_units(30, 33)
    ('1 unit', '33 units', '30 of 33 units')
    """
    some = "" if total is None or total == n else f" of {total}"
    return f"{n}{some} unit{'s' if (total or n) != 1 else ''}"
