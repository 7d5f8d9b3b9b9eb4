"""Figures of a whole fit. Each function takes `Results` and, when the caller has them, axes; it returns the axes it drew on.

No file is read, no torch is needed, and a figure is made only when no axes are given.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from nwb_compact.results import Results, below_snr_floor, median
from nwb_compact_analysis.strips import counted_units
from nwb_compact_analysis.style import (
    GREY,
    STUDENT,
    STUDENT_MARKER,
    TEACHER,
    TEACHER_MARKER,
    axes_or_new,
    number,
    short_label,
    styled,
)

SHOWN_R2 = (-0.25, 1.5)
"""Noise-corrected r2 is not bounded (Pospisil & Bair 2021); what lies beyond this is drawn as an arrow at the edge."""
ROW_IN = 0.15
"""Height of one unit's row, inches: a 7 pt line and a little air."""


@styled
def plot_teacher_against_student(results: Results, ax: Axes | None = None) -> Axes:
    """Each unit's r2 under the teacher (across) and under its student (up), medians marked on the axes; open below the SNR floor.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> ax = plot_teacher_against_student(example_results())
    >>> ax.get_xlabel()
    'teacher r²'
    """
    ax = axes_or_new(ax, 3.6)
    teacher, student = results.scores["teacher_r2"], results.scores["student_r2"]
    both = np.isfinite(teacher) & np.isfinite(student)
    teacher, student, little = teacher[both], student[both], below_snr_floor(results)[both]
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    face, width = [to_rgba(STUDENT, 0.0 if is_open else 0.7) for is_open in little], np.where(little, 0.9, 0.0)
    ax.scatter(teacher, student, s=16, facecolor=face, edgecolor=to_rgba(STUDENT, 0.7), linewidth=width, zorder=2, clip_on=False)
    if both.any():
        ax.axvline(median(teacher), color=TEACHER, linewidth=0.8, zorder=1)
        ax.axhline(median(student), color=STUDENT, linewidth=0.8, zorder=1)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="teacher r²", ylabel="student r²", aspect="equal")
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.set_yticks(np.linspace(0, 1, 6))
    note = ", open: SNR below the floor" if little.any() else ""
    medians = f"teacher {median(teacher):.2f}, student {median(student):.2f}"
    ax.set_title(f"medians (lines): {medians}\n{counted_units(len(teacher))}{note}", loc="left")
    return ax


@styled
def plot_accuracy_against_parameters(results: Results, ax: Axes | None = None) -> Axes:
    """r2 of every student against the numbers it holds, beside the teacher with all of its own (log axis).

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> plot_accuracy_against_parameters(example_results()).get_xscale()
    'log'
    """
    ax = axes_or_new(ax, 3.6)
    scores = results.scores
    size_of_teacher = np.full(len(results.unit_name), teacher_parameters(results))
    drawn = [("students", scores["student_parameters"], scores["student_r2"], STUDENT, STUDENT_MARKER)]
    if np.isfinite(scores["teacher_r2"]).any():  # of imported students the teacher may not be known
        drawn.append(("teacher", size_of_teacher, scores["teacher_r2"], TEACHER, TEACHER_MARKER))
    middle = [(median(size), median(r2)) for _, size, r2, _, _ in drawn]
    ax.plot(*zip(*middle, strict=True), color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    for (label, size, r2, colour, marker), (x, y) in zip(drawn, middle, strict=True):
        ax.scatter(size, r2, s=12, marker=marker, color=colour, alpha=0.4, linewidth=0, zorder=2)
        text = f"{label}: median r² {y:.2f} with {number(x)} parameters"
        ax.scatter(x, y, s=60, marker=marker, color=colour, edgecolor="white", linewidth=1, zorder=3, label=text)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.12)
    ax.set(ylim=(0, 1), xlabel="parameters (log scale)", ylabel="r² on scored images")
    _legend_above(ax)
    return ax


def teacher_parameters(results: Results) -> float:
    """Parameters of the whole teacher: as the fit wrote it down, else compression times the student's; NaN if neither is known.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> teacher_parameters(example_results())
    1000.0
    """
    written = results.provenance.get("teacher_parameters", "")
    return float(written) if written.isdigit() else median(results.scores["compression"] * results.scores["student_parameters"])


