"""A run and its session become a folder: figures as PNG and one page, `index.html`, that holds them all."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nwb_compact.errors import counted
from nwb_compact.interpretation.tables import Table
from nwb_compact.measured import measured_means
from nwb_compact.new_folder import require_new_folder
from nwb_compact.progress import Advance, silent
from nwb_compact.results import Results, baselines_of, disagreement
from nwb_compact.session import Session
from nwb_compact_analysis import figures, unit_figures
from nwb_compact_analysis.baseline_figures import models_figure
from nwb_compact_analysis.compression_figures import compression_curves, plot_compression
from nwb_compact_analysis.ensemble_figures import has_members, members_figure
from nwb_compact_analysis.medians import HEIGHT_IN, WIDTH_IN
from nwb_compact_analysis.page import PAGE, Picture, Section, render_page
from nwb_compact_analysis.pictures import DOTS_PER_INCH, saved
from nwb_compact_analysis.population_figures import population_sections
from nwb_compact_analysis.shared_figures import plot_shared_models, shared_runs
from nwb_compact_analysis.style import COLUMN_IN, PAGE_IN, chunks, styled
from nwb_compact_analysis.unit_page import page_name, render_unit_page

UNITS_A_FIGURE = {"scores": 45, "filters": 30, "fits": 25, "images": 8}
"""What fits on a printed page with 7 pt text."""
_FITS_A_ROW, _FIT_IN = 5, 1.6


def write_report(
    results: Results, session: Session, source: str, folder: str | Path, *, others: Sequence[Results] = (),
    tables: Mapping[str, Table] | None = None, overwrite: bool = False, advance: Advance = silent,
) -> Path:
    """Draw all figures, write them and the page into `folder`, and give back the path of the page.

    Everything is drawn before the first file is written, so a failure leaves an older report as it was.

    Parameters
    ----------
    results
        The run to show.
    session
        The session it belongs to; its images may lie on disk.
    source
        The session file as the user named it.
    folder
        Made if it is missing.
    others
        The other runs of the file, with which shared models of several sizes, and students of several tolerances, are compared.
    tables
        What was found out about its units (`nwb_interpretation.read_interpretation`): figures of all of them, and a page for each.
    overwrite
        Replace the report that is in `folder`; other files there are left alone.
    advance
        Told of each page.

    Raises
    ------
    NwbCompactError
        If `folder` holds something and `overwrite` is not given, or run and session do not belong together.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from nwb_compact.results import example_results
    >>> from nwb_compact.session import example_session
    >>> session = example_session()
    >>> with TemporaryDirectory() as folder:
    ...     page = write_report(example_results(session), session, "session.nwb", Path(folder) / "report")
    ...     page.name, len(list(page.parent.glob("figure_*.png")))
    ('index.html', 8)
    """
    folder = Path(folder)
    check_folder(folder, overwrite)
    found = tables or {}
    sections = [*draw_sections(results, session, others), *population_sections(results, found)]
    pages = {unit: page_name(results, unit) for unit in interpreted(found)}
    html = render_page(results, session, source, sections, pages)
    advance(1)
    measured = measured_means(session, results) if pages else np.empty((0, 0))
    of_units = {}
    for unit, name in pages.items():
        of_units[name] = render_unit_page(results, session, source, found, measured, unit)
        advance(1)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("figure_*.png"), *folder.glob("unit_*.html")):
        old.unlink()
    for name, text in of_units.items():
        (folder / name).write_text(text, encoding="utf-8")
    for picture in (picture for section in sections for picture in section.pictures):
        (folder / picture.file_name).write_bytes(picture.png)
    page = folder / PAGE
    page.write_text(html, encoding="utf-8")
    return page


def interpreted(tables: Mapping[str, Table]) -> list[int]:
    """Rows of the units that have a page of their own.

    Examples
    --------
    >>> interpreted({})
    []
    """
    return [int(unit) for unit in tables["preferences"]["unit"]] if "preferences" in tables else []


def check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that a report would overwrite unasked; called before anything is drawn.

    Raises
    ------
    NwbCompactError
        If `folder` is a file, or is not empty and `overwrite` is not given.

    Examples
    --------
    >>> check_folder(Path("no/such/folder"), overwrite=False)
    """
    filled = "name another with -o, or add --overwrite"
    require_new_folder(folder, overwrite=overwrite, if_file="name another folder with -o", if_filled=filled)


def draw_sections(results: Results, session: Session, others: Sequence[Results] = ()) -> list[Section]:
    """All figures with their captions, in the order of the page; at most 9 in high, so that each prints on one sheet.

    `others` are the other runs of the file.

    Examples
    --------
    >>> from nwb_compact.results import example_results
    >>> from nwb_compact.session import example_session
    >>> session = example_session()
    >>> [len(section.pictures) for section in draw_sections(example_results(session), session)]
    [2, 1, 1, 1, 1, 1, 1]
    """
    measured = measured_means(session, results)
    order = [int(unit) for unit in figures.order_by_accuracy(results)]
    answered = [unit for unit in order if np.isfinite(measured[:, unit]).any()] or order
    return [
        _accuracy(results),
        *_baselines(results),
        *_members(results, measured),
        *_shared([*others, results]),
        *_compression([*others, results]),
        _scores_by_unit(results, answered),
        _consolidation(results),
        _fits(results, measured, answered),
        _filters(results, order),
        _best_and_worst(results, session, measured, order),
    ]


