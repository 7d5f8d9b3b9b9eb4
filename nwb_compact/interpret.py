"""What each neuron of a run computes, asked of its student, and written into the run.

`interpretation_of` reads like the methods section: where a unit looks, what it prefers, how its network consolidates, which filters carry
its tuning, which images drive and silence it, and how robust all that is. Every stage is kept in a work folder until the end.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from threadpoolctl import threadpool_limits

from nwb_compact import __version__
from nwb_compact.config import Interpret, flat, interpretation
from nwb_compact.errors import NwbCompactError, counted, nearest
from nwb_compact.image_pool import ImagePool, image_pool
from nwb_compact.images import as_rgb, distinct_rows, is_grey
from nwb_compact.interpretation.ablation import ablate
from nwb_compact.interpretation.circuit import smallest_circuit
from nwb_compact.interpretation.consolidation import consolidation, drop_test
from nwb_compact.interpretation.early_filters import early_filters
from nwb_compact.interpretation.field_maps import field_maps
from nwb_compact.interpretation.image_export import export_images
from nwb_compact.interpretation.kept import Tables, kept
from nwb_compact.interpretation.made_images import made_images
from nwb_compact.interpretation.natural_extremes import natural_extremes
from nwb_compact.interpretation.near_pairs import near_pairs
from nwb_compact.interpretation.physiology import probe_table, probed, tuning
from nwb_compact.interpretation.preference import preferences
from nwb_compact.interpretation.receptive_field import NEAR_PX, receptive_fields
from nwb_compact.interpretation.robustness import LEVELS, robustness
from nwb_compact.interpretation.scrambling import structure
from nwb_compact.interpretation.similarity import early_late_test, output_similarity, similarity
from nwb_compact.interpretation.stimuli import DOT_PX, Stimulus, battery, drawn
from nwb_compact.interpretation.tables import UNIT, Column, Table, stacked
from nwb_compact.measured import measured_means
from nwb_compact.memory import keep_freed_memory
from nwb_compact.new_folder import require_new_folder
from nwb_compact.nwb_interpretation import write_interpretation
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import open_session
from nwb_compact.progress import Advance, stage
from nwb_compact.provenance import command_line, world
from nwb_compact.results import Results, StudentWeights
from nwb_compact.safe_write import require_writable
from nwb_compact.several_values import SeveralValues
from nwb_compact.student import filters_per_layer, predict_all
from nwb_compact.training import derived_seed
from nwb_compact.work import Work, images_folder, work_folder

START = "image of the session that it started from, as in its table of images"


@dataclass(frozen=True, eq=False)
class Subject:
    """The units to be interpreted, and images to do it with."""

    units: Integer[np.ndarray, "chosen"]
    """Rows of the run."""
    students: tuple[StudentWeights, ...]
    """Of these units."""
    images: UInt8[np.ndarray, "image 112 112 3"]
    """Of the session."""
    scored: Integer[np.ndarray, "scored"]
    """Rows of images that no model learned from; all, where the run has no such side."""
    measured: Float[np.ndarray, "image chosen"]
    """Repeat averages of the responses, NaN where there is none and, where the run has no scored side, everywhere."""
    own_rows: Integer[np.ndarray, "own"]
    """Row in the session of each of the first images of the pool, which holds every image once."""
    pool: ImagePool
    """Natural images among which the strongest and weakest are sought."""
    seed: int

    def answers(self, images: UInt8[np.ndarray, "image 112 112 3"], units: Sequence[int]) -> Float[np.ndarray, "image some"]:
        """A `receptive_field.Answers`: what some of the chosen units' students answer."""
        return predict_all([self.students[unit] for unit in units], images).astype(np.float64)

    def any_images(self, n: int, purpose: str) -> Integer[np.ndarray, "drawn"]:
        """Rows of at most `n` images of the session, drawn by the seed, in their order."""
        return self.some(np.arange(len(self.images)), n, purpose)

    @cached_property
    def is_grey(self) -> bool:
        """Whether the session has no image in colour, so that nothing can be known of colours."""
        return bool(is_grey(self.images).all())

    def some(self, rows: Integer[np.ndarray, "row"], n: int, purpose: str) -> Integer[np.ndarray, "drawn"]:
        """At most `n` of some rows, drawn by the seed, in their order."""
        drawn_rows = np.random.default_rng(derived_seed(self.seed, purpose)).permutation(rows)[:n]
        return np.sort(drawn_rows)


