"""What `nwb-compact interpret` found of all units together, as sections of the report: what is seen, what the study found, and what is so
by construction, in the words beside each figure.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nwb_compact.interpretation.tables import Tables
from nwb_compact.results import N_LAYERS, Results, shared_arrays
from nwb_compact_analysis.image_figures import OTHERS, changes_of, plot_made_answers, plot_robustness, relative_answers
from nwb_compact_analysis.network_figures import (
    of_pairs,
    p_text,
    plot_common_filters,
    plot_largest_drops,
    plot_orientations,
    plot_r2_loss_by_layer,
    plot_similarity,
    plot_size_index_by_layer,
)
from nwb_compact_analysis.page import Picture, Section
from nwb_compact_analysis.physiology_figures import (
    MEASURES,
    TENTHS,
    Measure,
    plot_distribution,
    plot_preference_indices,
    plot_preferences,
)
from nwb_compact_analysis.pictures import DOTS_PER_INCH, saved
from nwb_compact_analysis.style import COLUMN_IN, PAGE_IN, styled

Panel = Callable[[Axes], Axes]


def population_sections(results: Results, tables: Tables) -> list[Section]:
    """Figures of all interpreted units of a run with their captions; what has no table is left out.

    Parameters
    ----------
    results
        The run, whose students tell what they share.
    tables
        By name, from `nwb_interpretation.read_interpretation`.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> population_sections(example_results(), {})
    []
    """
    return [
        *_preferences(tables),
        *_tuning(tables),
        *_consolidation(results, tables),
        *_first_filters(results, tables),
        *_ablation(tables),
        *_robustness(tables),
        *_made_images(tables),
        *_teacher(tables),
    ]


def _preferences(tables: Tables) -> list[Section]:
    if "preferences" not in tables:
        return []
    table = tables["preferences"]
    text = (
        "Left: how many units have which label. Right: the index behind each label, a point a unit, at the same place across in every "
        "column. A unit has the label whose index is highest over its least value (dashes), if it is also a tenth above the next, so a "
        "point above the dashes can be grey. By construction a label speaks of made images alone, there is none for parts of objects, "
        "and the least values were set on simulated neurons. It is the student that was asked: a label is a hypothesis about the "
        "neuron."
    )
    labels, n = np.unique(table["preference"], return_counts=True)
    counts = ", ".join(f"{label} {count}" for label, count in zip(labels.tolist(), n.tolist(), strict=True))
    alt = f"Number of units with each label ({counts}), and the index of each label of every unit."
    panels = [partial(plot_preferences, table), partial(plot_preference_indices, table)]
    return [Section("What the units prefer", text, (_panels("figure_8a_preferences.png", alt, panels, 2.7, (1, 2)),))]


def _tuning(tables: Tables) -> list[Section]:
    shown = [measure for measure in MEASURES if measure.table in tables]
    if not shown:
        return []
    text = (
        "Tuning of the students to made images at their receptive fields, in units; the black line is the median. OSI is 1 minus the "
        "circular variance. F1/F0 is how far the answer follows the phase of a grating, relative to its mean (above 2: in the last "
        "bar). Suppression is 1 - answer to the largest / answer to the best size. By construction only sizes that were shown can be "
        "preferred, no dot being larger than 64 px, so that suppression by larger ones is not seen; and receptive fields are found by "
        "covering places of 14 px, which widens small ones. A unit is left out where nothing of the kind drives it above a blank "
        "screen."
    )
    return [_distributions("Tuning of all units", text, "figure_8b_tuning.png", shown, tables, (1, 1, 1))]


def _consolidation(results: Results, tables: Tables) -> list[Section]:
    panels: list[Panel] = []
    if "consolidation" in tables:
        panels.append(partial(plot_largest_drops, tables["consolidation"], tables.get("consolidation_test")))
    if "similarity" in tables:
        panels.append(partial(plot_similarity, tables["similarity"], tables.get("output_similarity")))
    if not panels:
        return []
    text = (
        "First: between which layers each student loses most filters; above it the paired permutation test of one fall. Second: how "
        "alike the same layer of two units' students is (centred kernel alignment, CKA), over all pairs of units; beside it r² between "
        "the answers of two units, another measure on the same axis. The study found a fall from layer 3 to 4 (the largest one in 198 "
        "of its 219 published models), early layers of different models more alike than late ones, and answers that share little (mean "
        f"r² 0.11{_mean_r2(tables)}). {_early_against_late(tables)}By construction layer 2 counts as many filters as layer 1, since "
        "filters are counted by kernels, one for each map below; layers with few filters are less alike even where the few were chosen "
        "at random; and p takes units for independent, which those of one session and one teacher are not. "
        f"{early_likeness(results)}"
    )
    alt = "Layers between which the filters of each unit fall most; similarity of units' students layer by layer."
    return [Section("Consolidation of all units", text, (_panels("figure_8c_consolidation.png", alt, panels, 2.6, (1, 1)),))]


def _mean_r2(tables: Tables) -> str:
    """Of the answers of two units, as the study gives it: the figure shows the median."""
    answers = of_pairs(tables["output_similarity"]["r2"]) if "output_similarity" in tables else np.empty(0)
    return f", here {answers.mean():.2f}" if len(answers) else ""


def _early_against_late(tables: Tables) -> str:
    """The test of similarity in a sentence, where there is one."""
    test = tables.get("similarity_test")
    if test is None or not np.isfinite(test["median_early"][0]):
        return ""
    early, late, p = (float(test[name][0]) for name in ("median_early", "median_late", "p"))
    pairs = int(test["n_pairs"][0])
    beside = f"{p_text(p)}, {pairs} pair{'s' if pairs != 1 else ''} without a common unit"
    return f"Here the median CKA is {early:.2f} in early and {late:.2f} in late layers ({beside}). "


def _first_filters(results: Results, tables: Tables) -> list[Section]:
    panels: list[Panel] = []
    if "early_filter_clusters" in tables and len(tables["early_filter_clusters"]):
        panels.append(partial(plot_common_filters, tables["early_filter_clusters"]))
    if "early_filters" in tables:
        panels.append(partial(plot_orientations, tables["early_filters"]))
    if not panels:
        return []
    text = (
        "First: the filters of layer 1 that most units have one like, by the cosine between them; grey is zero, brighter is positive in "
        "that colour, darker negative. Second: orientations of those filters that a Gabor explains well; dashes are an even spread. The "
        "study found that neurons can share early layers: a model with one set of them for all predicts nearly as well. By construction "
        "a filter that is shifted by a pixel counts as another kind. The fit by itself makes no peaks: smoothed random filters have 7 "
        f"to 9 % at each orientation. {early_likeness(results)}"
    )
    alt = "The most common filters of layer 1 with the share of units that have each; how orientations of all are spread."
    return [Section("Filters that units have in common", text, (_panels("figure_8d_common_filters.png", alt, panels, 2.2, (1, 1)),))]


def early_likeness(results: Results) -> str:
    """How far the likeness of early layers is the program's own making, in this run."""
    shared = shared_arrays(results.students)
    layers = [str(layer) for layer in range(1, N_LAYERS + 1) if f"layer{layer}.bias" in shared]
    if layers:
        return f"All students of this run hold the same layer{'s' if layers[1:] else ''} {', '.join(layers)}: alike by construction."
    copied = copied_filters(results)
    if not copied:
        return "No filter of layer 1 in this run is a copy of another unit's, so what is alike here was not copied from one network."
    return (
        f"Students of a fit are cut out of one network that shares layers 1 and 2 until the last pruning: {100 * copied:.0f} % of the "
        "filters of layer 1 are exact copies of another unit's, so early likeness is partly made by that."
    )


