"""What each neuron of a run computes, asked of its student and its teacher, and written into the run.

The questions are in `findings`. Every stage is kept in a work folder until the end.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
from jaxtyping import Integer

from nwb_compact.backbones import OURS
from nwb_compact.config import Interpret, flat, interpretation
from nwb_compact.errors import NwbCompactError, counted, nearest
from nwb_compact.findings import Subject, interpretation_of
from nwb_compact.first_calls import settle_first_calls
from nwb_compact.image_pool import image_pool
from nwb_compact.images import as_rgb, distinct_rows
from nwb_compact.interpretation.image_export import export_images
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.interpretation.teacher_answers import Members
from nwb_compact.kept_teacher import kept_teacher, visual_degrees
from nwb_compact.measured import measured_means
from nwb_compact.memory import keep_freed_memory
from nwb_compact.new_folder import require_new_folder
from nwb_compact.nwb_interpretation import read_interpretation, write_interpretation
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import open_session
from nwb_compact.provenance import command_line, program, world
from nwb_compact.results import Results, are_same_students
from nwb_compact.safe_write import require_writable
from nwb_compact.several_values import SeveralValues
from nwb_compact.work import Work, images_folder, work_folder

FEWEST_LEARNED = 10
"""Images that a model behind a fixed V1 may learn from."""


@click.command("interpret", cls=SeveralValues)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--run", "run_id", metavar="RUN_ID", help="Which fit to interpret; default: the last one.")
@click.option("--units", multiple=True, metavar="UNIT ...", help="Only these units; default: all.")
@click.option("--replace", "replaces", is_flag=True, help="With --units: drop what is known of the other units.")
@click.option("--images", multiple=True, type=click.Path(path_type=Path), help="Folder, zip, tar or session file of images to search.")
@click.option("--export", "export_to", type=click.Path(path_type=Path), metavar="DIR", help="Also write made images as PNG, and a table.")
@click.option("--backbone", metavar="NAME", help=f"Of the teacher, as in fit; needed where it is not {' or '.join(OURS)}.")
@click.option("--vone", is_flag=True, help="Also train a model behind a fixed V1, to compare its robustness; minutes.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file of settings, see docs/configuration.md.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Source of all randomness.")
@click.option("--resume", is_flag=True, help="Go on with the same interpretation where it was stopped.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    file: Path, run_id: str | None, units: tuple[str, ...], replaces: bool, images: tuple[Path, ...], export_to: Path | None,
    backbone: str | None, vone: bool, config_file: Path | None, seed: int, resume: bool, quiet: bool,
) -> None:
    """Find out what each fitted neuron of FILE computes and write it into the same run."""
    keep_freed_memory()
    settle_first_calls()
    settings = interpretation(config_file)
    require_writable(file)
    if export_to is not None:
        require_new_folder(export_to, overwrite=False)
    runs = read_results(file, run_id, with_teacher=True)
    if not runs:
        raise NwbCompactError(file, found="no fitted run", expected="at least one", next_step=f"run 'nwb-compact fit {file}' first")
    results = runs[-1]
    rows = _rows(results, units)
    if units and not replaces:
        _require_none_lost(file, results, rows)
    teacher, not_asked = _teacher_of(results, rows, backbone)
    subject = _subject(file, results, rows, images, seed, quiet, teacher, visual_degrees(results.provenance) if vone else None)
    decisive = [results.run_id, _digest(subject, results), repr(settings), seed, subject.pool.sha256, program()]
    with work_folder(file, ["interpret", *decisive], resume=resume, what="interpretation") as folder:
        work = Work("cpu", folder, quiet)
        for line in not_asked:  # before the long work, which one may want to stop then
            click.echo(f"{file}: {line}")
        found = interpretation_of(subject, settings, work)
        found["provenance"] = _provenance(subject, settings)
        _require_unchanged(file, results)
        write_interpretation(found, file, results.run_id)
        if export_to is not None:
            export_images(export_to, _with_teacher(found), results.unit_name)
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


def _require_unchanged(file: Path, results: Results) -> None:
    """Stop where a fit has replaced the run meanwhile: what was found is not of its students."""
    if not are_same_students(read_results(file, results.run_id)[0].students, results.students):
        found, expected = f"other students in run {results.run_id} than when this began", "those that were interpreted"
        raise NwbCompactError(file, found=found, expected=expected, next_step="interpret it again")


def _with_teacher(found: Mapping[str, Table]) -> Table:
    """The made images with what the teacher and its members answer to them, where it was asked."""
    made, teacher = found["made_images"], found.get("teacher_made_images")
    if teacher is None:
        return made
    members = {f"teacher_member_{n}": Column("of this member", of_one) for n, of_one in enumerate(teacher["members"].T, start=1)}
    return Table(made.description, {**made.columns, "teacher_answer": teacher.columns["answer"], **members})


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


def _require_none_lost(file: Path, results: Results, rows: np.ndarray) -> None:
    """What is found takes the place of all that was found before, so that one seed and one set of images are behind a run's tables."""
    before = read_interpretation(file, results.run_id).get("receptive_fields")
    lost = [] if before is None else sorted(set(before[UNIT].tolist()) - set(rows.tolist()))
    if lost:
        found = f"an interpretation of {counted(len(lost), 'other unit')} ({results.unit_name[lost[0]]}, ...), which would be dropped"
        next_step = "name these units too, leave --units out, or give --replace"
        raise NwbCompactError("--units", found=found, expected=f"all that run {results.run_id} tells of", next_step=next_step)


