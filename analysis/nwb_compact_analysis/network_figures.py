"""What the networks of all units have in common and where they narrow: consolidation, similarity, first-layer filters, silenced filters.

The same contract as `figures`: values in, axes out, a figure only when no axes are given. Values are tables of `nwb-compact interpret`.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from nwb_compact.interpretation.tables import UNIT, Table
from nwb_compact.results import N_LAYERS, median
from nwb_compact_analysis.medians import draw_medians
from nwb_compact_analysis.strips import counted_units, draw_strip, label_columns, say_nothing_known
from nwb_compact_analysis.style import BASELINES, GREY, STUDENT, STUDENT_MARKER, axes_or_new, number, styled
from nwb_compact_analysis.unit_figures import filter_pictures

COMMON_FILTERS = 12
"""Clusters of filters that are shown, in two rows."""
A_ROW = 6
ORIENTED_R2 = 0.5
"""Least share of a filter that its Gabor explains for its orientation to count; of white noise 95 % are below 0.48."""
STEP_DEG = 15.0
"""Of the orientations that are fitted."""


# Consolidation ------------------------------------------------------------------------------------------------------------


@styled
def plot_largest_drops(consolidation: Table, test: Table | None = None, ax: Axes | None = None) -> Axes:
    """After which layer the number of each unit's filters falls most, in units; the test of one fall above, where it is given.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> ax = plot_largest_drops(Table("", {"largest_drop_after_layer": Column("", np.array([3, 3, 2]))}))
    >>> [int(bar.get_height()) for bar in ax.patches]
    [0, 1, 2, 0]
    """
    ax = axes_or_new(ax, 2.2)
    after = consolidation["largest_drop_after_layer"]
    shown = [*range(1, N_LAYERS), *([0] if (after == 0).any() else [])]
    counts = np.array([(after == layer).sum() for layer in shown], float)
    ax.bar(np.arange(len(shown)), counts, color=[STUDENT if layer else GREY for layer in shown], width=0.7)
    for x, count in enumerate(counts):
        ax.text(x, count, f"{count:.0f}", ha="center", va="bottom", fontsize=7)
    label_columns(ax, [f"{layer} to {layer + 1}" if layer else "no fall" for layer in shown])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    ax.set(ylim=(0, 1.12 * max(1.0, *counts)), xlabel="layers between which filters fall most", ylabel="units")
    ax.set_title(_drop_text(test) if test is not None else counted_units(len(after)), loc="left")
    return ax


def _drop_text(test: Table) -> str:
    layer, n = int(test["after_layer"][0]), int(test["n_units"][0])
    fall = f"layer {layer} to {layer + 1}: median fall {number(float(test['median_drop'][0]))} filters"
    return f"{fall},\n{p_text(float(test['p'][0]))}, {counted_units(n)}"


def p_text(p: float) -> str:
    """A p value as a person reads it.

    Examples
    --------
    >>> p_text(0.0001), p_text(0.5), p_text(float("nan"))
    ('p < 0.001', 'p = 0.500', 'p not known')
    """
    if not np.isfinite(p):
        return "p not known"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


# Similarity ---------------------------------------------------------------------------------------------------------------


def of_pairs(alike: Float[np.ndarray, "unit unit"]) -> Float[np.ndarray, "pair"]:
    """Every pair of different units once, those without a number left out.

    Examples
    --------
    >>> of_pairs(np.array([[1.0, 0.3], [0.3, 1.0]])).tolist(), len(of_pairs(np.ones((1, 1))))
    ([0.3], 0)
    """
    pairs = alike[np.triu_indices(len(alike), 1)].astype(float)
    return pairs[np.isfinite(pairs)]


@styled
def plot_similarity(similarity: Table, output: Table | None = None, ax: Axes | None = None) -> Axes:
    """CKA between the same layer of different units' students, median and 5 to 95 % of pairs; beside it r2 between their answers.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> two = np.array([[[1.0, 0.9], [0.9, 1.0]], [[1.0, 0.1], [0.1, 1.0]]])
    >>> ax = plot_similarity(Table("", {"layer": Column("", np.array([1, 2])), "cka": Column("", two)}))
    >>> ax.lines[0].get_ydata().tolist()
    [0.9, 0.1]
    """
    ax = axes_or_new(ax, 2.2)
    layer, pairs = similarity["layer"].tolist(), [of_pairs(of_layer) for of_layer in similarity["cka"]]
    known = [x for x, values in enumerate(pairs) if len(values)]
    if known:
        draw_medians(ax, np.array(known), _ranges([pairs[x] for x in known]), (STUDENT, STUDENT_MARKER), "CKA")
    labels = [str(one) for one in layer]
    answers = of_pairs(output["r2"]) if output is not None else np.empty(0)
    if len(answers):
        draw_medians(ax, np.array([len(layer)]), _ranges([answers]), BASELINES[0], "r²")
        labels.append("answers\n(r²)")
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    label_columns(ax, labels)
    ax.set(ylim=(-0.1, 1.03), xlabel="layer", ylabel="similarity (CKA)")
    if not known:
        say_nothing_known(ax, "needs two units that answer images")
        return ax
    medians = ", ".join(f"{median(pairs[x]):.2f}" for x in known)
    n_pairs = max(len(values) for values in pairs)
    ax.set_title(f"CKA, medians {medians}\nof {n_pairs:,} pair{'s' if n_pairs > 1 else ''} of units; lines: 5 to 95 %", loc="left")
    return ax


def _ranges(values: list[Float[np.ndarray, "_"]]) -> Float[np.ndarray, "3 column"]:
    """Median, 5 % and 95 % of each."""
    return np.transpose([np.quantile(column, [0.5, 0.05, 0.95]) for column in values])


# First-layer filters ------------------------------------------------------------------------------------------------------


@styled
def plot_common_filters(clusters: Table, ax: Axes | None = None) -> Axes:
    """The kernels that most units have in layer 1 as colour pictures, with the share of units that have one like it.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> kernels = np.random.default_rng(0).normal(size=(2, 3, 5, 5))
    >>> table = Table("", {"kernel": Column("", kernels), "unit_share": Column("", np.array([0.5, 1.0]))})
    >>> [text.get_text() for text in plot_common_filters(table).texts]
    ['100 %', '50 %']
    """
    ax = axes_or_new(ax, 1.7)
    order = np.argsort(-clusters["unit_share"], kind="stable")[:COMMON_FILTERS]
    for place, cluster in enumerate(order.tolist()):
        row, column = divmod(place, A_ROW)
        left, top = 1.15 * column, 1.55 * row
        picture = filter_pictures(clusters["kernel"][cluster : cluster + 1].astype(np.float32))[0]
        ax.imshow(picture, extent=(left, left + 1, top + 1, top), interpolation="nearest")
        share = f"{100 * float(clusters['unit_share'][cluster]):.0f} %"
        ax.text(left + 0.5, top + 1.06, share, ha="center", va="top", fontsize=7)
    ax.set(xlim=(-0.02, 1.15 * A_ROW - 0.1), ylim=(1.55 * 2 - 0.1, -0.04), aspect="equal")
    ax.set_axis_off()
    ax.set_title(f"{len(order)} most common of {len(clusters):,} kinds of filter:\nshare of units that have it", loc="left")
    return ax


@styled
def plot_orientations(filters: Table, ax: Axes | None = None) -> Axes:
    """How the orientations of the first-layer filters of all units are spread, of those that a Gabor explains well.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> angle, r2 = np.array([0.0, 90.0, 90.0, np.nan]), np.array([0.9, 0.9, 0.1, 0.9])
    >>> ax = plot_orientations(Table("", {"orientation_deg": Column("", angle), "gabor_r2": Column("", r2)}))
    >>> ax.get_title(loc="left").splitlines()[0]
    '2 of 4 filters have an orientation,'
    """
    ax = axes_or_new(ax, 1.7)
    explained = filters["gabor_r2"] >= ORIENTED_R2
    angle = filters["orientation_deg"][explained]
    n_blobs, angle = int(np.isnan(angle).sum()), angle[np.isfinite(angle)]
    steps = np.arange(0.0, 180.0, STEP_DEG)
    counts = np.histogram(angle % 180, bins=np.append(steps, 180.0) - STEP_DEG / 2)[0]
    ax.set(xticks=[0, 45, 90, 135], xlim=(-STEP_DEG, 180), xlabel="orientation, ° (0: horizontal, 90: vertical)", ylabel="of these")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    ax.set_title(f"{len(angle):,} of {len(filters):,} filters have an orientation,\n{n_blobs:,} are blobs without one", loc="left")
    if len(angle):
        ax.bar(steps, counts / len(angle), width=0.8 * STEP_DEG, color=STUDENT)
        ax.axhline(1 / len(steps), color=GREY, linewidth=0.8, linestyle="--")
    else:
        say_nothing_known(ax, "no filter has one")
    return ax


# Silenced filters ---------------------------------------------------------------------------------------------------------


def extreme_of_layer(ablation: Table, column: str, which: Literal["largest", "smallest"]) -> Float[np.ndarray, "unit layer"]:
    """The largest or smallest value among the filters of each layer of each unit; NaN where none is known.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> columns = {"unit": np.array([7, 7, 7]), "layer": np.array([1, 1, 3]), "size_index": np.array([0.1, 0.4, np.nan])}
    >>> table = Table("", {name: Column("", values) for name, values in columns.items()})
    >>> extreme_of_layer(table, "size_index", "largest").tolist()
    [[0.4, nan, nan, nan, nan]]
    """
    units, row = np.unique(ablation[UNIT], return_inverse=True)
    found = np.full((len(units), N_LAYERS), np.nan)
    place = (row.reshape(-1), ablation["layer"].astype(int) - 1)
    (np.fmax if which == "largest" else np.fmin).at(found, place, ablation[column].astype(float))
    return found


@styled
def plot_size_index_by_layer(ablation: Table, ax: Axes | None = None) -> Axes:
    """The dot-size index of the most necessary filter of each layer, a point a unit that prefers dots of some size."""
    ax = axes_or_new(ax, 2.4)
    largest = extreme_of_layer(ablation, "size_index", "largest")
    draw_strip(ax, largest)
    _label_layers(ax, ablation)
    ax.set(ylim=(-0.03, 1.03), ylabel="dot-size index of the\nmost necessary filter")
    return _with_count(ax, largest, "units that select a size of dots")


@styled
def plot_r2_loss_by_layer(ablation: Table, ax: Axes | None = None) -> Axes:
    """By how much r2 with the measured responses falls without the filter that costs most, a point a unit."""
    ax = axes_or_new(ax, 2.4)
    smallest = extreme_of_layer(ablation, "r2_change", "smallest")
    draw_strip(ax, smallest)
    ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    _label_layers(ax, ablation)
    ax.set_ylabel("change of r² without the\nfilter that costs most")
    return _with_count(ax, smallest, "units with measured responses")


def _label_layers(ax: Axes, ablation: Table) -> None:
    """Layers, each with its median number of filters, without which largest and smallest values cannot be judged."""
    _, row = np.unique(ablation[UNIT], return_inverse=True)
    n = np.zeros((int(row.max(initial=-1)) + 1, N_LAYERS))
    np.add.at(n, (row.reshape(-1), ablation["layer"].astype(int) - 1), 1)
    label_columns(ax, [f"{layer}\n({median(n[:, layer - 1]):.0f})" for layer in range(1, N_LAYERS + 1)])
    ax.set_xlabel("layer (median number of filters)")


def _with_count(ax: Axes, values: Float[np.ndarray, "unit layer"], what: str) -> Axes:
    known = int(np.isfinite(values).any(axis=1).sum())
    ax.set_title(f"{what}: {known} of {len(values)}", loc="left")
    if not known:
        say_nothing_known(ax, "not known of any unit")
    return ax
