"""What the teacher's members are worth together: accuracy against their number.

One definition of accuracy a panel: the score on scored images is a median over the fitted units, the score on validation images, as the
fit wrote it down, a mean over the sessions it trained on. They never share an axis.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nwb_compact.reliability import correlation_where_known
from nwb_compact.results import Results, median, teacher_validation_r2
from nwb_compact_analysis.medians import limits
from nwb_compact_analysis.style import COLUMN_IN, GREY, TEACHER, TEACHER_MARKER, axes_or_new, styled

HEIGHT_IN = 3.0
SCORED, VALIDATION = "r² on scored images,\nmedian over units", "r² on validation images,\nmean over sessions"
"""Labels of the two definitions."""


def has_members(results: Results) -> bool:
    """Whether the run holds two members or more, and a unit with a score to show them by.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> has_members(example_results())
    True
    """
    members = results.teacher_member_prediction
    return members is not None and members.shape[2] > 1 and bool(np.isfinite(results.scores["teacher_r2"]).any())


@styled
def plot_members(results: Results, measured: Float[np.ndarray, "image unit"], ax: Axes | None = None) -> Axes:
    """Median over units of the r2 of the average of the first 1, 2, ... members (squares), and of each member by itself (faint dots).

    Parameters
    ----------
    results
        One fit of which `has_members` is true.
    measured
        Repeat averages of every image, NaN where not measured; (image unit) as in `results`.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> results = example_results()
    >>> plot_members(results, results.teacher_prediction.astype(float)).get_title(loc="left").splitlines()[0]
    'first member 1.000; all 3: 1.000'
    """
    averages, alone = members_r2(results, measured)
    return _plot(ax, [median(row) for row in averages], [median(row) for row in alone], SCORED)


@styled
def plot_validation(results: Results, ax: Axes | None = None) -> Axes:
    """The same of the scores on validation images that the fit wrote down; that of single members only where it wrote them.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> plot_validation(example_results()).get_title(loc="left").splitlines()[0]
    'first member 0.410; all 3: 0.440'
    """
    return _plot(ax, teacher_validation_r2(results), teacher_validation_r2(results, "teacher_member"), VALIDATION)


@styled
def members_figure(results: Results, measured: Float[np.ndarray, "image unit"], dots_per_inch: int) -> Figure:
    """`plot_members` and, where the fit wrote it down, `plot_validation`, side by side.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> results = example_results()
    >>> [ax.get_ylabel().split(",")[0] for ax in members_figure(results, results.teacher_prediction.astype(float), 150).axes]
    ['r² on scored images', 'r² on validation images']
    """
    validated = len(teacher_validation_r2(results)) > 1
    figure = Figure(figsize=(COLUMN_IN * (1 + validated), HEIGHT_IN), dpi=dots_per_inch, layout="constrained")
    axes = figure.subplots(1, 1 + validated, squeeze=False)[0]
    plot_members(results, measured, axes[0])
    if validated:
        plot_validation(results, axes[1])
    return figure


def members_r2(
    results: Results, measured: Float[np.ndarray, "image unit"]
) -> tuple[Float[np.ndarray, "member unit"], Float[np.ndarray, "member unit"]]:
    """r2 on scored images of the average of the first 1, 2, ... members, and of each member by itself.

    A unit without a teacher's r2 in the table of scores is NaN here too, so the last average is that table's `teacher_r2`.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> results = example_results()
    >>> averages, alone = members_r2(results, results.teacher_prediction.astype(float))  # as if the units did what the teacher expects
    >>> averages.shape, averages[-1].round(6).tolist()
    ((3, 2), [1.0, 1.0])
    """
    members = results.teacher_member_prediction
    assert members is not None  # callers ask has_members first
    scored, told = np.asarray(results.side) == "scored", np.isfinite(results.scores["teacher_r2"])
    members, measured = members[scored][:, told].astype(float), measured[scored][:, told]
    n_members = members.shape[2]
    averaged, alone = (np.full((n_members, len(told)), np.nan) for _ in range(2))
    for n in range(n_members):
        averaged[n, told] = _r2(members[:, :, : n + 1].mean(axis=2), measured)
        alone[n, told] = _r2(members[:, :, n], measured)
    return averaged, alone


def _r2(prediction: Float[np.ndarray, "image unit"], measured: Float[np.ndarray, "image unit"]) -> Float[np.ndarray, "unit"]:
    """Over the images each unit has; 0 for a prediction that never varies, as in the table of scores."""
    return np.nan_to_num(correlation_where_known(prediction, measured) ** 2)


def _plot(ax: Axes | None, averages: Sequence[float], alone: Sequence[float], label: str) -> Axes:
    ax = axes_or_new(ax, HEIGHT_IN)
    n = np.arange(1, len(averages) + 1)
    size = 4.0 if len(n) <= 10 else 2.5
    ax.plot(n, averages, color=TEACHER, linewidth=1.2, marker=TEACHER_MARKER, markersize=size, zorder=3, clip_on=False)
    ax.scatter(np.arange(1, len(alone) + 1), alone, s=16, color=GREY, alpha=0.6, linewidth=0, zorder=2, clip_on=False)
    ax.set(xlim=(0.5, len(n) + 0.5), ylim=limits(np.array([*averages, *alone])), xlabel="members", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    note = "\ndots: each member by itself" if alone else ""
    ax.set_title(f"first member {averages[0]:.3f}; all {len(n)}: {averages[-1]:.3f}{note}", loc="left")
    return ax
