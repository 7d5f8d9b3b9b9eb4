"""Figures of what is inside one student: its filters layer by layer, what each is needed for, and the smallest circuit.

The same contract as `unit_figures`: values in, axes out. A filter is a map that a layer gives, as in the tables of `nwb-compact interpret`.
The study counts 5 x 5 kernels, of which layers 2 to 5 have one for each map below: the kernel that reads our filter k of layer 2, 3 or 4
is its filter k of layer 3, 4 or 5.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from nwb_compact.interpretation.tables import Table
from nwb_compact.results import N_LAYERS, Results, StudentWeights, readout_weight
from nwb_compact_analysis.strips import INK, say_nothing_known
from nwb_compact_analysis.style import GREY, PAGE_IN, STUDENT, TEACHER, axes_or_new, styled
from nwb_compact_analysis.unit_figures import LARGEST_FILTERS, filter_pictures

LAYERS = tuple(range(1, N_LAYERS + 1))
EXCITES, INHIBITS = STUDENT, TEACHER
"""Lines that excite are solid, those that inhibit dashed, so that they can be told without colour."""
FILTERS_IN, ABLATION_IN = 1.45, 2.15
MOST_NECESSARY = 3
"""Filters whose silenced curve is drawn."""
SHOWN = 5
"""Filters of a layer in the diagram, those with the largest effect; more would be too small to see."""
LINES = 12
"""Connections between two layers in the diagram, the strongest."""
_PICTURE_IN, _CURVE_IN, _ROW_IN, _TOP_IN, _KEY_IN = 0.36, 0.42, 0.5, 0.3, 0.2
_KERNEL_PX, _PITCH_PX, _ROW_PX, _BARS_PX, _BAR_PX = 5, 6, 7, 149, 34


# Filters, layer by layer --------------------------------------------------------------------------------------------------


@styled
def plot_filters(results: Results, unit: int, ax: Axes | None = None) -> Axes:
    """The largest 5 x 5 kernels of each layer, a row a layer, and a bar that says how many the layer keeps after pruning.

    Kernels of layer 1 are in colour, the others grey (see `signed`). The line across a bar is the median over all units of the run; that
    the bars are long in layers 1 to 3 and short after them is the consolidation of Cowley et al. (2026, Fig. 3a).

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> [label.get_text() for label in plot_filters(example_results(), 0).get_yticklabels()]
    ['layer 1', 'layer 2', 'layer 3', 'layer 4', 'layer 5']
    """
    ax = axes_or_new(ax, FILTERS_IN, PAGE_IN)
    mosaic, centre = np.ones((len(LAYERS) * _ROW_PX, LARGEST_FILTERS * _PITCH_PX, 3)), np.arange(len(LAYERS)) * _ROW_PX + 2.0
    for row, layer in enumerate(LAYERS):
        pictures = kernel_pictures(results.students[unit], layer)
        for column, picture in enumerate(pictures[:LARGEST_FILTERS]):
            top, left = row * _ROW_PX, column * _PITCH_PX
            mosaic[top : top + _KERNEL_PX, left : left + _KERNEL_PX] = picture
        if not len(pictures):
            ax.text(0, centre[row], "the run does not hold them", va="center", color="#595959", style="italic")
    ax.imshow(mosaic, interpolation="nearest")
    _draw_counts(ax, results, unit, centre)
    ax.set_yticks(centre, [f"layer {layer}" for layer in LAYERS])
    ax.set(xticks=[], xlim=(-1, _BARS_PX + _BAR_PX + 10), ylim=(len(LAYERS) * _ROW_PX - 1.5, -5.5))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _draw_counts(ax: Axes, results: Results, unit: int, centre: Float[np.ndarray, "layer"]) -> None:
    kept, middle = results.filters_per_layer[unit], np.median(results.filters_per_layer, axis=0)
    a_kernel = _BAR_PX / max(1.0, kept.max(), middle.max())
    ax.barh(centre, kept * a_kernel, left=_BARS_PX, height=4, color=STUDENT)
    for y, count, typical in zip(centre, kept, middle, strict=False):
        ax.plot([_BARS_PX + typical * a_kernel] * 2, [y - 2.6, y + 2.6], color=INK, linewidth=1.4)
        ax.text(_BARS_PX + max(count, typical) * a_kernel + 1.5, y, f"{count}", va="center", fontsize=7)
    ax.text(_BARS_PX, -2.2, "kept (line: median unit)", va="center", fontsize=7.5)
    ax.text(0, -2.2, f"the largest kernels, at most {LARGEST_FILTERS} a layer", va="center", fontsize=7.5)


def kernel_pictures(student: StudentWeights, layer: int) -> Float[np.ndarray, "kernel 5 5 3"]:
    """Kernels of a layer as RGB pictures in 0..1, largest norm first; none where the run does not hold them.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> student = example_results().students[0]
    >>> kernel_pictures(student, 1).shape, kernel_pictures(student, 2).shape
    ((3, 5, 5, 3), (0, 5, 5, 3))
    """
    name = "layer1.kernel" if layer == 1 else f"layer{layer}.depthwise"
    if name not in student.arrays or not student.arrays[name].size:
        return np.empty((0, 5, 5, 3))
    held = np.nan_to_num(student.arrays[name], posinf=0, neginf=0)
    return filter_pictures(held if layer == 1 else np.repeat(signed(held)[:, None], 3, axis=1))


def signed(kernels: Float[np.ndarray, "kernel 5 5"]) -> Float[np.ndarray, "kernel 5 5"]:
    """Kernels of layers 2 to 5 with the sign that makes their weights sum to something positive.

    Their own sign means nothing, since the weight that follows may undo it: only the product of both counts.

    Examples
    --------
    >>> signed(np.stack([np.full((5, 5), -1.0), np.ones((5, 5))])).sum(axis=(1, 2))
    array([25., 25.])
    """
    return kernels * np.where(kernels.sum(axis=(1, 2)) < 0, -1, 1).astype(kernels.dtype)[:, None, None]


# What each filter is needed for -------------------------------------------------------------------------------------------

MEASURES: Mapping[str, str] = {
    "r2_with_intact": "1 − r²",
    "mean_change": "spikes",
    "size_index": "index",
}
"""Columns of the table of ablations that are drawn, and the label of their axis."""
_TITLES = {
    "r2_with_intact": "how much of its answers to natural images is lost (1: all)",
    "mean_change": "change of the mean answer (below 0: the filter excites)",
    "size_index": "dot-size index (1: necessary for size selectivity)",
}


@styled
def ablation_figure(ablation: Table, circuit: Table | None, sizes_px: Float[np.ndarray, "size"], dots_per_inch: int) -> Figure:
    """What silencing each filter alone does (left), and the dot-size curve without those that matter most to it (right).

    Parameters
    ----------
    ablation, circuit
        Of one unit: rows of `ablation` and `circuits`.
    sizes_px
        Diameters of the dots of their curves.
    dots_per_inch
        Of the figure.
    """
    figure = Figure(figsize=(PAGE_IN, ABLATION_IN), dpi=dots_per_inch, layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.7, 1])[0]
    axes = left.subplots(len(MEASURES), 1, sharex=True)
    for ax, name in zip(axes, MEASURES, strict=True):
        plot_ablation(ablation, name, ax)
    for ax in axes[:-1]:
        ax.tick_params(axis="x", length=0, labelbottom=False)
    left.align_ylabels(axes)
    plot_dot_curves(ablation, circuit, sizes_px, right.subplots())
    return figure


@styled
def plot_ablation(ablation: Table, measure: str, ax: Axes | None = None) -> Axes:
    """One measure of every filter as a bar, layer by layer, within a layer the highest first."""
    ax = axes_or_new(ax, 0.9, 2 * PAGE_IN / 3)
    values = ablation[measure].astype(float)
    values = 1 - values if measure == "r2_with_intact" else values
    start, ticks = 0.0, []
    for layer in LAYERS:
        heights = values[ablation["layer"] == layer]
        heights = -np.sort(-heights)
        at = start + _slots(len(heights))
        ax.bar(at, heights, width=0.8 * (at[1] - at[0] if len(at) > 1 else 1), color=STUDENT if layer % 2 else INK)
        ticks.append((start + 0.5 * _width(len(heights)), f"layer {layer}\n{len(heights)}"))
        start += _width(len(heights)) + 3
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set_xticks([at for at, _ in ticks], [label for _, label in ticks])
    ax.set(xlim=(-2, start - 1), ylabel=MEASURES[measure])
    ax.set_title(_TITLES[measure], loc="left")
    if measure != "mean_change":
        ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=3))
    if not np.isfinite(values).any():
        nothing = "its curve selects no size, so no filter can be needed for that"
        say_nothing_known(ax, nothing if measure == "size_index" else "its answers do not vary")
    return ax


def _width(n: int) -> float:
    """Room of a layer of so many filters: few filters get more room each, or they could not be seen beside fifty."""
    return max(n, 16.0)


def _slots(n: int) -> Float[np.ndarray, "filter"]:
    return (np.arange(n) + 0.5) * _width(n) / max(n, 1)


@styled
def plot_dot_curves(ablation: Table, circuit: Table | None, sizes_px: Float[np.ndarray, "size"], ax: Axes | None = None) -> Axes:
    """The dot-size curve of the student, of its smallest circuit, and with each of the filters silenced that change it most."""
    ax = axes_or_new(ax, ABLATION_IN, PAGE_IN / 3)
    curves = ablation["curve"].astype(float)
    x = np.array([0.0, *sizes_px]) if 1 + len(sizes_px) == curves.shape[1] else np.arange(curves.shape[1])
    ax.set(xlabel="dot diameter, px (0: blank)", ylabel="answer, spikes")
    intact = circuit["curve_intact"][0].astype(float) if circuit is not None else np.full(curves.shape[1], np.nan)
    if not np.isfinite(intact).all():
        say_nothing_known(ax, "its answers are not known")
        return ax
    ax.plot(x, intact, color=INK, linewidth=2, label="intact")
    if circuit is not None and np.isfinite(circuit["curve"]).all():
        ax.plot(x, circuit["curve"][0], color=STUDENT, linewidth=1.6, linestyle="--", label="circuit only")
    for row, marker in zip(most_changing(curves, intact), "^vs", strict=False):
        name = f"no L{ablation['layer'][row]} F{ablation['filter'][row]}"
        ax.plot(x, curves[row], color=GREY, linewidth=0.8, marker=marker, markersize=3, label=name)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.15, 1), frameon=False, ncols=2, borderaxespad=0.2, columnspacing=0.9, handlelength=1.6)
    return ax


def most_changing(curves: Float[np.ndarray, "filter stimulus"], intact: Float[np.ndarray, "stimulus"]) -> Integer[np.ndarray, "rank"]:
    """Rows of the filters without which a curve differs most from the intact one (sum of squares), most first.

    Examples
    --------
    >>> most_changing(np.array([[0.0, 1.0], [0.0, 5.0], [0.0, 2.0], [np.nan, 0.0]]), np.array([0.0, 1.0]))
    array([1, 2])
    """
    change = ((curves - intact) ** 2).sum(axis=1)
    rank = np.argsort(-np.nan_to_num(change), kind="stable")[:MOST_NECESSARY]
    return rank[change[rank] > 0]


# The smallest circuit -----------------------------------------------------------------------------------------------------


@styled
def plot_circuit(student: StudentWeights, circuit: Table, filters: Table, connections: Table, ax: Axes | None = None) -> Axes:
    """The filters that suffice for the dot-size curve, from the image (left) to the answer (right), with pictures, effects and weights.

    A column a layer, the filters with the largest effect first. Left of a filter is its picture: the kernel of layer 1, the kernel with
    which the next layer reads a map of layers 2 to 4, the readout weights of a map of layer 5. Right is its effect on the answer to a
    blank image and to dots of growing diameter (intact minus silenced), and above the largest effect. A line is a connection.

    Parameters
    ----------
    student
        Of the unit.
    circuit, filters, connections
        Rows of the unit in `circuits`, `circuit_filters` and `circuit_connections`.
    ax
        Where to draw; a new figure when not given. Its units are inches.
    """
    height = circuit_height_in(filters)
    ax = axes_or_new(ax, height, PAGE_IN)
    ax.set(xlim=(0, PAGE_IN), ylim=(height, 0))
    ax.set_axis_off()
    place: dict[tuple[int, int], tuple[float, float]] = {}
    for layer in LAYERS:
        rows = shown_filters(filters, layer)
        largest = float(np.abs(filters["effect_curve"][rows]).max(initial=0.0))
        left = _left(layer)
        n_kept, n_filters = int(circuit["n_kept"][0][layer - 1]), int(circuit["n_filters"][0][layer - 1])
        some = f"\n{len(rows)} shown" if len(rows) < n_kept else ""
        ax.text(left, 0.02, f"layer {layer}: {n_kept} of {n_filters}{some}", va="top", fontsize=7, fontweight="bold")
        for rank, row in enumerate(rows):
            top = _TOP_IN + rank * _ROW_IN + 0.13
            place[layer, int(filters["filter"][row])] = (left, top)
            _draw_filter(ax, student, layer, int(filters["filter"][row]), filters["effect_curve"][row].astype(float), largest, (left, top))
    for layer in LAYERS[1:]:
        _draw_connections(ax, student, connections, layer, place)
    _draw_key(ax, height)
    return ax


def _left(layer: int) -> float:
    return 0.04 + (layer - 1) * (PAGE_IN - 0.08 - _PICTURE_IN - _CURVE_IN) / (len(LAYERS) - 1)


def circuit_height_in(filters: Table) -> float:
    """Height of the diagram, inches."""
    most = max((len(shown_filters(filters, layer)) for layer in LAYERS), default=0)
    return _TOP_IN + _ROW_IN * most + _KEY_IN


def shown_filters(filters: Table, layer: int) -> Integer[np.ndarray, "rank"]:
    """Rows of the filters of a layer that are drawn, those with the largest effect on any dot first."""
    rows = np.flatnonzero(filters["layer"] == layer)
    size = np.abs(np.nan_to_num(filters["effect_curve"][rows])).max(axis=1, initial=0.0)
    return rows[np.argsort(-size, kind="stable")][:SHOWN]


def _draw_filter(
    ax: Axes, student: StudentWeights, layer: int, number: int, effect: np.ndarray, largest: float, place: tuple[float, float]
) -> None:
    left, top = place
    at = effect[np.argmax(np.abs(effect))]
    colour, line = (EXCITES, "-") if at >= 0 else (INHIBITS, "--")
    picture = _picture(student, layer, number)
    if picture is not None:
        extent = (left, left + _PICTURE_IN, top + _PICTURE_IN, top)
        ax.imshow(picture, extent=extent, interpolation="nearest", aspect="auto", vmin=0, vmax=1, zorder=3)
    frame = Rectangle((left, top), _PICTURE_IN, _PICTURE_IN, fill=False, edgecolor=colour, linestyle=line, linewidth=1.4, zorder=4)
    ax.add_patch(frame)
    start, middle = left + _PICTURE_IN, top + _PICTURE_IN / 2
    ax.add_patch(Rectangle((start, top), _CURVE_IN, _PICTURE_IN, facecolor="white", edgecolor=GREY, linewidth=0.5, zorder=3))
    across = np.linspace(start, start + _CURVE_IN, len(effect))
    up = middle - 0.46 * _PICTURE_IN * effect / (largest or 1.0)
    ax.plot([start, start + _CURVE_IN], [middle, middle], color=GREY, linewidth=0.5, zorder=4)
    ax.fill_between(across, middle, up, where=up <= middle, color=EXCITES, linewidth=0, zorder=4, interpolate=True)
    ax.fill_between(across, middle, up, where=up >= middle, color=INHIBITS, linewidth=0, zorder=4, interpolate=True)
    ax.text(left, top - 0.015, f"{number}: {_spikes(at)}", va="bottom", fontsize=7, zorder=5)


def _picture(student: StudentWeights, layer: int, number: int) -> Float[np.ndarray, "height width 3"] | None:
    has_readout = not {"readout.weight", "readout.filter"}.isdisjoint(student.arrays)
    held = student.arrays.get("layer1.kernel" if layer == 1 else f"layer{layer + 1}.depthwise")
    held = readout_weight(student) if layer == 5 and has_readout else held
    if held is None or number >= len(held):
        return None
    one = np.nan_to_num(held[number : number + 1], posinf=0, neginf=0)
    if layer == 1:
        return filter_pictures(one)[0]
    one = one if layer == 5 else signed(one)
    return np.repeat(0.5 + 0.5 * one[0][..., None] / (np.abs(one).max() or 1.0), 3, axis=2)


def _draw_connections(ax: Axes, student: StudentWeights, connections: Table, layer: int, place: Mapping[tuple[int, int], tuple]) -> None:
    """The strongest ones between filters that are drawn, as wide as their weight in the largest of this layer."""
    rows = [row for row in np.flatnonzero(connections["layer"] == layer)
            if (layer, int(connections["filter"][row])) in place and (layer - 1, int(connections["input"][row])) in place]
    weight = np.array([float(connections["weight"][row]) for row in rows])
    strongest = np.argsort(-np.abs(np.nan_to_num(weight)), kind="stable")[:LINES]
    if len(strongest):
        left = 0.5 * (_left(layer - 1) + _PICTURE_IN + _CURVE_IN + _left(layer))
        ax.text(left, 0.2, f"widest: {abs(weight[strongest[0]]):.2f}", ha="center", va="top", fontsize=7)
    for k in strongest[::-1]:
        share = abs(weight[k]) / (abs(weight[strongest[0]]) or 1.0)
        (left, top), (end, below) = place[layer - 1, int(connections["input"][rows[k]])], place[layer, int(connections["filter"][rows[k]])]
        colour, line = (EXCITES, "-") if weight[k] >= 0 else (INHIBITS, (0, (3, 1.5)))
        start, middle = left + _PICTURE_IN + _CURVE_IN, _PICTURE_IN / 2
        width = 0.3 + 2.2 * share
        ax.plot([start, end], [top + middle, below + middle], color=colour, linestyle=line, linewidth=width, alpha=0.8, zorder=2)


def _draw_key(ax: Axes, height: float) -> None:
    keys = [Line2D([], [], color=EXCITES, linewidth=1.6, label="excites (solid; curve above its line)"),
            Line2D([], [], color=INHIBITS, linewidth=1.6, linestyle=(0, (3, 1.5)), label="inhibits (dashed; curve below its line)")]
    text = f"width: weight, the {LINES} strongest"
    keys.append(Line2D([], [], color="none", label=text))
    ax.legend(handles=keys, loc="lower left", bbox_to_anchor=(0, 0), ncols=3, frameon=False, borderaxespad=0, handlelength=2.4)


def _spikes(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")

