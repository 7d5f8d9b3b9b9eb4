"""Medians over units as curves: which score, with which interval, from where to where, beside the teachers'."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes

from nwb_compact.results import Results, median
from nwb_compact_analysis.style import COLUMN_IN, TEACHER

HEIGHT_IN, WIDTH_IN = 3.0, 1.3 * COLUMN_IN
RESAMPLINGS = 2000
"""Of the units, behind each interval."""
LEAST_SPAN = 0.1
"""Of the axis of r2: differences of thousandths must not look like steps."""
LABELS = {"r2_er": "noise-corrected r²,\nmedian over units", "r2": "r² on scored images,\nmedian over units"}
"""Scores that can be drawn, the preferred one first."""


def best_score(runs: Sequence[Results]) -> str:
    """Noise-corrected r2 where every run has it, else r2: the two never share an axis.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> best_score([example_results()])
    'r2_er'
    """
    return "r2_er" if all(np.isfinite(run.scores["student_r2_er"]).any() for run in runs) else "r2"


def medians_of(runs: Sequence[Results], score: str) -> Float[np.ndarray, "3 run"]:
    """Median of a score of the students, and the ends of its interval.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> medians_of([example_results()], "r2").shape
    (3, 1)
    """
    of_students = [run.scores[f"student_{score}"] for run in runs]
    return np.transpose([[median(values), *interval(values[np.isfinite(values)])] for values in of_students])


def draw_medians(
    ax: Axes, x: Num[np.ndarray, "run"], medians: Float[np.ndarray, "3 run"], look: tuple[str, str], label: str
) -> None:
    """A line through the medians, each with its interval; `look` is colour and marker."""
    middle, low, high = medians
    ax.plot(x, middle, color=look[0], linewidth=1.2, marker=look[1], markersize=4, zorder=3, label=label)
    ax.vlines(x, low, high, color=look[0], linewidth=1, alpha=0.5, zorder=2)


def draw_around(ax: Axes, drawn: Sequence[Float[np.ndarray, "3 _"]], teachers: Sequence[float], score: str, xlabel: str) -> None:
    """What stands around the curves: the teachers' medians as lines (NaN: there was none), axes and legend."""
    for teacher in sorted({round(teacher, 3) for teacher in teachers if np.isfinite(teacher)}):
        ax.axhline(teacher, color=TEACHER, linewidth=1.2, zorder=1, label=f"teacher: {teacher:.3f}")
    ax.set_xscale("log")
    ax.set(ylim=limits(np.concatenate([*(medians.ravel() for medians in drawn), teachers])), xlabel=xlabel, ylabel=LABELS[score])
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2, handletextpad=0.5)


def interval(values: Float[np.ndarray, "unit"]) -> Float[np.ndarray, "2"]:
    """90 % bootstrap interval of the median over units, drawn with the same seed for every model, so that intervals differ by models alone.

    Examples
    --------
    >>> interval(np.array([0.2, 0.2, 0.2]))
    array([0.2, 0.2])
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(RESAMPLINGS, len(values)))
    return np.quantile(np.median(values[drawn], axis=1), [0.05, 0.95])


def limits(values: Float[np.ndarray, "_"]) -> tuple[float, float]:
    """All that is drawn with some air, and no narrower than `LEAST_SPAN`.

    Examples
    --------
    >>> [round(end, 3) for end in limits(np.array([0.4, np.nan, 0.42]))]
    [0.355, 0.465]
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    half = 0.55 * max(high - low, LEAST_SPAN)
    middle = (low + high) / 2
    return middle - half, middle + half