def _teacher_of(results: Results, rows: np.ndarray, backbone: str | None) -> tuple[Members | None, list[str]]:
    """The teacher's answers for some units of the run; None and a line why, where it cannot be asked."""
    try:
        teacher = kept_teacher(results, backbone)
    except NwbCompactError as error:
        if backbone is not None:
            raise
        return None, [f"the teacher is not asked: {error}"]
    return lambda images: teacher.members(images)[:, :, rows].astype(np.float64), []


def _subject(
    file: Path, results: Results, rows: np.ndarray, places: Sequence[Path], seed: int, quiet: bool, teacher: Members | None,
    vone_degrees: float | None,
) -> Subject:
    with open_session(file) as session:
        if session.images.pixels is None:
            next_step = "convert the session with its images"
            raise NwbCompactError(file, found="hashes instead of images", expected="pixels to show students", next_step=next_step)
        pixels, measured = as_rgb(session.images.pixels), measured_means(session, results)
        shown = np.flatnonzero(session.images.is_picture)
    scored, learned = (np.flatnonzero(np.isin(results.side, sides)) for sides in (("scored",), ("fit", "validation")))
    if not len(scored):
        measured, scored, learned = np.full_like(measured, np.nan), shown, learned[:0]
    learned = learned[distinct_rows(pixels[learned])]
    if vone_degrees is not None and len(learned) < FEWEST_LEARNED:
        raise NwbCompactError("--vone", found=f"{counted(len(learned), 'image')} that a model may learn from",
                              expected=f"at least {FEWEST_LEARNED}", next_step="leave --vone out")
    pictures = pixels[shown]
    pool = image_pool(pictures, pixels[:0], places, images_folder(file), quiet=quiet)
    students = tuple(results.students[row] for row in rows)
    members = results.teacher_member_prediction
    predicted = (results.teacher_prediction[:, :, None] if members is None else members)[:, rows].astype(np.float64)
    own_rows = shown[distinct_rows(pictures)]
    return Subject(rows, students, pixels, scored, learned, measured[:, rows], own_rows, pool, predicted, seed, teacher, vone_degrees)


def _digest(subject: Subject, results: Results) -> str:
    """Identity of the models and of what was measured."""
    digest = sha256(np.ascontiguousarray(subject.measured).tobytes() + subject.scored.tobytes() + subject.learned.tobytes())
    digest.update(subject.predicted.tobytes() + repr(subject.vone_degrees).encode())
    teacher = () if subject.teacher is None or results.teacher is None else (results.teacher.arrays,)
    for arrays in (*(student.arrays for student in subject.students), *teacher):
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
