"""One page a unit: who it is, how good its model is, and what the model computes, for a reader who does not have the paper at hand.

`unit_sections` draws, `render_unit_page` writes; both take values and give values. What is missing gets a plain sentence in its place: a
run may be interpreted for some units only (`interpret --units`), a student may answer all images alike, a file may keep no pictures.
"""

import shlex
from collections.abc import Callable
from functools import partial
from html import escape

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nwb_compact.errors import counted
from nwb_compact.file_names import safe_name
from nwb_compact.interpretation.tables import Table, Tables
from nwb_compact.results import Results
from nwb_compact.session import Session
from nwb_compact_analysis import circuit_figures, field_figures, made_image_figures, tuning_figures
from nwb_compact_analysis.page import PAGE, STUDY, Picture, Section, decimals, document, section_html
from nwb_compact_analysis.physiology_figures import criterion
from nwb_compact_analysis.pictures import DOTS_PER_INCH, saved
from nwb_compact_analysis.population_figures import early_likeness
from nwb_compact_analysis.strips import say_nothing_known
from nwb_compact_analysis.style import PAGE_IN, styled
from nwb_compact_analysis.tuning_figures import row_of, rows_of
from nwb_compact_analysis.unit_figures import plot_predicted_against_measured

WHO_IN = 1.8
PREFERS = {
    "edge": "edges: the orientation of gratings matters to it",
    "curvature": "curves: the side that they face matters to it",
    "dot": "dots: it answers them more than large edges and surfaces",
    "texture": "texture: it answers crossed lines more than any single element",
    "colour": "colour: it answers colours as bright as the background more than anything grey",
}
"""What each label says, in words."""
NOT_INTERPRETED = "nwb-compact interpret has not been run for this unit, so what its model computes is not known."


def unit_sections(
    results: Results, session: Session, tables: Tables, measured: Float[np.ndarray, "image unit"], unit: int
) -> list[Section]:
    """All figures of one unit with their captions, in the order of its page, about two printed sheets.

    Parameters
    ----------
    results
        The run.
    session
        Its session; its images may lie on disk.
    tables
        From `nwb_interpretation.read_interpretation`; empty where the run was not interpreted.
    measured
        Repeat averages of every image, NaN where not measured; (image unit) as in `results`.
    unit
        Row of `results`.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> from nwb_compact.session import example_session
    >>> session = example_session()
    >>> results = example_results(session)
    >>> sections = unit_sections(results, session, {}, results.teacher_prediction.astype(float), 0)
    >>> [section.heading for section in sections if section.pictures]
    ['Preference, fit and receptive field', 'Filters, layer by layer']
    """
    return [
        _who(results, tables, measured, unit),
        _filters(results, tables, unit),
        _tuning(tables, unit),
        _robustness(tables, unit),
        _natural(results, session, tables, measured, unit),
        _made(tables, unit),
        _ablation(tables, unit),
        _circuit(results, tables, unit),
    ]


def render_unit_page(
    results: Results, session: Session, source: str, tables: Tables, measured: Float[np.ndarray, "image unit"], unit: int
) -> str:
    """The whole page of a unit as HTML: no script, nothing to load, every word from the file escaped.

    Parameters
    ----------
    results, session, tables, measured, unit
        As `unit_sections` takes them.
    source
        The session file as the user named it.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> from nwb_compact.session import example_session
    >>> session = example_session()
    >>> results = example_results(session)
    >>> page = render_unit_page(results, session, "a.nwb", {}, results.teacher_prediction.astype(float), 0)
    >>> page[:15], page.count("<img ")
    ('<!DOCTYPE html>', 2)
    """
    name = results.unit_name[unit]
    of = session.about.session_id or session.about.identifier
    made_by = dict(zip(*(tables["provenance"][name].tolist() for name in ("key", "value")), strict=True)) if "provenance" in tables else {}
    command = made_by.get("command") or f"nwb-compact interpret {shlex.quote(source)} --run {shlex.quote(results.run_id)}"
    parts = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="lead">{escape(unit_headline(results, tables, unit))}</p>',
        _numbers(results, unit, of),
        *(section_html(section) for section in unit_sections(results, session, tables, measured, unit)),
        f"<p>The method: {escape(STUDY)} To get this again: <code>{escape(command)}</code>. "
        f'<a href="{PAGE}">All units of the run</a>.</p>',
    ]
    title = f"nwb-compact: {name} of {of}, run {results.run_id}"
    return document(title, parts, _UNIT_STYLE)