def _accuracy(results: Results) -> Section:
    text = (
        "First: a point below the dashed line is a unit whose student lost accuracy against its teacher. Second: what that saves "
        "in parameters; small marks are units, large marks medians."
    )
    drawn = [
        ("figure_1_teacher_against_student.png", "Student r² against teacher r², one point a unit.", figures.plot_teacher_against_student),
        ("figure_2_accuracy_against_parameters.png", "r² against the number of parameters.", figures.plot_accuracy_against_parameters),
    ]
    if not np.isfinite(results.scores["teacher_r2"]).any() and np.isfinite(results.scores["student_r2"]).any():
        text = "The run has no answers of a teacher to compare the students with. Small marks are units, the large mark is their median."
        drawn = drawn[1:]
    return Section("Accuracy and size", text, tuple(_picture(name, alt, partial(plot, results), 3.6) for name, alt, plot in drawn))


def _baselines(results: Results) -> list[Section]:
    """Nothing where the run has none."""
    names = baselines_of(results.scores)
    if not names:
        return []
    meanings = "; ".join(f"{name}: {results.provenance.get(f'baseline.{name}', 'not recorded what it is')}" for name in names)
    text = (
        f"Plain models that were fitted on the same images and scored as teacher and students are ({meanings}). A point a unit, at the "
        "same place across in every column. An arrow head marks a value beyond the axis."
    )
    alt = f"Scores of teacher, student, {', '.join(names)}, a point a unit, with medians."
    return [Section("Beside baselines", text, (saved("figure_2b_beside_baselines.png", alt, models_figure(results, DOTS_PER_INCH)),))]


def _members(results: Results, measured: Float[np.ndarray, "image unit"]) -> list[Section]:
    """Nothing where the run has one member, or kept only their average."""
    if not has_members(results):
        return []
    text = (
        "What averaging the teacher's members gains: squares are the average of the first 1, 2, ... of them, the dot at n is member n by "
        "itself. r² on scored images is the median over the units of this run. Where r² on validation images is shown, it is what the fit "
        "wrote down, a mean over all sessions it trained on, lent ones too; these images chose the epoch, so it is slightly high. The two "
        "cannot be compared. The axes do not begin at 0."
    )
    alt = "r² of the average of the teacher's first members, against their number, and of each member."
    picture = saved("figure_2c_members.png", alt, members_figure(results, measured, DOTS_PER_INCH))
    return [Section("Members of the teacher", text, (picture,))]


def _shared(runs: Sequence[Results]) -> list[Section]:
    """Nothing where the file has no two shared models."""
    shown = shared_runs(runs)
    if not shown:
        return []
    text = (
        "Median over units of the students' score against the number K of filters in layer 1, for each run of this file whose students "
        "share all layers, with its 90 % interval (bootstrap over units). A line joins runs of one sweep; a ring is round the fewest "
        "filters whose score is at most 5 % below the best of the line. The axes do not begin at 0."
    )
    alt = "Score of shared models against their number of filters."
    plot = partial(plot_shared_models, shown)
    return [Section("Shared models", text, (_picture("figure_2d_shared_models.png", alt, plot, HEIGHT_IN, WIDTH_IN),))]


def _compression(runs: Sequence[Results]) -> list[Section]:
    """Nothing where the file has no two runs of one fit with several tolerances."""
    shown = compression_curves(runs)
    if not shown:
        return []
    text = (
        "Median over units of the students' score, with its 90 % interval (bootstrap over units), against their size. Of each unit "
        "it is the smallest student whose r² with the teacher, on images that students learn from, is below that of the unpruned network "
        "by at most the share that stands beside the point (the largest one where none is so good). The axis of scores does not begin at 0."
    )
    plot = partial(plot_compression, shown)
    picture = _picture("figure_2e_compression.png", "Score of students against their number of parameters.", plot, HEIGHT_IN, WIDTH_IN)
    return [Section("What pruning costs", text, (picture,))]


def _scores_by_unit(results: Results, order: Sequence[int]) -> Section:
    corrected = np.isfinite(results.scores["student_r2_er"][list(order)])
    text = "Noise-corrected r² of each unit, best first, with the student's 90 % interval. An arrow head marks a value beyond the axis."
    if not corrected.any():
        reason = next((results.reason[unit] for unit in order if results.reason[unit]), "no reason is stored")
        text = f"r² of each unit, best first. Noise-corrected r² and its interval cannot be shown for any unit: {reason}."
    elif not corrected.all():
        text += f" {(~corrected).sum()} of {len(corrected)} units have no such score and stand last, with the reason."
    pictures = [
        _picture(
            name, f"r² of {counted(len(part), 'unit')}.", partial(figures.plot_scores_by_unit, results, part),
            0.9 + figures.ROW_IN * len(part),
        )
        for name, part in _parts("figure_3_scores_by_unit", order, UNITS_A_FIGURE["scores"])
    ]
    return Section("Every unit", text, tuple(pictures))


