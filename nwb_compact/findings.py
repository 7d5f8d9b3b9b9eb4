"""What is found out about the units of a run: the stages of `interpret`, from students and images to tables.

`interpretation_of` reads like the methods section: where a unit looks, what it prefers, how its network consolidates, which filters carry
its tuning, which images drive and silence it, how robust all that is, and what its teacher says to it.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from threadpoolctl import threadpool_limits

from nwb_compact.config import Interpret
from nwb_compact.errors import counted
from nwb_compact.image_pool import ImagePool
from nwb_compact.images import is_grey
from nwb_compact.interpretation.ablation import ablate
from nwb_compact.interpretation.circuit import smallest_circuit
from nwb_compact.interpretation.consolidation import consolidation, drop_test
from nwb_compact.interpretation.early_filters import early_filters
from nwb_compact.interpretation.field_maps import field_maps
from nwb_compact.interpretation.kept import kept
from nwb_compact.interpretation.made_images import made_images
from nwb_compact.interpretation.natural_extremes import natural_extremes
from nwb_compact.interpretation.near_pairs import near_pairs
from nwb_compact.interpretation.physiology import probe_table, probed, tuning
from nwb_compact.interpretation.preference import preferences
from nwb_compact.interpretation.receptive_field import NEAR_PX, Answers, receptive_fields
from nwb_compact.interpretation.robustness import LEVELS, robustness
from nwb_compact.interpretation.scrambling import structure
from nwb_compact.interpretation.similarity import early_late_test, output_similarity, similarity
from nwb_compact.interpretation.stimuli import DOT_PX, Stimulus, battery, drawn
from nwb_compact.interpretation.tables import UNIT, Column, Table, Tables, stacked
from nwb_compact.interpretation.teacher_answers import Members, agreement, answer_table, asked_about
from nwb_compact.interpretation.vone_student import vone_student
from nwb_compact.progress import Advance, stage
from nwb_compact.results import StudentWeights
from nwb_compact.student import filters_per_layer, predict_all
from nwb_compact.training import derived_seed
from nwb_compact.work import Work

N_CHANGES = 1 + sum(map(len, LEVELS.values()))
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
    learned: Integer[np.ndarray, "learned"]
    """Rows of the different images that models learned from; none, where the run has no scored side."""
    measured: Float[np.ndarray, "image chosen"]
    """Repeat averages of the responses, NaN where there is none and, where the run has no scored side, everywhere."""
    own_rows: Integer[np.ndarray, "own"]
    """Row in the session of each of the first images of the pool, which holds every image once."""
    pool: ImagePool
    """Natural images among which the strongest and weakest are sought."""
    predicted: Float[np.ndarray, "image chosen member"]
    """What each member of the teacher answers to the images of the session; its average alone, where the run keeps no more."""
    seed: int
    teacher: Members | None
    """What the teacher answers for these units to any images, where it can be asked."""
    vone_degrees: float | None
    """Width of the images in degrees of visual angle, where a model behind a fixed V1 is to be compared."""

    def answers(self, images: UInt8[np.ndarray, "image 112 112 3"], units: Sequence[int]) -> Float[np.ndarray, "image some"]:
        """A `receptive_field.Answers`: what some of the chosen units' students answer."""
        return predict_all([self.students[unit] for unit in units], images).astype(np.float64)

    def any_images(self, n: int, purpose: str) -> Integer[np.ndarray, "drawn"]:
        """Rows of at most `n` different images of the session, drawn by the seed, in their order."""
        return self.some(self.own_rows, n, purpose)

    @cached_property
    def is_grey(self) -> bool:
        """Whether the session has no image in colour, so that nothing can be known of colours."""
        return bool(is_grey(self.images).all())

    def seed_of(self, purpose: str) -> int:
        """Source of randomness for one purpose, small enough for every generator."""
        return derived_seed(self.seed, purpose) % 2**31

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
    found |= done("robustness", N_CHANGES, lambda advance: _robustness(subject, settings, advance))
    if subject.teacher is not None:
        found |= done("teacher", n_units + N_CHANGES, partial(_teacher, subject.teacher, subject, settings, found))
    if subject.vone_degrees is not None:
        found |= done("model behind V1", 1 + N_CHANGES, partial(_vone, subject.vone_degrees, subject, settings))
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
    seed = subject.seed_of("made images")

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
    def predicted(rows: Integer[np.ndarray, "some"]) -> Float[np.ndarray, "some chosen"]:
        return subject.answers(subject.images[rows], range(len(subject.students)))

    return _robust(subject, settings, predicted, subject.answers, "student", advance)


