"""Teacher and students beside the baselines of a run: what a deep teacher, and learning from it, are worth.

One definition of accuracy a panel: r2 and noise-corrected r2 cannot be compared, so they never share an axis.
"""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nwb_compact.results import MODELS, Results, baselines_of, below_snr_floor, median
from nwb_compact_analysis.figures import SHOWN_R2
from nwb_compact_analysis.page import decimals
from nwb_compact_analysis.strips import counted_units, places
from nwb_compact_analysis.style import BASELINES, COLUMN_IN, GREY, STUDENT, STUDENT_MARKER, TEACHER, TEACHER_MARKER, axes_or_new, styled

HEIGHT_IN = 3.0
LABELS = {"r2": "r² on scored images", "r2_er": "noise-corrected r²"}
"""The definitions that are drawn, each on its own axes."""


@styled
def plot_models(results: Results, score: str = "r2", ax: Axes | None = None) -> Axes:
    """Every model of the run under one score: a point a unit, the median as a bar with its number below.

    A unit below the SNR floor is an open mark; a value beyond the axis of noise-corrected r2 is an arrow head at its edge.

    Parameters
    ----------
    results
        One fit, with baselines or without.
    score
        A key of `LABELS`.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> [label.get_text().split()[0] for label in plot_models(example_results()).get_xticklabels()]
    ['teacher', 'student']
    """
    ax = axes_or_new(ax, HEIGHT_IN)
    models = (*MODELS, *baselines_of(results.scores))
    values = np.stack([results.scores[f"{model}_{score}"] for model in models], axis=1)
    common = np.isfinite(values[:, np.isfinite(values).any(axis=0)]).all(axis=1)  # of these, or who fails for a unit would look better
    medians = [median(values[common, x]) for x in range(len(models))]
    looks = ((TEACHER, TEACHER_MARKER), (STUDENT, STUDENT_MARKER), *(BASELINES * len(models)))
    limits = SHOWN_R2 if score == "r2_er" else (0.0, 1.0)
    for x, (colour, marker) in enumerate(looks[: len(models)]):
        _points(ax, x, values[:, x], below_snr_floor(results), colour, marker, limits)
        ax.hlines(medians[x], x - 0.34, x + 0.34, color=colour, linewidth=2.2, zorder=4)
    for level in (0.0, 1.0) if score == "r2_er" else ():
        ax.axhline(level, color=GREY, linewidth=0.6, zorder=0)
    ax.set(xlim=(-0.6, len(models) - 0.4), ylim=limits, ylabel=LABELS[score])
    ax.set_xticks(range(len(models)), [f"{model}\n{decimals(middle)}" for model, middle in zip(models, medians, strict=True)])
    ax.tick_params(axis="x", length=0)
    note = "\nopen: SNR below the floor" if below_snr_floor(results).any() else ""
    ax.set_title(f"{counted_units(int(common.sum()))}; bars and numbers are medians{note}", loc="left")
    return ax


@styled
def models_figure(results: Results, dots_per_inch: int) -> Figure:
    """`plot_models` under r2 and, where any unit has it, under noise-corrected r2, side by side.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> [ax.get_ylabel() for ax in models_figure(example_results(), 150).axes]
    ['r² on scored images', 'noise-corrected r²']
    """
    shown = ["r2", "r2_er"] if np.isfinite(results.scores["teacher_r2_er"]).any() else ["r2"]
    figure = Figure(figsize=(COLUMN_IN * len(shown), HEIGHT_IN), dpi=dots_per_inch, layout="constrained")
    for score, ax in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
        plot_models(results, score, ax)
    return figure


def _points(
    ax: Axes, x: int, values: Float[np.ndarray, "unit"], is_open: Bool[np.ndarray, "unit"], colour: str, marker: str,
    limits: tuple[float, float],
) -> None:
    across = places(x, len(values))
    low, high = limits
    inside = (values >= low) & (values <= high)
    for drawn, face, line in ((inside & ~is_open, colour, 0.0), (inside & is_open, "none", 0.8)):
        ax.scatter(
            across[drawn], values[drawn], s=9, marker=marker, facecolor=face, edgecolor=colour, linewidth=line, alpha=0.5, zorder=2,
            clip_on=False,
        )
    for beyond, edge, arrow in ((values < low, low, "v"), (values > high, high, "^")):
        ax.scatter(across[beyond], np.full(int(beyond.sum()), edge), s=14, marker=arrow, color=colour, zorder=3, clip_on=False)
