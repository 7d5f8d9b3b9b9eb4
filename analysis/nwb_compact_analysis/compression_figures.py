"""What does pruning cost? Accuracy of students that were pruned to several tolerances against their size: the compression curve.

Runs of one fit with `--tolerance` are named alike but for the tolerance at the end, and make one curve.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from nwb_compact.results import Results, median
from nwb_compact_analysis.medians import HEIGHT_IN, WIDTH_IN, best_score, draw_around, draw_medians, medians_of
from nwb_compact_analysis.style import BASELINES, STUDENT, STUDENT_MARKER, axes_or_new, number, short_label, styled

ASIDE_PT = (5, -9)
"""From a point to its tolerance, so that the interval does not run through it."""


def tolerance_of(run: Results) -> float | None:
    """Share of r2 with the teacher that pruning was allowed to cost; None where the run has no tolerance.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> from dataclasses import replace
    >>> run = example_results()
    >>> tolerance_of(run), tolerance_of(replace(run, provenance={"tolerance": "0.05"}))
    (None, 0.05)
    """
    return float(run.provenance["tolerance"]) if "tolerance" in run.provenance else None


def compression_curves(runs: Sequence[Results]) -> Mapping[str, tuple[Results, ...]]:
    """Runs that differ in the tolerance alone, strictest first, by the name they have in common; those of one tolerance make no curve.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> compression_curves([example_results()])
    {}
    """
    found: dict[str, list[tuple[float, Results]]] = {}
    for run in runs:
        tolerance = tolerance_of(run)
        if tolerance is not None and np.isfinite(run.scores["student_r2"]).any():
            found.setdefault(re.sub(r"-T[0-9-]+$", "", run.run_id), []).append((tolerance, run))
    ordered = {name: sorted(group, key=lambda pair: pair[0]) for name, group in found.items() if len(group) > 1}
    return {name: tuple(run for _, run in group) for name, group in ordered.items()}


@styled
def plot_compression(curves: Mapping[str, Sequence[Results]], ax: Axes | None = None) -> Axes:
    """Median score of the students, with its interval, against their median number of parameters (log axis), a point a tolerance.

    Horizontal lines are the teachers' medians.

    Parameters
    ----------
    curves
        From `compression_curves`.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> plot_compression({"day": [example_results()]}).get_xscale()
    'log'
    """
    ax = axes_or_new(ax, HEIGHT_IN, WIDTH_IN)
    score = best_score([run for runs in curves.values() for run in runs])
    drawn = {name: medians_of(runs, score) for name, runs in curves.items()}
    for (name, runs), look in zip(curves.items(), ((STUDENT, STUDENT_MARKER), *(BASELINES * len(curves))), strict=False):
        size = np.array([median(run.scores["student_parameters"]) for run in runs])
        draw_medians(ax, size, drawn[name], look, short_label(name))
        for x, y, run in zip(size, drawn[name][0], runs, strict=True):
            ax.annotate(f"{100 * (tolerance_of(run) or 0):g} %", (x, y), ASIDE_PT, textcoords="offset points", color=look[0])
    teachers = [median(runs[0].scores[f"teacher_{score}"]) for runs in curves.values()]
    draw_around(ax, list(drawn.values()), teachers, score, "parameters of a student (median over units, log scale)")
    for axis_part in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
        axis_part(FuncFormatter(lambda value, _: number(value)))
    if len(ax.get_xticks(minor=True)) > 8:
        ax.xaxis.set_minor_formatter(NullFormatter())
    return ax