def _teacher(members: Members, subject: Subject, settings: Interpret, found: Mapping[str, Table], advance: Advance) -> Tables:
    """The same stimuli, images and changes, shown to the teacher."""

    def answers(images: UInt8[np.ndarray, "image 112 112 3"], units: Sequence[int]) -> Float[np.ndarray, "image some"]:
        return members(images).mean(axis=0)[:, units].astype(np.float64)

    average = subject.predicted.mean(axis=2)
    robust = _robust(subject, settings, average.__getitem__, answers, "teacher", advance)
    stimuli, made, natural = battery(), found["made_images"], found["natural_images"]
    probes = probed(answers, found["receptive_fields"], stimuli, advance=advance)
    to_made = asked_about(members, made["image"], made[UNIT])
    own, of_students = natural["row"] >= 0, found["probes"]["student"].astype(np.float64)
    to_natural = np.where(own[:, None], subject.predicted[natural["row"], natural[UNIT]], np.nan)
    return {
        "teacher_probes": probe_table(stimuli, probes, model="teacher"), "teacher_tuning": tuning(stimuli, probes, model="teacher"),
        "teacher_made_images": answer_table(made[UNIT], to_made, "made_images"),
        "teacher_natural_images": answer_table(natural[UNIT], to_natural, "natural_images"),
        "teacher_agreement": agreement(made, to_made.mean(axis=1), average, subject.own_rows, (of_students, probes)),
        **{f"teacher_{name}": table for name, table in robust.items()},
    }


def _vone(visual_degrees: float, subject: Subject, settings: Interpret, advance: Advance) -> Tables:
    learned, seed = subject.learned, subject.seed_of("vone")
    taught = subject.predicted[learned].mean(axis=2)
    answers, n_parameters = vone_student(subject.images[learned], taught, settings, visual_degrees=visual_degrees, seed=seed)
    advance(1)
    found = _on_changed(subject, min(settings.vone_images, settings.robustness_images), answers, "model behind a fixed V1", advance)
    how = f"it learned {n_parameters:,} numbers for all units from {counted(len(learned), 'image')}"
    return {"vone_robustness": Table(f"{found.description}; {how}", found.columns)}


# Parts that stages share --------------------------------------------------------------------------------------------------


def _robust(
    subject: Subject, settings: Interpret, predicted: Callable[[np.ndarray], np.ndarray], answers: Answers, model: str, advance: Advance
) -> dict[str, Table]:
    """`predicted` gives what a model answers to rows of the session's images, which of the teacher is known already."""
    paired, seed = subject.some(subject.scored, settings.paired_images, "pairs"), subject.seed_of("robustness")
    return {
        "robustness": _on_changed(subject, settings.robustness_images, answers, model, advance),
        "near_pairs": near_pairs(predicted(paired), subject.measured[paired], subject.images[paired], seed=seed, model=model),
    }


def _on_changed(subject: Subject, n_images: int, answers: Answers, model: str, advance: Advance) -> Table:
    rows, n_units = subject.some(subject.scored, n_images, "robustness"), len(subject.students)
    images, measured = subject.images[rows], subject.measured[rows]
    return robustness(answers, n_units, images, measured, seed=subject.seed_of("robustness"), model=model, advance=advance)


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