@styled
def plot_filters_per_layer(results: Results, ax: Axes | None = None) -> Axes:
    """Spatial filters each student keeps, layer by layer: a thin line a unit, the median thick (consolidation, Cowley et al. Fig. 3a).

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> len(plot_filters_per_layer(example_results()).lines)
    3
    """
    ax = axes_or_new(ax, 3.0)
    kept = results.filters_per_layer
    layer = np.arange(1, kept.shape[1] + 1)
    for row in kept:
        ax.plot(layer, row, color=GREY, alpha=0.35, linewidth=0.6)
    middle = np.median(kept, axis=0)
    ax.plot(layer, middle, color=STUDENT, linewidth=2, marker=STUDENT_MARKER, markersize=4)
    ax.set_ylim(0, 1.08 * max(kept.max(), 1))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    ax.set(xticks=layer, xlabel="layer", ylabel="spatial filters kept")
    counts = ", ".join(f"{value:g}" for value in middle)
    ax.set_title(f"median (thick) {counts}\n{counted_units(len(kept))}, a thin line each", loc="left")
    return ax


def order_by_accuracy(results: Results) -> Integer[np.ndarray, "unit"]:
    """Units from the best to the worst, by noise-corrected r2 of the student where any unit has it, else by r2; NaN last.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> order_by_accuracy(example_results())
    array([0, 1])
    """
    return np.argsort(-results.scores[_best_r2("student", results)], kind="stable")


@styled
def plot_scores_by_unit(results: Results, units: Sequence[int] | None = None, ax: Axes | None = None) -> Axes:
    """Noise-corrected r2 of student (with its 90 % interval) and teacher, a row a unit in the order given.

    Where no unit has a noise-corrected score, because the source kept only repeat averages, r2 itself is drawn and the
    axis says so. A unit whose score is NaN keeps its row and shows the reason.

    Parameters
    ----------
    results
        One fit.
    units
        Rows of `results`, the first on top; all units from the best to the worst when not given.
    ax
        Where to draw; a new figure when not given.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> plot_scores_by_unit(example_results()).get_xlabel()
    'noise-corrected r²'
    """
    chosen = [int(unit) for unit in (order_by_accuracy(results) if units is None else units)]
    ax = axes_or_new(ax, 0.9 + ROW_IN * len(chosen))
    row = np.arange(len(chosen))
    for who, colour, marker in (("teacher", TEACHER, TEACHER_MARKER), ("student", STUDENT, STUDENT_MARKER)):
        name = _best_r2(who, results)
        if who == "student" and f"{name}_low" in results.scores:
            ax.hlines(row, results.scores[f"{name}_low"][chosen], results.scores[f"{name}_high"][chosen], color=colour, linewidth=1)
        _points_or_arrows(ax, results.scores[name][chosen], colour, marker, who)
    name = _best_r2("student", results)
    for y, unit in enumerate(chosen):
        if not np.isfinite(results.scores[name][unit]):
            _write_reason(ax, y, results.reason[unit])
    corrected = name.endswith("er")
    ax.set_xlim(*(SHOWN_R2 if corrected else (0, 1)))
    ax.set_ylim(len(chosen) - 0.4, -0.6)
    ax.set_yticks(row, [short_label(results.unit_name[unit], 18) for unit in chosen])
    ax.tick_params(axis="y", length=0)
    for x in (0, 1):
        ax.axvline(x, color=GREY, linewidth=0.6, zorder=0)
    ax.grid(axis="y", color="#E5E5E5", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.set_xlabel("noise-corrected r²" if corrected else "r² (not noise-corrected)")
    _legend_above(ax, columns=2)
    return ax


def _best_r2(who: str, results: Results) -> str:
    has_corrected = bool(np.isfinite(results.scores["student_r2_er"]).any())
    return f"{who}_r2_er" if has_corrected else f"{who}_r2"


def _points_or_arrows(ax: Axes, values: Float[np.ndarray, "unit"], colour: str, marker: str, label: str) -> None:
    """A point where the value fits on the axis, an arrow head at the edge where it does not."""
    low, high = SHOWN_R2
    row = np.arange(len(values))
    face = colour if label == "student" else "none"
    inside = (values >= low) & (values <= high)
    ax.scatter(values[inside], row[inside], s=14, marker=marker, facecolor=face, edgecolor=colour, linewidth=0.9, zorder=3, label=label)
    for beyond, edge, arrow in ((values < low, low, "<"), (values > high, high, ">")):
        ax.scatter(np.full(int(beyond.sum()), edge), row[beyond], s=14, marker=arrow, color=colour, zorder=3, clip_on=False)


def _write_reason(ax: Axes, y: int, reason: str) -> None:
    """The start of the reason on a white ground; the page has it in full."""
    text = reason if len(reason) <= 28 else f"{reason[:27].rstrip()}…"
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    ax.text(0.03, y, text or "not computed", va="center", color="#595959", style="italic", fontsize=7, bbox=ground, in_layout=False)


def _legend_above(ax: Axes, columns: int = 1) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, borderaxespad=0.2, handletextpad=0.3)
