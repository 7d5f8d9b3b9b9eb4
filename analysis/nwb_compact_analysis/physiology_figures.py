"""What the units of a run prefer and how they are tuned, all units at a time.

The same contract as `figures`: values in, axes out, a figure only when no axes are given. Values are tables of `nwb-compact interpret`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter

from nwb_compact.interpretation.tables import Table
from nwb_compact.results import median
from nwb_compact_analysis.strips import INK, counted_units, draw_strip, label_columns, say_nothing_known
from nwb_compact_analysis.style import GREY, STUDENT, TEACHER, axes_or_new, styled

UNCLEAR = "unclear"


# Preferences --------------------------------------------------------------------------------------------------------------


def labels_of(preferences: Table) -> list[str]:
    """Labels that a unit can get, in the order of the table's columns."""
    return [name.removesuffix("_index") for name in preferences.columns if name.endswith("_index")]


def criterion(preferences: Table, label: str) -> float:
    """Least index that a label needs; NaN where the table does not say.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> table = Table("", {"dot_index": Column("", np.array([0.5])), "dot_least": Column("", np.array([0.33]))})
    >>> criterion(table, "dot"), criterion(table, "edge")
    (0.33, nan)
    """
    return float(preferences[f"{label}_least"][0]) if f"{label}_least" in preferences.columns else float("nan")


@styled
def plot_preferences(preferences: Table, ax: Axes | None = None) -> Axes:
    """How many units have each label, and how many have none.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> table = Table("", {"preference": Column("", np.array(["dot", "dot"])), "dot_index": Column("", np.array([0.5, 0.4]))})
    >>> [int(bar.get_width()) for bar in plot_preferences(table).patches]
    [2, 0]
    """
    ax = axes_or_new(ax, 2.6)
    names = [*labels_of(preferences), UNCLEAR]
    counts = [int((preferences["preference"] == name).sum()) for name in names]
    ax.barh(names, np.array(counts, float), color=[*[STUDENT] * (len(names) - 1), GREY], height=0.7)
    for row, count in enumerate(counts):
        ax.text(count, row, f" {count}", va="center", fontsize=7)
    ax.invert_yaxis()
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
    ax.set(xlim=(0, 1.15 * max(1, *counts)), xlabel="units")
    ax.tick_params(axis="y", length=0)
    n_clear = sum(counts[:-1])
    ax.set_title(f"{counted_units(n_clear, sum(counts))} with a label", loc="left")
    return ax


@styled
def plot_preference_indices(preferences: Table, ax: Axes | None = None) -> Axes:
    """The index of every label of each unit, blue where the unit has this label; dashes at the least index for it.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> index = Column("", np.array([0.5, 0.4]))
    >>> ax = plot_preference_indices(Table("", {"preference": Column("", np.array(["dot", "dot"])), "dot_index": index}))
    >>> ax.get_xticklabels()[0].get_text()
    'dot'
    """
    ax = axes_or_new(ax, 2.6)
    names = labels_of(preferences)
    values = np.stack([preferences[f"{name}_index"].astype(float) for name in names], axis=1)
    draw_strip(ax, values, preferences["preference"][:, None] == np.array(names))
    for x, name in enumerate(names):
        if np.isfinite(least := criterion(preferences, name)):
            ax.hlines(least, x - 0.42, x + 0.42, color=TEACHER, linewidth=1.2, linestyle=(0, (3, 1.5)), zorder=3)
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    label_columns(ax, names)
    ax.set(ylim=(-1.03, 1.03), ylabel="index of the label")
    ax.set_title("blue: units with this label; bar: median; dashes: least index", loc="left")
    if not np.isfinite(values).any():
        say_nothing_known(ax, "no unit answers any of these")
    return ax


# Tuning -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """One number a unit, and how its distribution over units is drawn."""

    table: str
    column: str
    label: str
    """Of the axis, with the unit of measurement."""
    edges: tuple[float, ...] = ()
    """Of the bars, equally wide; what lies beyond goes to the last one. Where there are none, every value has a bar on a log axis."""
    border: float | None = None
    """A value that divides two kinds."""
    decimals: int = 2
    """Of the median in the title."""


TENTHS = tuple(np.linspace(0, 1, 11))
"""Borders of the bars of what lies between 0 and 1."""
MEASURES = (
    Measure("tuning", "osi", "orientation selectivity (OSI)", TENTHS),
    Measure("tuning", "f1_f0", "F1/F0 (complex < 1 < simple)", tuple(np.linspace(0, 2, 11)), 1.0),
    Measure("receptive_fields", "rf_diameter_px", "receptive field diameter, px", tuple(np.arange(0.0, 137, 8)), decimals=0),
    Measure("tuning", "dot_px", "preferred dot diameter, px (log scale)", decimals=0),
    Measure("tuning", "size_suppression", "suppression by the largest dot", TENTHS),
    Measure("tuning", "surround_suppression", "suppression by the largest grating", TENTHS),
)
"""Histograms of the tuning figure, row by row."""


@styled
def plot_distribution(measure: Measure, values: Float[np.ndarray, "unit"], ax: Axes | None = None) -> Axes:
    """How many units have which value; the median is a line with its number above.

    Examples
    --------
    >>> plot_distribution(MEASURES[0], np.array([0.25, 0.31, np.nan])).get_title(loc="left")
    'median 0.28, 2 of 3 units'
    """
    ax = axes_or_new(ax, 1.7)
    known = values[np.isfinite(values)]
    ax.set(xlabel=measure.label, ylabel="units")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
    if measure.edges:
        edges = np.array(measure.edges)
        ax.hist(np.clip(known, edges[0], edges[-1]), bins=edges.tolist(), color=STUDENT, edgecolor="white", linewidth=0.6)
        ax.set_xlim(edges[0], edges[-1])
    else:
        _draw_log_bars(ax, known)
    if measure.border is not None:
        ax.axvline(measure.border, color=GREY, linewidth=0.8, linestyle="--")
    if not len(known):
        ax.set_ylim(0, 1)
        say_nothing_known(ax, "not known of any unit")
        return ax
    ax.axvline(median(known), color=INK, linewidth=1.2)
    ax.set_title(f"median {median(known):.{measure.decimals}f}, {counted_units(len(known), len(values))}", loc="left")
    return ax


def _draw_log_bars(ax: Axes, known: Float[np.ndarray, "unit"]) -> None:
    """A bar at every value, so that sizes that were not shown are no bars of height 0."""
    sizes, counts = np.unique(known, return_counts=True)
    ax.bar(sizes, counts, width=0.13 * sizes, color=STUDENT)
    ax.set_xscale("log", base=2)
    ax.set_xlim(0.8 * min([4.0, *sizes]), 1.25 * max([64.0, *sizes]))
    ax.xaxis.set_major_locator(LogLocator(base=2))
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