def page_name(results: Results, unit: int) -> str:
    """Name of the file of a unit's page: its row, which makes it unique, and what of its name every file system takes.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> page_name(example_results(), 1)
    'unit_2_unit-2.html'
    """
    return f"unit_{unit + 1}_{safe_name(results.unit_name[unit])}.html"


def unit_headline(results: Results, tables: Tables, unit: int) -> str:
    """What the unit prefers and how far to believe it, in two sentences.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> unit_headline(example_results(), {}, 0).split(".")[0]
    'nwb-compact interpret has not been run for this unit, so what its model computes is not known'
    """
    r2 = float(results.scores["student_r2"][unit])
    good = f"On images that it did not learn from, its answers and the neuron's average responses have an r² of {r2:.2f}."
    if not np.isfinite(r2):
        reason = results.reason[unit] or "no reason is stored"
        good = f"How well the model predicts it is not known: {reason}."
    found = rows_of(tables, "preferences", unit)
    return f"{NOT_INTERPRETED if found is None else preference_text(found)} {good}"


def preference_text(found: Table) -> str:
    """The label of a unit as a sentence with its evidence.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> found = {"preference": np.array(["dot"]), "dot_index": np.array([0.5]), "dot_least": np.array([0.33])}
    >>> preference_text(Table("", {name: Column("", values) for name, values in found.items()}))
    'Its model prefers dots: it answers them more than large edges and surfaces (index 0.50, at least 0.33 is needed).'
    """
    label = str(found["preference"][0])
    if f"{label}_index" not in found.columns:
        return "What its model prefers is unclear: of the labels whose images drive it, none passes its criterion by a clear margin."
    least = criterion(found, label)
    needed = f", at least {least:g} is needed" if np.isfinite(least) else ""
    return f"Its model prefers {PREFERS.get(label, label)} (index {float(found[f'{label}_index'][0]):.2f}{needed})."


def _numbers(results: Results, unit: int, session_name: str) -> str:
    value = {name: float(column[unit]) for name, column in results.scores.items()}
    interval = f" [{decimals(value['student_r2_er_low'])}, {decimals(value['student_r2_er_high'])}]"
    corrected = decimals(value["student_r2_er"]) + (interval if np.isfinite(value["student_r2_er_low"]) else "")
    cells = {
        "session": session_name,
        "run": results.run_id,
        "r² on scored images": decimals(value["student_r2"]),
        **({"noise-corrected [90 % interval]": corrected} if np.isfinite(value["student_r2_er"]) else {}),
        "parameters": decimals(value["student_parameters"], 0),
        "kernels of layers 1 to 5": ", ".join(str(count) for count in results.filters_per_layer[unit]),
        "mean response, spikes": decimals(value["mean_count"], 1),
    }
    heads = "".join(f"<th>{escape(head)}</th>" for head in cells)
    row = "".join(f"<td>{escape(cell)}</td>" for cell in cells.values())
    return f'<div class="scroll"><table class="who"><thead><tr>{heads}</tr></thead><tbody><tr>{row}</tr></tbody></table></div>'


# Sections, in the order of the page ---------------------------------------------------------------------------------------


def _who(results: Results, tables: Tables, measured: np.ndarray, unit: int) -> Section:
    heading = "Preference, fit and receptive field"
    text = (
        "Left: the evidence for each label, from answers to made images; the one given is filled. Middle: "
        "predicted and measured response to each scored image, spikes; dashed: both agree. Right: where covering an image changes the "
        "answer."
    )
    missing = [f"Answers are {results.provenance['answers']}."] if results.provenance.get("answers") else []
    if row_of(tables, "preferences", unit) is None or row_of(tables, "receptive_fields", unit) is None:
        missing.append(NOT_INTERPRETED)
    scored = np.asarray(results.side) == "scored"
    if not np.isfinite(measured[scored, unit]).any():
        missing.append("No scored image has a measured response, so the middle is empty.")
    alt = f"Preference indices, predicted against measured responses and receptive field of {results.unit_name[unit]}."
    figure = _who_figure(results, tables, measured, unit)
    return Section(heading, " ".join([text, *missing]), (saved("who.png", alt, figure),))