def _consolidation(results: Results) -> Section:
    text = (
        "How many spatial filters (5 x 5 kernels; in layers 2 to 5 one for each map below) each student kept after pruning. The study "
        "found many in the first layers and few after the third (consolidation); what is seen here also depends on the sizes the fit "
        "started from, see the provenance."
    )
    plot = partial(figures.plot_filters_per_layer, results)
    picture = _picture("figure_4_filters_per_layer.png", "Filters kept in each layer, a line a unit.", plot, 3.0)
    return Section("Filters kept in each layer", text, (picture,))


def _fits(results: Results, measured: Float[np.ndarray, "image unit"], order: Sequence[int]) -> Section:
    text = (
        "The student's prediction against the repeat average, a point a scored image, in spikes in the counting window. Each unit has its "
        "own scale, the same on both axes; on the dashed line both agree. Best unit first; r² and noise-corrected r² (corr.) stand above."
    )
    if disagreement(results, []) is not None:
        text += (
            " The bar on top left is how far the teacher's members disagree: one SD over members to either side, the median over scored "
            "images. It bounds the model's uncertainty from below, since members can be wrong alike."
        )
    parts = _parts("figure_5_predicted_against_measured", order, UNITS_A_FIGURE["fits"])
    return Section("Predicted against measured", text, tuple(_fits_picture(name, results, measured, part) for name, part in parts))


@styled
def _fits_picture(name: str, results: Results, measured: Float[np.ndarray, "image unit"], units: Sequence[int]) -> Picture:
    columns = min(_FITS_A_ROW, len(units))
    rows = -(-len(units) // columns)
    size_in = (max(PAGE_IN * columns / _FITS_A_ROW, 1.9), _FIT_IN * rows + 0.3)
    figure = Figure(figsize=size_in, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, unit in zip(axes, units, strict=False):
        unit_figures.plot_predicted_against_measured(results, measured, unit, ax).set(xlabel="", ylabel="")
    for ax in axes[len(units) :]:
        ax.set_axis_off()
    figure.supxlabel("predicted, spikes", fontsize=7.5)
    figure.supylabel("measured, spikes", fontsize=7.5)
    return saved(name, f"Predicted against measured responses of {counted(len(units), 'unit')}.", figure)


def _filters(results: Results, order: Sequence[int]) -> Section:
    text = (
        f"The 5 × 5 colour filters of each student's first layer, largest norm first, at most {unit_figures.LARGEST_FILTERS} of them; the "
        "number at the end of a row says how many there are. Each is scaled by its own largest weight: grey is zero, brighter is positive, "
        "darker is negative in that colour. Best unit first."
    )
    pictures = []
    for name, part in _parts("figure_6_first_layer_filters", order, UNITS_A_FIGURE["filters"]):
        plot = partial(unit_figures.plot_first_layer_filters, results, part)
        alt = f"First-layer filters of {counted(len(part), 'unit')}."
        pictures.append(_picture(name, alt, plot, unit_figures.filters_height_in(len(part)), PAGE_IN))
    return Section("Filters of the first layer", text, tuple(pictures))


def _best_and_worst(results: Results, session: Session, measured: Float[np.ndarray, "image unit"], order: Sequence[int]) -> Section:
    heading = "Best and worst images"
    if session.images.pixels is None:
        return Section(heading, "The file keeps only the hashes of its images, not their pixels, so there are no pictures to show.")
    text = (
        "Among the images that the fit used, those for which each student predicts the strongest (left) and the weakest (right) response. "
        "Below each: predicted | measured, spikes in the counting window; an asterisk marks images that no model was fitted on. "
        "Best unit first."
    )
    pictures = []
    for name, part in _parts("figure_7_best_and_worst_images", order, UNITS_A_FIGURE["images"]):
        plot = partial(unit_figures.plot_best_and_worst_images, results, session.images.pixels, measured, part)
        alt = f"Images with the strongest and the weakest predicted response of {counted(len(part), 'unit')}."
        pictures.append(_picture(name, alt, plot, unit_figures.images_height_in(len(part)), PAGE_IN))
    return Section(heading, text, tuple(pictures))


def _parts(stem: str, order: Sequence[int], most: int) -> list[tuple[str, tuple[int, ...]]]:
    parts = chunks(order, most)
    return [(f"{stem}.png" if len(parts) == 1 else f"{stem}_{k}.png", part) for k, part in enumerate(parts, 1)]


@styled
def _picture(name: str, alt: str, plot: Callable[[Axes], Axes], height_in: float, width_in: float = COLUMN_IN) -> Picture:
    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, layout="constrained")
    plot(figure.subplots())
    return saved(name, alt, figure)
