"""Medians over units, as the axis of a figure shows them: which score, with which interval, from where to where."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from nwb_compact.results import Results

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