def interpretation_of(subject: Subject, settings: Interpret, work: Work) -> dict[str, Table]:
    """Everything that is found out about the units, as tables by name.

    Parameters
    ----------
    subject
        Units and images.
    settings
        Of the made images.
    work
        Where finished stages are kept, and how loudly.

    Returns
    -------
    Tables whose column `unit` holds rows of the run.
    """
    n_units = len(subject.students)

    def done(name: str, total: int, make: Callable[[Advance], Tables]) -> dict[str, Table]:
        def with_progress() -> Tables:
            with stage(name, total, quiet=work.quiet) as advance:
                return make(advance)

        return kept(work.path(f"{name}.npz"), with_progress)

    natural = subject.images[subject.any_images(settings.similarity_images, "natural")]
    found = done("receptive fields", 1, lambda advance: _fields(subject, settings, advance))
    fields = found["receptive_fields"]
    found |= done("physiology", n_units, lambda advance: _physiology(subject, settings, fields, advance))
    found |= done("consolidation", n_units, lambda advance: _consolidation(subject, natural, advance))
    found |= done("filters", 1, lambda advance: _filters(subject, advance))
    found |= done("ablation", n_units, lambda advance: _ablation(subject, settings, fields, found["tuning"], advance))
    found |= done("images", n_units, lambda advance: _images(subject, settings, advance))
    found |= done("natural images", len(subject.pool), lambda advance: _extremes(subject, settings, advance))
    found |= done("robustness", 1 + sum(map(len, LEVELS.values())), lambda advance: _robustness(subject, settings, advance))
    return {name: _in_the_run(table, subject.units) for name, table in found.items()}


# Stages, in the order of use --------------------------------------------------------------------------------------------


def _fields(subject: Subject, settings: Interpret, advance: Advance) -> Tables:
    rows = subject.any_images(settings.field_images, "covered")
    fields = receptive_fields(subject.answers, len(subject.students), subject.images[rows])
    advance(1)
    return {"receptive_fields": fields, "field_maps": field_maps(subject.students, subject.images[rows])}


def _physiology(subject: Subject, settings: Interpret, fields: Table, advance: Advance) -> Tables:
    stimuli = battery()
    answers = probed(subject.answers, fields, stimuli, advance=advance)
    tuned = tuning(stimuli, answers)
    rows, seed = subject.any_images(settings.scrambled_images, "scrambled"), derived_seed(subject.seed, "phases")
    return {
        "probes": probe_table(stimuli, answers), "tuning": tuned,
        "preferences": preferences(stimuli, answers, tuned, coloured=not subject.is_grey),
        "structure": structure(subject.answers, fields, subject.images[rows], seed=seed),
    }


def _consolidation(subject: Subject, natural: np.ndarray, advance: Advance) -> Tables:
    filters = np.stack([filters_per_layer(student) for student in subject.students])
    seed = derived_seed(subject.seed, "permutations")
    similar = similarity(subject.students, natural, advance=advance)
    return {
        "consolidation": consolidation(filters), "consolidation_test": drop_test(filters, seed=seed),
        "similarity": similar, "similarity_test": early_late_test(similar, seed=seed),
        "output_similarity": output_similarity(subject.answers(natural, range(len(subject.students)))),
    }


def _filters(subject: Subject, advance: Advance) -> Tables:
    filters, clusters = early_filters(subject.students)
    advance(1)
    return {"early_filters": filters, "early_filter_clusters": clusters}


def _ablation(subject: Subject, settings: Interpret, fields: Table, tuned: Table, advance: Advance) -> Tables:
    """Of each unit: silenced filters, and the circuit that its dot-size curve needs."""
    rows = subject.some(subject.scored, settings.ablation_images, "ablation")

    def of(unit: int) -> dict[str, Table]:
        student, dots = subject.students[unit], size_curve(fields, tuned, unit)
        circuit = smallest_circuit(student, dots)
        return {
            "ablation": ablate(student, subject.images[rows], subject.measured[rows, unit], dots),
            "circuit_filters": circuit.filters, "circuit_connections": circuit.connections, "circuits": circuit.summary,
        }

    return side_by_side(of, len(subject.students), advance)


def _images(subject: Subject, settings: Interpret, advance: Advance) -> Tables:
    rows = subject.any_images(settings.start_images, "starts")
    seed = derived_seed(subject.seed, "made images") % 2**31

    def of(unit: int) -> dict[str, Table]:
        made, alike = made_images(subject.students[unit], subject.images[rows], settings, seed=seed)
        start = Column(f"{START}; -1: noise", np.where(made["start_row"] < 0, -1, rows[made["start_row"]]))
        return {"made_images": Table(made.description, {**made.columns, "start_row": start}), "made_image_similarity": alike}

    return side_by_side(of, len(subject.students), advance)