def copied_filters(results: Results) -> float:
    """Share of the filters of layer 1 that the student of another unit has, too, number by number.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> copied_filters(example_results())
    0.0
    """
    of_units = [{kernel.tobytes() for kernel in student.arrays["layer1.kernel"]} for student in results.students]
    n_units = Counter(kernel for kernels in of_units for kernel in kernels)
    return sum(n for n in n_units.values() if n > 1) / max(n_units.total(), 1)


def _ablation(tables: Tables) -> list[Section]:
    if "ablation" not in tables:
        return []
    text = (
        "Each filter of each student was silenced alone. Left: the dot-size index of that filter of a layer which the preference for "
        "dots of one size needs most; 1: the preference is gone without it, 0: it is as it was. Right: the change of r² with the "
        "measured responses without that filter which costs most. In a model that detects dots the study found an index near 1 for one "
        "filter of layer 4 and below 0.25 for all of layer 3. It counts the kernels that read a map: these are maps of layers 3 and 2 "
        "here. By construction the most extreme of many filters is more extreme than that of few, and where a layer has few filters "
        "each carries more; the numbers of filters stand below the layers."
    )
    panels = [partial(plot, tables["ablation"]) for plot in (plot_size_index_by_layer, plot_r2_loss_by_layer)]
    alt = "Dot-size index of the most necessary filter, and the largest loss of r², in each layer of every unit."
    return [Section("What silencing a filter does", text, (_panels("figure_8e_silenced_filters.png", alt, panels, 2.6, (1, 1)),))]


