"""How many filters do all units together need? Accuracy of shared models against the filters of their first layers (Cowley et al. Fig. 3).

The students of a shared model have all layers in common and a readout each. Runs of one sweep are named alike but for the number of
filters at the end, and make one curve.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from nwb_compact.results import Results, median, shared_arrays
from nwb_compact_analysis.medians import HEIGHT_IN, WIDTH_IN, best_score, draw_around, draw_medians, medians_of
from nwb_compact_analysis.style import BASELINES, STUDENT, STUDENT_MARKER, axes_or_new, short_label, styled

TOLERANCE = 0.05
"""Share of the best score by which a smaller model may miss it and count as enough; the study told its K within 5 % of the teacher."""
ASIDE = 1.03
"""Factor by which the points of one sweep stand beside those of another, so that their intervals can be told apart."""


@dataclass(frozen=True)
class Curve:
    """One sweep: a model a point."""

    filters: Integer[np.ndarray, "model"]
    """K, of layer 1."""
    median: Float[np.ndarray, "model"]
    """Score of the students, over units."""
    low: Float[np.ndarray, "model"]
    high: Float[np.ndarray, "model"]
    """90 % bootstrap interval of the median over units."""
    teacher: float
    """Median score of the teacher, NaN where there was none."""

    @property
    def medians(self) -> Float[np.ndarray, "3 model"]:
        """With the interval, as `medians.medians_of` gives them."""
        return np.stack([self.median, self.low, self.high])

    @property
    def enough(self) -> int:
        """The first model that is within `TOLERANCE` of the best."""
        best = self.median.max()
        return int(np.argmax(self.median >= best - TOLERANCE * abs(best)))


def shared_runs(runs: Sequence[Results]) -> tuple[Results, ...]:
    """Those of shared models that have a score, fewest filters first; none where there are fewer than two, which make no curve.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> shared_runs([example_results(), example_results()])  # their students have networks of their own
    ()
    """
    found = [run for run in runs if _is_shared(run) and np.isfinite(run.scores["student_r2"]).any()]
    return tuple(sorted(found, key=_filters)) if len(found) > 1 else ()


def curves(runs: Sequence[Results]) -> Mapping[str, Curve]:
    """One a sweep, by the name that its runs have in common; under `best_score`.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from nwb_compact.results import example_results
    >>> list(curves([replace(example_results(), run_id="day-K9")]))
    ['day']
    """
    score = best_score(runs)
    sweeps: dict[str, list[Results]] = {}
    for run in runs:
        sweeps.setdefault(re.sub(rf"-K?{_filters(run)}$", "", run.run_id), []).append(run)
    return {name: _curve(of_sweep, score) for name, of_sweep in sweeps.items()}


@styled
def plot_shared_models(runs: Sequence[Results], ax: Axes | None = None) -> Axes:
    """Median score of the students against K (log axis) with its interval: a line a sweep, a ring at the fewest filters that are enough.

    Horizontal lines are the teachers' medians.

    Parameters
    ----------
    runs
        From `shared_runs`.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> plot_shared_models([example_results()]).get_xscale()
    'log'
    """
    ax = axes_or_new(ax, HEIGHT_IN, WIDTH_IN)
    drawn = curves(runs)
    looks = ((STUDENT, STUDENT_MARKER), *(BASELINES * len(drawn)))
    for place, ((name, curve), look) in enumerate(zip(drawn.items(), looks, strict=False)):
        x = curve.filters * ASIDE ** (place - (len(drawn) - 1) / 2)
        best, fewest = curve.median.max(), curve.filters[curve.enough]
        label = f"{short_label(name)}: best {best:.3f}; within {100 * TOLERANCE:.0f} % from K = {fewest} (ring)"
        draw_medians(ax, x, curve.medians, look, label)
        ax.scatter(x[curve.enough], curve.median[curve.enough], s=70, facecolor="none", edgecolor=look[0], linewidth=1.2, zorder=4)
    of_curves, teachers = [curve.medians for curve in drawn.values()], [curve.teacher for curve in drawn.values()]
    draw_around(ax, of_curves, teachers, best_score(runs), "filters of layer 1 (K, log scale)")
    filters = np.unique(np.concatenate([curve.filters for curve in drawn.values()]))
    ax.set_xticks(filters, [str(k) for k in filters])
    ax.xaxis.set_minor_locator(NullLocator())
    return ax


def _is_shared(run: Results) -> bool:
    """Whether only readouts are a unit's own."""
    shared = shared_arrays(run.students)
    return bool(shared) and all(name in shared or name.startswith("readout.") for name in run.students[0].arrays)


def _filters(run: Results) -> int:
    return int(run.filters_per_layer[0, 0])


def _curve(runs: Sequence[Results], score: str) -> Curve:
    middle, low, high = medians_of(runs, score)
    return Curve(np.array([_filters(run) for run in runs]), middle, low, high, median(runs[-1].scores[f"teacher_{score}"]))