def _extremes(subject: Subject, settings: Interpret, advance: Advance) -> Tables:
    extremes, spread = natural_extremes(subject.students, subject.pool, settings.extremes, advance=advance)
    row, names = extremes["row"], np.array(subject.pool.names(extremes["row"]))
    is_own = (row >= 0) & (row < len(subject.own_rows))
    own = np.where(is_own, subject.own_rows[np.where(is_own, row, 0)], -1)
    where = {
        "row": Column("row of the image in the session; -1: an image from elsewhere, or none, where the student answers all alike", own),
        "file": Column("where an image from elsewhere lies, as place:name in it", names),
    }
    return {"natural_images": Table(extremes.description, {**extremes.columns, **where}), "natural_answers": spread}


def _robustness(subject: Subject, settings: Interpret, advance: Advance) -> Tables:
    rows, n_units = subject.some(subject.scored, settings.robustness_images, "robustness"), len(subject.students)
    seed = derived_seed(subject.seed, "robustness") % 2**31
    found = robustness(subject.answers, n_units, subject.images[rows], subject.measured[rows], seed=seed, advance=advance)
    paired = subject.some(subject.scored, settings.paired_images, "pairs")
    answers = subject.answers(subject.images[paired], range(n_units))
    return {"robustness": found, "near_pairs": near_pairs(answers, subject.measured[paired], subject.images[paired], seed=seed)}


# Parts that stages share --------------------------------------------------------------------------------------------------


def size_curve(fields: Table, tuned: Table, unit: int) -> UInt8[np.ndarray, "stimulus 112 112 3"]:
    """The blank screen, then dots of growing diameter in the unit's preferred polarity, where it looks."""
    place = np.nan_to_num([fields["rf_row_px"][unit], fields["rf_column_px"][unit]])
    polarity = tuned["dot_polarity"][unit]
    dots = [Stimulus("dot", size_px=size, polarity=1.0 if np.isnan(polarity) else float(polarity)) for size in DOT_PX]
    return drawn([Stimulus("blank"), *dots], *(np.rint(place / NEAR_PX) * NEAR_PX).tolist())


def side_by_side(of: Callable[[int], Mapping[str, Table]], n_units: int, advance: Advance) -> dict[str, Table]:
    """Tables of all units, made of one unit a thread: a single small network cannot keep several busy."""

    def one(unit: int) -> dict[str, Table]:
        tables = {name: of_unit(table, unit) for name, table in of(unit).items()}
        advance(1)
        return tables

    with ThreadPoolExecutor(torch.get_num_threads(), initializer=lambda: threadpool_limits(1, user_api="openmp")) as threads:
        found = list(threads.map(one, range(n_units)))
    return {name: stacked(tables[name] for tables in found) for name in found[0]}


def of_unit(table: Table, unit: int) -> Table:
    """The same rows as those of one unit.

    Examples
    --------
    >>> of_unit(Table("dots", {"size_px": Column("diameter, pixels", np.array([4.0, 8.0]))}), 3)["unit"]
    array([3, 3])
    """
    others = {name: column for name, column in table.columns.items() if name != UNIT}
    return Table(table.description, {UNIT: Column("row of the unit in the run", np.full(len(table), unit)), **others})


def _in_the_run(table: Table, units: Integer[np.ndarray, "chosen"]) -> Table:
    if UNIT not in table.columns:
        return table
    return Table(table.description, {**table.columns, UNIT: Column(table.columns[UNIT].meaning, units[table[UNIT]])})


# The command ------------------------------------------------------------------------------------------------------------