@styled
def _who_figure(results: Results, tables: Tables, measured: np.ndarray, unit: int) -> Figure:
    figure = Figure(figsize=(PAGE_IN, WHO_IN), dpi=DOTS_PER_INCH, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
    panels: list[tuple[str, Callable[[Table, Axes], Axes], Axes]] = [
        ("preferences", tuning_figures.plot_evidence, left), ("receptive_fields", tuning_figures.plot_receptive_field, right)]
    for name, plot, ax in panels:
        found = rows_of(tables, name, unit)
        if found is None:
            ax.set_axis_off()
            say_nothing_known(ax, "not interpreted")
        else:
            plot(found, ax)
    plot_predicted_against_measured(results, measured, unit, middle)
    return figure


def _filters(results: Results, tables: Tables, unit: int) -> Section:
    text = (
        "Each kernel is scaled by its own largest weight; grey is zero. Layer 1 sees colours; each kernel above sees one map of the layer "
        "below, and has the sign that makes its sum positive. The study found many in layers 1 to 3 and few after them (consolidation). "
        f"{early_likeness(results)}"
    )
    fall = rows_of(tables, "consolidation", unit)
    if fall is not None and fall["largest_drop"][0] > 0:
        by = counted(int(fall["largest_drop"][0]), "kernel")
        text += f" Here the largest fall is after layer {fall['largest_drop_after_layer'][0]}, by {by}."
    counts = ", ".join(str(count) for count in results.filters_per_layer[unit])
    alt = f"Kernels of the five layers; layers 1 to 5 keep {counts}."
    plot = partial(circuit_figures.plot_filters, results, unit)
    return Section("Filters, layer by layer", text, (_laid_out("filters.png", alt, plot, circuit_figures.FILTERS_IN),))


def _tuning(tables: Tables, unit: int) -> Section:
    heading, probed = "Tuning to made images", tuning_figures.probed_of(tables, unit)
    if probed is None:
        known = row_of(tables, "tuning", unit) is not None
        return Section(heading, "The model's answers to made images are not numbers." if known else NOT_INTERPRETED)
    if np.ptp(probed.answers) == 0:
        return Section(heading, f"The model answers every made image alike, with {probed.answers[0]:.2f} spikes.")
    text = (
        "Answers to images about the receptive field, all on one scale; dashed: the blank screen. OSI: 1 minus circular variance. F1/F0: "
        "above 1 simple, below 1 complex. Suppression: 1 minus the answer to the largest over that to the best, above blank. The first "
        "four colours are as bright as the background."
    )
    alt = "Answers to kinds of images, orientations, dots, colours, curve directions and grating sizes."
    pictures = [saved("tuning.png", alt, tuning_figures.tuning_figure(probed, DOTS_PER_INCH))]
    maps, structure = rows_of(tables, "field_maps", unit), rows_of(tables, "structure", unit)
    if structure is not None and np.isfinite(structure["structure_modulation"][0]):
        natural, noise, index = (float(structure[name][0]) for name in ("natural_answer", "scrambled_answer", "structure_modulation"))
        modulation = f"{index:.2f}".replace("-", "−")
        text += f" Natural images in an aperture: {natural:.1f} spikes on average; with random phases: {noise:.1f} (index {modulation})."
    if maps is not None:
        text += " Below: how much answers to natural images depend on each place, answers to single squares (red: above blank), contrast."
        alt = "Gradient map, answers to bright and dark squares, and to gratings of growing contrast."
        pictures.append(saved("maps.png", alt, field_figures.field_figure(maps, probed, DOTS_PER_INCH)))
    return Section(heading, text, tuple(pictures))


def _robustness(tables: Tables, unit: int) -> Section:
    heading, column = "When images are changed", row_of(tables, "receptive_fields", unit)
    if column is None or "robustness" not in tables:
        return Section(heading, NOT_INTERPRETED)
    table = tables["robustness"]
    r2, answer_r2 = (table[name][:, column].astype(float) for name in ("r2", "answer_r2"))
    if not (np.isfinite(r2).any() or np.isfinite(answer_r2).any()):
        return Section(heading, "The model's answers do not vary, so nothing can be said of changed images.")
    text = (
        "r² of the answers to changed images with the responses to the intact ones (blue circles; dashed: nothing changed) and with the "
        "model's own answers to the intact ones (black squares). A change that an animal would hardly notice should move neither."
    )
    pairs = rows_of(tables, "near_pairs", unit)
    if pairs is not None and np.isfinite(pairs["near_r2"][0]):
        text += (
            f" Differences between images that are nearly the same are predicted with an r² of {pairs['near_r2'][0]:.2f}, between any two "
            f"with {pairs['any_r2'][0]:.2f}; noise of the averages lowers the first more."
        )
    alt = "r² against the level of noise, blur, contrast, luminance, occlusion and shift."
    teacher_r2 = tables["teacher_robustness"]["r2"][:, column].astype(float) if "teacher_robustness" in tables else None
    if teacher_r2 is not None:
        text += " Orange: the teacher, as the blue circles."
    figure = made_image_figures.robustness_figure(table, r2, answer_r2, DOTS_PER_INCH, teacher_r2)
    return Section(heading, text, (saved("robustness.png", alt, figure),))


def _natural(results: Results, session: Session, tables: Tables, measured: np.ndarray, unit: int) -> Section:
    heading, found = "Natural images it answers most and least", rows_of(tables, "natural_images", unit)
    if found is None:
        return Section(heading, NOT_INTERPRETED)
    if not np.isfinite(found["answer"]).any():
        return Section(heading, "The model answers all natural images alike, so none is its strongest or weakest.")
    answers = rows_of(tables, "natural_answers", unit)
    n = f" {int(answers['n_images'][0]):,}" if answers is not None and "n_images" in answers.columns else ""
    text = f"Of{n} natural images, those with the strongest and the weakest predicted response, the most extreme first; an asterisk marks "
    text += "those that no model learned from."
    if "file" in found.columns and (found["file"] != "").any():
        text += " Images that were searched beside the session's own are not in the file: of these there is only the name."
    if session.images.pixels is None:
        text += " The file keeps only hashes of its images, so there are no pictures."
    is_new = ~np.isin(results.side, ("fit", "validation"))
    plot = partial(made_image_figures.plot_natural_images, found, session.images.pixels, measured[:, unit], is_new)
    alt = "Natural images with the strongest and the weakest predicted response."
    return Section(heading, text, (_drawn("natural.png", alt, plot, made_image_figures.natural_height_in()),))


def _made(tables: Tables, unit: int) -> Section:
    heading, made = "Images made for it", rows_of(tables, "made_images", unit)
    if made is None:
        told = "They are not in this file: its images were left out." if rows_of(tables, "preferences", unit) else NOT_INTERPRETED
        return Section(heading, told)
    text = (
        "Made from noise, at the mean and contrast of natural images, to be answered most or least; and photographs changed a little. "
        "Below each: the answer to the image it started from, and to itself, spikes. Until they are shown to the "
        "neuron they are hypotheses."
    )
    alike = rows_of(tables, "made_image_similarity", unit)
    if alike is not None and np.isfinite(alike["seed_similarity"][0]):
        text += f" Maximizing images from different noise correlate {alike['seed_similarity'][0]:.2f}.".replace("-", "−")
    if not (np.abs(made["answer"] - made["start_answer"]) > 0).any():
        text += " No change of an image moves this model's answer, so they show nothing."
    teacher = rows_of(tables, "teacher_made_images", unit)
    text += _seconded(rows_of(tables, "teacher_agreement", unit))
    plot = partial(made_image_figures.plot_made_images, made, teacher)
    alt = "Images that were made to drive or silence the model, and photographs changed a little."
    return Section(heading, text, (_drawn("made.png", alt, plot, made_image_figures.made_height_in(made)),))


def _seconded(agreement: Table | None) -> str:
    """What the teacher says to these images, where it was asked."""
    if agreement is None:
        return ""
    told = {
        "maximizing_above_best": "{} of the maximizing images above its best image of the session",
        "minimizing_below_median": "{} of the minimizing ones below its median image",
    }
    shares = [words.format(_percent(agreement[name][0])) for name, words in told.items() if np.isfinite(agreement[name][0])]
    text = " In brackets: what the teacher answers." + (f" It answers {' and '.join(shares)}." if shares else "")
    if np.isfinite(agreement["adversarial_followed"][0]):
        text += f" {_percent(agreement['adversarial_followed'][0])} of the changed photographs move it as they move the student."
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _ablation(tables: Tables, unit: int) -> Section:
    heading, ablation = "Which filters it needs", rows_of(tables, "ablation", unit)
    if ablation is None:
        return Section(heading, NOT_INTERPRETED)
    if not np.isfinite(ablation["r2_with_intact"]).any():
        return Section(heading, "The model's answers to natural images do not vary, so no filter can be told to matter.")
    text = (
        "Each filter silenced alone, its map set to 0. Right: the dot-size curve, also of the circuit below and without the filters that "
        "change it most. A filter is a map here; the study counts the kernels that read it, so its layer-3 filters are our maps of layer "
        f"2. {most_needed(ablation)}"
    )
    alt = f"Effects of silencing each of {len(ablation)} filters, and dot-size curves."
    figure = circuit_figures.ablation_figure(ablation, rows_of(tables, "circuits", unit), dot_sizes(tables), DOTS_PER_INCH)
    return Section(heading, text, (saved("ablation.png", alt, figure),))


def most_needed(ablation: Table, n: int = 3) -> str:
    """The filters without which answers to natural images change most, in a sentence.

    Examples
    --------
    >>> from nwb_compact.interpretation.tables import Column
    >>> columns = {"layer": [3, 1], "filter": [2, 0], "r2_with_intact": [0.2, 0.9], "r2_change": [-0.3, 0.01]}
    >>> most_needed(Table("", {name: Column("", np.array(values)) for name, values in columns.items()}), 1)
    'Answers change most without L3 F2 (r² with its whole self 0.20, with the neuron −0.30).'
    """
    lost = 1 - ablation["r2_with_intact"].astype(float)
    rows = [row for row in np.argsort(-np.nan_to_num(lost), kind="stable")[:n] if np.isfinite(lost[row])]
    change = [float(ablation["r2_change"][row]) for row in rows]
    words = [
        f"L{ablation['layer'][row]} F{ablation['filter'][row]} (r² with its whole self {1 - lost[row]:.2f}"
        + (f", with the neuron {moved:+.2f})".replace("-", "−") if np.isfinite(moved) else ")")
        for row, moved in zip(rows, change, strict=True)
    ]
    return f"Answers change most without {', '.join(words)}." if words else ""


def dot_sizes(tables: Tables) -> Float[np.ndarray, "size"]:
    """Diameters of the dots in the middle of the receptive field; none where there are no probes."""
    if "probes" not in tables:
        return np.empty(0)
    probes = tables["probes"]
    centred = (probes["family"] == "dot") & (probes["row_offset_px"] == 0) & (probes["column_offset_px"] == 0)
    return np.unique(probes["size_px"][centred]).astype(float)


def _circuit(results: Results, tables: Tables, unit: int) -> Section:
    heading = "The smallest circuit for its dot-size curve"
    circuit, filters, connections = (rows_of(tables, name, unit) for name in ("circuits", "circuit_filters", "circuit_connections"))
    if circuit is None:
        return Section(heading, NOT_INTERPRETED)
    if filters is None or connections is None:
        return Section(heading, "The model answers dots of all sizes alike, so there is no circuit to find.")
    text = (
        f"The filters that alone explain {circuit['explained'][0]:.0%} of the dot-size curve: {circuit['n_kept'][0].sum()} of "
        f"{circuit['n_filters'][0].sum()}, from the image (left) to the answer (right). Of each filter: number and largest effect, spikes; "
        "a picture (layer 1: its kernel; 2 to 4: the kernel that reads it, which the study counts as a filter of the next layer; 5: "
        "readout weights over the image; bright: positive); its effect on answers to a blank image and growing dots, each layer on its own "
        "scale, which shows where a filter excites at small dots and inhibits at large ones."
    )
    plot = partial(circuit_figures.plot_circuit, results.students[unit], circuit, filters, connections)
    kept = ", ".join(str(count) for count in circuit["n_kept"][0])
    alt = f"Diagram of the circuit: {kept} filters in layers 1 to 5 and their connections."
    return Section(heading, text, (_drawn("circuit.png", alt, plot, circuit_figures.circuit_height_in(filters)),))


# Pictures -----------------------------------------------------------------------------------------------------------------


@styled
def _drawn(name: str, alt: str, plot: Callable[[Axes], Axes], height_in: float) -> Picture:
    """A figure whose axes fill it."""
    figure = Figure(figsize=(PAGE_IN, height_in), dpi=DOTS_PER_INCH)
    plot(figure.add_axes((0, 0, 1, 1)))
    return saved(name, alt, figure)


@styled
def _laid_out(name: str, alt: str, plot: Callable[[Axes], Axes], height_in: float) -> Picture:
    """A figure whose axes leave room for their labels."""
    figure = Figure(figsize=(PAGE_IN, height_in), dpi=DOTS_PER_INCH, layout="constrained")
    plot(figure.subplots())
    return saved(name, alt, figure)


_UNIT_STYLE = """
figcaption { display: none; }
.who th, .who td { text-align: left; }
.who th { font-weight: 400; color: #555; }
@media print {
  @page { size: A4; margin: 10mm; }
  body { font-size: 8pt; line-height: 1.25; }
  h1 { font-size: 13pt; margin: 0; }
  h2 { font-size: 9.5pt; margin: 1.5mm 0 0.5mm; }
  .lead { font-size: 9pt; }
  p, p.lead { max-width: none; margin: 0.5mm 0; }
  table { margin: 0.5mm 0; }
  th, td { padding-top: 0; padding-bottom: 0; }
}
"""
