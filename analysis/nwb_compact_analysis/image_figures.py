"""How all units of a run answer to changed natural images, and to images that were made to drive or to silence them.

The same contract as `figures`: values in, axes out, a figure only when no axes are given. Values are tables of `nwb-compact interpret`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, ScalarFormatter

from nwb_compact.interpretation.tables import UNIT, Table
from nwb_compact.results import median
from nwb_compact_analysis.medians import draw_medians, interval
from nwb_compact_analysis.strips import INK, counted_units, draw_strip, label_columns, places, say_nothing_known
from nwb_compact_analysis.style import BASELINES, GREY, PAGE_IN, STUDENT, STUDENT_MARKER, TEACHER, TEACHER_MARKER, axes_or_new, styled

# Changed images -----------------------------------------------------------------------------------------------------------

INTACT = "none"
LEVELS = {
    "noise": "SD of the noise, grey levels",
    "blur": "SD of the blur, px",
    "contrast": "contrast left",
    "luminance": "grey levels added",
    "occlusion": "share of the image covered",
    "shift": "shift, px",
}
"""What the levels of each change are."""


def changes_of(robustness: Table) -> list[str]:
    """The changes of the images, in the order of the table."""
    return [change for change in dict.fromkeys(robustness["change"].tolist()) if change != INTACT]


OTHERS: Mapping[str, tuple[tuple[str, str], str]] = {
    "teacher_robustness": ((TEACHER, TEACHER_MARKER), "teacher"),
    "vone_robustness": (BASELINES[0], "model behind a fixed V1"),
}
"""Look and name of the models beside the students, by the names of their tables."""


@styled
def plot_robustness(robustness: Table, change: str, ax: Axes | None = None, *, others: Mapping[str, Table] = MappingProxyType({})) -> Axes:
    """Median r2 over units against the level of one change: with measured responses (blue) and the student's own intact answers (grey).

    The bars are 90 % intervals (bootstrap over units), the dashed line is the median r2 on the intact images. `others` are the tables of
    other models by their names (`OTHERS`), of which r2 with measured responses is drawn.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> r2 = Column("", np.array([[0.5, 0.7], [0.3, 0.5]]))
    >>> changed = {"change": Column("", np.array(["none", "blur"])), "level": Column("", np.array([0.0, 2.0]))}
    >>> ax = plot_robustness(Table("", {**changed, "r2": r2, "answer_r2": r2}), "blur")
    >>> ax.lines[0].get_ydata()[0], ax.lines[1].get_ydata().tolist()
    (0.6, [0.4])
    """
    ax = axes_or_new(ax, 1.7)
    rows = np.flatnonzero(robustness["change"] == change)
    level = robustness["level"][rows].astype(float)
    intact = median(robustness["r2"][robustness["change"] == INTACT].ravel())
    if np.isfinite(intact):
        ax.axhline(intact, color=INK, linewidth=0.8, linestyle="--", zorder=1, label="measured responses, intact images")
    drawn = [(robustness["r2"], (STUDENT, STUDENT_MARKER), "measured responses"),
             (robustness["answer_r2"], (GREY, "D"), "student's own answers to intact images"),
             *((others[name]["r2"], look, f"measured responses, {label}") for name, (look, label) in OTHERS.items() if name in others)]
    for r2, look, label in drawn:
        known = [row[np.isfinite(row)] for row in r2[rows].astype(float)]
        at = np.array([len(values) > 0 for values in known], dtype=bool)
        if at.any():
            draw_medians(ax, level[at], np.transpose([[median(row), *interval(row)] for row in known if len(row)]), look, label)
    ax.xaxis.set_major_locator(FixedLocator(level.tolist()))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.1)
    if change == "contrast":
        ax.invert_xaxis()  # the change grows to the right, as in the others
    ax.set(ylim=(0, 1.06), xlabel=LEVELS.get(change, "level"), ylabel="r²")
    ax.set_title(change, loc="left")
    if not any(np.isfinite(r2[rows]).any() for r2, _, _ in drawn):
        say_nothing_known(ax, "not known of any unit")
    return ax


# Made images --------------------------------------------------------------------------------------------------------------

KINDS = {
    "natural-strongest": "strongest\nnatural",
    "natural-weakest": "weakest\nnatural",
    "adversarial-up": "changed a\nlittle, up",
    "adversarial-down": "changed a\nlittle, down",
    "maximizing": "maximizing",
    "maximizing, grey": "maximizing,\ngrey",
    "minimizing": "minimizing",
    "minimizing, grey": "minimizing,\ngrey",
}
"""Columns of the figure of made images, from natural ones to those that began as noise."""
LINEAR_SD = 5.0
"""Beyond this the axis of made images is logarithmic, since a unit that hardly answers natural images can go very far."""
TICKS_SD = (0, *(sign * size for size in (2, 5, 10, 20, 50, 100, 1000, 10000) for sign in (-1, 1)))


def relative_answers(
    made_images: Table, natural_answers: Table, natural_images: Table | None = None
) -> tuple[list[str], Float[np.ndarray, "unit kind"], Float[np.ndarray, "unit kind"]]:
    """Answers to made images and to those they started from, in SDs from the mean answer to natural images; averages over images.

    Parameters
    ----------
    made_images, natural_answers, natural_images
        Of the run. Of natural images only the strongest and the weakest of each unit are taken; they have no start.

    Returns
    -------
    kinds
        Those of `KINDS` that there are.
    made, start
        A row a unit of `natural_answers`. NaN where there is no such image, or the unit answers all natural images alike.
    """
    kind = np.where(made_images["is_grey"].astype(bool), np.char.add(made_images["kind"].astype(str), ", grey"), made_images["kind"])
    columns = {name: (made_images, kind == name) for name in np.unique(kind).tolist()}
    if natural_images is not None and len(natural_images):
        columns |= {name: (natural_images, (natural_images["kind"] == name) & (natural_images["rank"] == natural_images["rank"].min()))
                    for name in np.unique(natural_images["kind"]).tolist()}
    kinds = [name for name in KINDS if name in columns]
    made = np.stack([_averages(*columns[name], "answer", natural_answers) for name in kinds], axis=1)
    start = np.stack([_averages(*columns[name], "start_answer", natural_answers) for name in kinds], axis=1)
    return kinds, made, start


def _averages(images: Table, rows: np.ndarray, column: str, natural: Table) -> Float[np.ndarray, "unit"]:
    if column not in images.columns:
        return np.full(len(natural), np.nan)
    place = {int(unit): row for row, unit in enumerate(natural[UNIT])}
    at = np.array([place[int(unit)] for unit in images[UNIT][rows]], dtype=int)
    n, total = np.bincount(at, minlength=len(natural)), np.bincount(at, images[column][rows], minlength=len(natural))
    mean, sd = natural["mean_answer"].astype(float), natural["sd_answer"].astype(float)
    known = (n > 0) & (sd > 0)
    return np.divide(total / np.maximum(n, 1) - mean, sd, out=np.full(len(natural), np.nan), where=known)


@styled
def plot_made_answers(
    kinds: Sequence[str], made: Float[np.ndarray, "unit kind"], start: Float[np.ndarray, "unit kind"], ax: Axes | None = None
) -> Axes:
    """Answers to made images (blue) above those to the images that they started from (rings), a thin line a unit; from `relative_answers`.

    Examples
    --------
    >>> plot_made_answers(["maximizing"], np.array([[8.0]]), np.array([[-0.5]])).get_xticklabels()[0].get_text()
    'maximizing'
    """
    ax = axes_or_new(ax, 2.6, PAGE_IN)
    for x in range(len(kinds)):
        ax.vlines(places(x, len(made)), start[:, x], made[:, x], color=GREY, linewidth=0.4, alpha=0.5, zorder=1)
    draw_strip(ax, start, is_open=True)
    draw_strip(ax, made)
    ax.axhspan(-1, 1, color="#E5E5E5", zorder=0)
    label_columns(ax, [KINDS[kind] for kind in kinds])
    ax.set_yscale("symlog", linthresh=LINEAR_SD)
    ax.yaxis.set_major_locator(FixedLocator(TICKS_SD))
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylabel("answer, SDs from the mean of\nnatural images (log beyond ±5)")
    n = counted_units(int(np.isfinite(made).any(axis=1).sum()), len(made))
    ax.set_title(f"{n}; dots: these images; rings: those they were made from; bar: median", loc="left")
    if not np.isfinite(made).any():
        ax.set_ylim(-LINEAR_SD, LINEAR_SD)
        say_nothing_known(ax, "not known of any unit")
    return ax