@click.command("interpret", cls=SeveralValues)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", "run_id", metavar="RUN_ID", help="Which fit to interpret; default: the last one.")
@click.option("--units", multiple=True, metavar="UNIT ...", help="Only these units; default: all.")
@click.option("--images", multiple=True, type=click.Path(path_type=Path), help="Folder, zip, tar or session file of images to search.")
@click.option("--export", "export_to", type=click.Path(path_type=Path), metavar="DIR", help="Also write made images as PNG, and a table.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings, see docs/configuration.md.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Source of all randomness.")
@click.option("--resume", is_flag=True, help="Go on with the same interpretation where it was stopped.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    file: Path, run_id: str | None, units: tuple[str, ...], images: tuple[Path, ...], export_to: Path | None,
    config_file: Path | None, seed: int, resume: bool, quiet: bool,
) -> None:
    """Find out what each fitted neuron of FILE computes and write it into the same run."""
    keep_freed_memory()
    settings = interpretation(config_file)
    require_writable(file)
    if export_to is not None:
        require_new_folder(export_to, overwrite=False)
    runs = read_results(file, run_id)
    if not runs:
        raise NwbCompactError(file, found="no fitted run", expected="at least one", next_step=f"run 'nwb-compact fit {file}' first")
    results = runs[-1]
    subject = _subject(file, results, _rows(results, units), images, seed, quiet)
    decisive = [results.run_id, _digest(subject), repr(settings), seed, subject.pool.sha256, __version__]
    with work_folder(file, ["interpret", *decisive], resume=resume) as folder:
        work = Work("cpu", folder, quiet)
        found = interpretation_of(subject, settings, work)
        found["provenance"] = _provenance(subject, settings)
        write_interpretation(found, file, results.run_id)
        if export_to is not None:
            export_images(export_to, found["made_images"], results.unit_name)
        work.remove()
    for line in left_out(found, results, subject):
        click.echo(f"{file}: {line}")
    click.echo(f"{file}: run {results.run_id}, {summary(found)}")


def summary(found: Mapping[str, Table]) -> str:
    """One line on what was found.

    Examples
    --------
    >>> labels = Column("label", np.array(["dot", "edge", "dot"]))
    >>> summary({"preferences": Table("", {"preference": labels})})
    '3 units interpreted: 2 dot, 1 edge'
    """
    labels, n = np.unique(found["preferences"]["preference"], return_counts=True)
    most_first = sorted(zip(-n, labels, strict=True))
    return f"{counted(len(found['preferences']), 'unit')} interpreted: " + ", ".join(f"{-n} {name}" for n, name in most_first)


def left_out(found: Mapping[str, Table], results: Results, subject: Subject) -> list[str]:
    """What could not be found out, a line each."""
    lines, silent = [], ~np.isfinite(found["receptive_fields"]["rf_diameter_px"])
    if silent.any():
        names = ", ".join(results.unit_name[unit] for unit in found["receptive_fields"][UNIT][silent])
        lines.append(f"no image moves the answers of {names}: they are in the tables, without findings")
    if "scored" not in results.side:
        lines.append("no image is scored, so nothing is compared with measured responses")
    if subject.is_grey:
        lines.append("the images of the session are grey, so nothing is said of colour")
    return lines


def _provenance(subject: Subject, settings: Interpret) -> Table:
    """How the tables were made, so that the same command makes them again."""
    natural = f"{len(subject.pool)} sha256:{subject.pool.sha256}"
    facts = world(command_line("interpret")) | {"seed": str(subject.seed), "units": str(len(subject.students)), "natural_images": natural}
    facts |= {f"setting.{name}": value for name, value in flat(settings).items()}
    return Table("how these tables were made", {
        "key": Column("what", np.array(list(facts))), "value": Column("which", np.array(list(facts.values()))),
    })


def _rows(results: Results, units: Sequence[str]) -> Integer[np.ndarray, "chosen"]:
    names = list(results.unit_name)
    for unit in units:
        if unit not in names:
            found, expected = f"no unit '{unit}'", f"units of run {results.run_id}"
            raise NwbCompactError("--units", found=found, expected=expected, next_step=nearest(unit, names))
    chosen = sorted({names.index(unit) for unit in units}) if units else range(len(names))
    return np.array(list(chosen), dtype=np.int64)


def _subject(file: Path, results: Results, rows: np.ndarray, places: Sequence[Path], seed: int, quiet: bool) -> Subject:
    with open_session(file) as session:
        if session.images.pixels is None:
            next_step = "convert the session with its images"
            raise NwbCompactError(file, found="hashes instead of images", expected="pixels to show students", next_step=next_step)
        pixels, measured = as_rgb(session.images.pixels), measured_means(session, results)
    pool = image_pool(pixels, pixels[:0], places, images_folder(file), quiet=quiet)
    scored = np.flatnonzero(np.array(results.side) == "scored")
    if not len(scored):
        measured, scored = np.full_like(measured, np.nan), np.arange(len(pixels))
    students = tuple(results.students[row] for row in rows)
    return Subject(rows, students, pixels, scored, measured[:, rows], distinct_rows(pixels), pool, seed)


def _digest(subject: Subject) -> str:
    """Identity of the students and of what was measured."""
    digest = sha256(np.ascontiguousarray(subject.measured).tobytes() + subject.scored.tobytes())
    for student in subject.students:
        for name in sorted(student.arrays):
            digest.update(name.encode() + np.ascontiguousarray(student.arrays[name]).tobytes())
    return digest.hexdigest()