def _robustness(tables: Tables) -> list[Section]:
    if "robustness" not in tables:
        return []
    table = tables["robustness"]
    text = (
        "Scored images were changed and shown to the students again. Blue: r² with the responses that were measured to the intact "
        "images, dashes where it is on the intact images. Grey: r² with the student's own answers to the intact images. Medians over "
        "units with 90 % intervals (bootstrap over units). The change grows from left to right, but luminance is lowered on the left "
        "and raised on the right. By construction grey begins at 1, while noise of the recording keeps blue below. What neurons answer "
        "to the changed images was not measured, so a fall of blue can be a fault of the model or what the neuron does, too."
    )
    changes = changes_of(table)
    others = {name: tables[name] for name in OTHERS if name in tables}
    text += "".join(f" As blue, but of the {OTHERS[name][1]}: see the legend." for name in others)
    if "vone_robustness" in others:
        text += " It learned from the images of the session alone and was shown fewer, so compare how lines fall, not how high they are."
    panels = [partial(plot_robustness, table, change, others=others) for change in changes]
    alt = f"r² against the level of each change of the images: {', '.join(changes)}."
    return [Section("Changed images", text, (_panels("figure_8f_robustness.png", alt, panels, 1.75, (1, 1, 1), legend=True),))]


def _made_images(tables: Tables) -> list[Section]:
    if "natural_answers" not in tables or not len(tables.get("made_images", ())):
        return []
    kinds, made, start = relative_answers(tables["made_images"], tables["natural_answers"], tables.get("natural_images"))
    text = (
        "What the students answer to images that were made for them (dots) and to those these were made from (rings): noise, or natural "
        "images with a middling answer that were changed a little. In SDs of the unit's answers to natural "
        "images, one to either side of their mean is the grey band; averages over the images of a unit. The study showed such images to "
        "neurons: maximizing ones drove them more than natural images, and small changes moved their answers both ways. By construction "
        "they move the student they were made with: this figure shows how far, not that the neuron follows."
    )
    alt = "Answers to made images and to those they were made from, relative to natural images, a point a unit."
    panels = [partial(plot_made_answers, kinds, made, start)]
    return [Section("Images made for the units", text, (_panels("figure_8g_made_images.png", alt, panels, 2.8, (1,), PAGE_IN),))]


AGREEMENT = (
    Measure("teacher_agreement", "probe_r2", "r² of student and teacher, battery", TENTHS),
    Measure("teacher_agreement", "maximizing_above_best", "share of maximizing images above its best", TENTHS),
    Measure("teacher_agreement", "minimizing_below_median", "share of minimizing images below its median", TENTHS),
    Measure("teacher_agreement", "adversarial_followed", "share of changed photographs that it follows", TENTHS),
)
"""Histograms of what the teacher says of its students."""


def _teacher(tables: Tables) -> list[Section]:
    if "teacher_agreement" not in tables:
        return []
    text = (
        "The teacher was shown what its students were shown. First: r² of their answers to the battery of made images. Then: the share of "
        "a unit's maximizing images that the teacher answers above its best image of the session, of minimizing ones below its median, and "
        "of the changed photographs that move it in the direction in which they move the student. By construction a student copies its "
        "teacher on natural images only, so this says how far it can be trusted beyond them; but the teacher was fitted to the same "
        "responses and can share the student's faults."
    )
    return [_distributions("What the teacher says of its students", text, "figure_8h_teacher.png", AGREEMENT, tables, (1, 1))]


def _distributions(
    heading: str, text: str, name: str, measures: Sequence[Measure], tables: Tables, widths: tuple[int, ...]
) -> Section:
    """Histograms of measures over units."""
    panels = [partial(plot_distribution, measure, tables[measure.table][measure.column].astype(float)) for measure in measures]
    alt = f"Histograms over units: {'; '.join(measure.label for measure in measures)}."
    return Section(heading, text, (_panels(name, alt, panels, 1.75, widths),))


@styled
def _panels(
    name: str, alt: str, panels: Sequence[Panel], row_in: float, widths: tuple[int, ...], alone_in: float = COLUMN_IN, *,
    legend: bool = False,
) -> Picture:
    """Panels in rows of so many; one that is alone gets a figure `alone_in` wide."""
    columns = min(len(widths), len(panels))
    rows = -(-len(panels) // columns)
    size_in = (PAGE_IN if len(panels) > 1 else alone_in, row_in * rows + (0.25 if legend else 0))
    figure = Figure(figsize=size_in, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=widths[:columns]).ravel()
    for ax, plot in zip(axes, panels, strict=False):
        plot(ax)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    for number, ax in enumerate(axes[: len(panels)]):
        if number % columns and ax.get_ylabel() == axes[number - 1].get_ylabel():
            ax.set_ylabel("")
    if legend:
        handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3, frameon=False)
    return saved(name, alt, figure)
