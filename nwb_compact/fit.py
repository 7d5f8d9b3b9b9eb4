"""The method, from session files to results in them; also `python -m nwb_compact.fit`.

`fit_sessions` reads like the methods section: features, teacher, lessons, students, scores. What takes long is kept in a work folder, so
a fit that was killed goes on where it stopped and ends with the same scores (see `work`).
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from nwb_compact import baselines, config
from nwb_compact.address import FETCH, FILE_OR_ADDRESS, UPLOAD, Address, require_path
from nwb_compact.backbones import FORMS, Backbone, frozen_backbone
from nwb_compact.check import require_sound
from nwb_compact.config import PRESETS, Fit, configure
from nwb_compact.distill import Lessons, asked, lessons, n_views
from nwb_compact.errors import NwbCompactError
from nwb_compact.feature_cache import default_cache_folder
from nwb_compact.file_teacher import FileTeacher, teacher_of, teaching_run
from nwb_compact.fit_data import SessionData, own_pixels, read_sessions, scored_pixels, teacher_sessions
from nwb_compact.image_pool import ImagePool, image_pool
from nwb_compact.layer_choice import choose_layer, sample
from nwb_compact.memory import keep_freed_memory
from nwb_compact.nwb_results import read_results, require_place, run_ids, write_results
from nwb_compact.nwb_session import open_session
from nwb_compact.oracle import FileTeachers, Oracle, OwnTeacher, seen_by
from nwb_compact.progress import stage
from nwb_compact.provenance import command_line, input_hash, program, record
from nwb_compact.responses import responses_of
from nwb_compact.results import Results, StudentWeights, TeacherWeights, are_same_students, headline
from nwb_compact.safe_write import require_writable
from nwb_compact.scoring import Predictions, score_units
from nwb_compact.several_values import SeveralValues
from nwb_compact.student import ARCHITECTURE, filters_per_layer, n_parameters, predict_all
from nwb_compact.students import fit_students, shared_shape
from nwb_compact.sweep import joined, run_names, sweep, tolerance_name
from nwb_compact.teacher import Teacher, all_epochs, fit_teacher
from nwb_compact.training import derived_seed
from nwb_compact.work import Work, images_folder, work_folder


def fit_sessions(
    sessions: Sequence[SessionData], n_fitted: int, pool: ImagePool, knows: Backbone | Sequence[FileTeacher] | None, settings: Fit,
    work: Work,
) -> Iterator[tuple[str, Fit, tuple[Results, ...]]]:
    """Fit teacher and students to the units of the first `n_fitted` sessions. Nothing is written but to the work folder.

    Parameters
    ----------
    sessions
        From `read_sessions`: those that are fitted first, then those that only lend images and responses.
    n_fitted
        How many are fitted.
    pool
        What students may see.
    knows
        What the teacher stands on: a backbone from `backbones.frozen_backbone`, with its layer chosen; None trains one. Or teachers that
        are ready, one a fitted session.
    settings
        Every number.
    work
        Device and work folder.

    Yields
    ------
    Of each run, when its fit is done, what is added to its name, its settings, and one `Results` a fitted session, in order; run id and
    the rest of the provenance are added when they are written.
    """
    if isinstance(knows, Backbone | None):
        with work.timed("features"):
            seen = [seen_by(knows, session.images, f"features {session.file_path.stem}", work) for session in sessions]
        with work.timed("teacher"):
            teacher: Oracle = OwnTeacher(_teacher(sessions, n_fitted, seen, settings, work), knows, seen[:n_fitted], work.device)
    else:
        seen = [session.images for session in sessions[:n_fitted]]
        teacher = FileTeachers(knows, seen)
    fitted = sessions[:n_fitted]
    with work.timed("lessons"):
        taught = _lessons(teacher, [len(session.responses.unit_name) for session in fitted], pool, settings, work)
    members = [teacher.members(number) for number in range(n_fitted)]
    kept = [_kept(teacher, number, settings) for number in range(n_fitted)]
    for name, one in sweep(settings).items():
        here = work.within(name)
        beside = [_baselines(session, seen[number], number, one, work, here) for number, session in enumerate(fitted)]
        students = [
            fit_students(taught[number], str(number), one, here, seed=derived_seed(one.seed, "students", number))
            for number in range(n_fitted)
        ]
        spent = work.spent() | here.spent() | {"lesson_views": str(n_views(len(pool), settings))}
        for tolerance in students[0]:
            told = spent | ({} if tolerance is None else {"tolerance": str(tolerance)})
            results = [
                _results(session, teacher, number, members[number], students[number][tolerance], beside[number], one, told, kept[number])
                for number, session in enumerate(fitted)
            ]
            yield name or tolerance_name(tolerance), one, tuple(results)


# Stages, in the order of use --------------------------------------------------------------------------------------------


def _teacher(sessions: Sequence[SessionData], n_fitted: int, seen: Sequence[np.ndarray], settings: Fit, work: Work) -> Teacher:
    training = teacher_sessions(sessions, n_fitted, seen)
    with stage("teacher", all_epochs(training, settings.teacher), quiet=work.quiet) as advance:
        return fit_teacher(training, settings.teacher, seed=settings.seed, device=work.device, checkpoints=work.folder, advance=advance)


def _lessons(teacher: Oracle, n_units: Sequence[int], pool: ImagePool, settings: Fit, work: Work) -> tuple[Lessons, ...]:
    """The teacher's answers to every view of every lesson image, asked once for the units of all fitted sessions."""
    seed = derived_seed(settings.seed, "views")
    n_asked = n_views(len(pool), settings)
    with stage("lessons", n_asked * len(pool), quiet=work.quiet) as advance:

        def answered(view: int) -> np.ndarray:
            return asked(teacher.answers, pool, view, settings.distill, seed=seed, advance=advance)

        views = [work.array(f"answers_{view}", partial(answered, view)) for view in range(n_asked)]
    last = np.cumsum(n_units)
    return tuple(
        lessons(pool, tuple(view[:, stop - n : stop] for view in views), settings.distill, seed=seed)
        for n, stop in zip(n_units, last, strict=True)
    )


def _baselines(session: SessionData, seen: np.ndarray, number: int, settings: Fit, work: Work, here: Work) -> dict[str, np.ndarray]:
    """What the plain models predict, by name, each kept in the work folder: the one that has the students' filters with them, `here`."""
    if not settings.baselines.enabled:
        return {}
    known = (session.responses.mean, session.rows("fit"), session.rows("validation"))
    pixels_px, epochs = settings.baselines.pixels_px, baselines.direct_epochs(len(session.rows("fit")), settings.baselines)

    def directly() -> np.ndarray:
        shape, seed = shared_shape(session.responses.mean.shape[1], settings.student), derived_seed(settings.seed, "direct", number)
        with stage("direct fit", epochs, quiet=work.quiet) as advance:
            return baselines.direct(
                session.images, *known, shape, settings.baselines, seed=seed, device=work.device,
                checkpoint=here.path(f"direct_{number}.pt"), advance=advance,
            )

    models = {
        "ridge": (work, lambda: baselines.ridge(seen, *known, pixels_px=pixels_px)),
        "direct": (here, directly),
        "ln": (work, lambda: baselines.linear_nonlinear(session.images, *known, pixels_px=pixels_px)),
    }
    found = {}
    for name, (place, compute) in models.items():
        with place.timed(f"baseline_{name}"):
            found[name] = np.asarray(place.array(f"baseline_{name}_{number}", compute))
    return found


def _results(
    session: SessionData, teacher: Oracle, number: int, members: np.ndarray, students: tuple[StudentWeights, ...],
    beside: Mapping[str, np.ndarray], settings: Fit, told: Mapping[str, str], kept: tuple[TeacherWeights | None, Mapping[str, str]],
) -> Results:
    filters = np.stack([filters_per_layer(student) for student in students])
    predictions = Predictions(
        teacher=members.mean(axis=0),
        student=predict_all(students, session.images),
        teacher_parameters=teacher.n_parameters(number),
        student_parameters=np.array([n_parameters(student) for student in students]),
        student_filters=filters.sum(axis=1),
    )
    seed = derived_seed(settings.seed, "scores")
    scores, reason = score_units(
        session.responses, session.sides, predictions, n_bootstraps=settings.bootstraps, seed=seed, snr_floor=settings.snr_floor,
        baselines=beside,
    )
    weights, not_kept = kept
    of_teacher = {"teacher_parameters": str(round(np.median(predictions.teacher_parameters))), **teacher.facts, **not_kept}
    provenance = {"input_sha256": input_hash(session.responses), **of_teacher, **told}
    meaning = baselines.meanings(settings.baselines, frozen_backbone=teacher.has_features)
    provenance |= {f"baseline.{name}": meaning[name] for name in beside}
    return Results(
        run_id="", unit_name=session.responses.unit_name, scores=scores, reason=reason, image_sha256=session.responses.image_sha256,
        side=session.sides, teacher_prediction=predictions.teacher, student_prediction=predictions.student,
        teacher_member_prediction=np.moveaxis(members, 0, 2), filters_per_layer=filters, students=students, provenance=provenance,
        teacher=weights,
    )


def _kept(teacher: Oracle, number: int, settings: Fit) -> tuple[TeacherWeights | None, Mapping[str, str]]:
    """What the file keeps of the teacher; of one that is too large, how large it is."""
    weights = teacher.weights(number)
    if weights is None or weights.n_bytes <= settings.teacher.most_kept_mb * 1e6:
        return weights, {}
    return None, {"teacher_not_kept_mb": str(math.ceil(weights.n_bytes / 1e6))}


# The command ------------------------------------------------------------------------------------------------------------


@click.command("fit", cls=SeveralValues)
@click.argument("files", nargs=-1, required=True, type=FILE_OR_ADDRESS)
@click.option("--train", multiple=True, type=FILE_OR_ADDRESS, metavar="FILE ...", help="Files that lend images and responses.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="standard", show_default=True, help="Sizes and lengths.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings (docs/configuration.md).")
@click.option("--backbone", help=f"{FORMS}.")
@click.option("--layer", help="Layer of the backbone; by default the one that predicts validation images best.")
@click.option("--members", type=click.IntRange(1), help="Networks in the teacher's ensemble.")
@click.option("--split", type=click.Choice(config.choices(config.Split, "method")), help="Which images are scored.")
@click.option("--teacher", "taught_by", metavar="FILE[:RUN]", help="Learn from the models in this file instead of fitting a teacher.")
@click.option("--students", "kind", type=click.Choice(config.choices(config.Student, "kind")), help="A network a unit, or one for all.")
@click.option("--filters", multiple=True, type=int, metavar="K ...", help="Shared networks of K filters in layers 1 to 3, a run each.")
@click.option("--tolerance", multiple=True, type=float, metavar="SHARE ...", help="Share of r2 that pruning may cost, a run each.")
@click.option("--images", multiple=True, type=click.Path(path_type=Path), help="Folder, zip, tar or session file of images to distil on.")
@click.option("--baselines", "with_baselines", is_flag=True, help="Also fit ridge, a direct and a linear-nonlinear model to compare with.")
@click.option("--device", type=click.Choice(config.choices(Fit, "device")), help="Where to compute.")
@click.option("--seed", type=click.IntRange(0), help="Source of all randomness.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where features of frozen backbones are kept for other fits.")
@click.option("--output", type=click.Path(path_type=Path), help="Write a new self-contained file instead of into FILE.")
@click.option("--run-id", help="Name of the run; the date and time by default.")
@click.option("--replace", "replaces", is_flag=True, help="Replace the run of that name.")
@click.option("--resume", is_flag=True, help="Go on with the same fit where it was stopped.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    files: tuple[Path | Address, ...], train: tuple[Path | Address, ...], preset: str, config_file: Path | None, images: tuple[Path, ...],
    taught_by: str | None, cache_dir: Path | None, output: Path | None, run_id: str | None, replaces: bool, resume: bool, quiet: bool,
    **changes: Any,
) -> None:
    """Fit a teacher and compact students to every unit of FILES and write the results into them."""
    if output is not None and len(files) > 1:
        raise click.UsageError("--output takes one FILE")
    if replaces and run_id is None:
        raise click.UsageError("--replace needs --run-id")
    if taught_by and (idle := [f"--{name}" for name in ("backbone", "layer", "members") if changes[name] is not None]):
        raise click.UsageError(f"--teacher takes a teacher as it is, so {' and '.join(idle)} has no meaning")
    keep_freed_memory()
    settings = _settings(preset, config_file, changes)
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    _require_all(files, train, output, run_names(run_id or now, settings), may_exist=replaces or resume)
    device = _device(settings.device)
    beside = output or Path(files[0])
    wanted = settings.teacher
    backbone = None if taught_by else frozen_backbone(wanted.backbone, wanted.layer, vone_visual_degrees=wanted.vone_visual_degrees)
    sessions = read_sessions(files, train, settings)
    fitted = sessions[: len(files)]
    ready = _from_file(taught_by, fitted) if taught_by else []
    pool = image_pool(own_pixels(sessions), scored_pixels(sessions), images, images_folder(beside), quiet=quiet)
    cache = cache_dir or default_cache_folder()
    backbone, layers = _with_layer(backbone, fitted, cache, device, quiet)
    facts = _facts(sessions, len(files), pool, ready or backbone, device)
    decisive = [facts, config.flat(settings), [session.sides for session in sessions], program()]
    with work_folder(beside, decisive, resume=resume) as folder:
        work = Work(device, folder, quiet, cache)
        run_id, places = work.run_id(run_id, now), list(files)
        if output is not None and output.exists() and resume and not replaces:
            places = [output]  # the fit was killed between two runs
        for name, one, found in fit_sessions(sessions, len(files), pool, ready or backbone, settings, work):
            run = joined(run_id, name)
            for number, results in enumerate(found):
                if resume and not replaces and _is_written(places[number], run, results):
                    continue
                provenance = record(one, command_line("fit"), facts | layers | dict(results.provenance), fitted_teacher=not ready)
                complete = replace(results, run_id=run, provenance=provenance)
                new = None if places[number] == output else output
                _require_unchanged(places[number], complete)
                places[number] = write_results(complete, places[number], output=new, replace=replaces)
                click.echo(f"{places[number]}: {headline(complete.run_id, complete.scores)}")
        work.remove()


def _is_written(file_path: Path | Address, run_id: str, results: Results) -> bool:
    """Whether this fit wrote the run before it was stopped; one of the same name that another fit wrote is not taken for it."""
    return run_id in run_ids(file_path) and are_same_students(read_results(file_path, run_id)[0].students, results.students)


def _require_unchanged(file_path: Path | Address, results: Results) -> None:
    """Stop where the file holds another session than the one that was fitted: hours may lie between."""
    with open_session(file_path) as session:
        is_same = input_hash(responses_of(session)) == results.provenance["input_sha256"]
    if not is_same:
        found, expected = "other images or responses than when the fit began", "the session that was fitted"
        next_step = "put that file back and run the same command with --resume, or fit this one"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=next_step)


def _settings(preset: str, config_file: Path | None, changes: dict[str, Any]) -> Fit:
    given = {name: value for name, value in changes.items() if value not in (None, ())}
    nested: dict[str, Any] = {name: given[name] for name in ("seed", "device") if name in given}
    for name, stage_name, setting in (
        ("backbone", "teacher", "backbone"), ("layer", "teacher", "layer"), ("members", "teacher", "members"), ("split", "split", "method"),
        ("kind", "student", "kind"), ("filters", "student", "sweep_filters"),
        ("tolerance", "prune", "tolerance"),
    ):
        if name in given:
            nested.setdefault(stage_name, {})[setting] = given[name]
    if given.get("with_baselines"):  # where it is not given, the file decides
        nested["baselines"] = {"enabled": True}
    return configure(preset, config_file, nested)


def _require_all(
    files: Sequence[Path | Address], train: Sequence[Path | Address], output: Path | None, runs: Sequence[str], *, may_exist: bool
) -> None:
    """Find what would stop the fit at its end before it starts."""
    for path in files:
        require_path(path if output is None else output, next_step=FETCH if output is None else UPLOAD)
    places = [path.resolve() if isinstance(path, Path) else path for path in (*files, *train)]
    for path, place in zip((*files, *train), places, strict=True):
        if places.count(place) > 1:
            raise NwbCompactError(path, found="a file named twice", expected="each file once", next_step="name it once")
        require_sound(path)
    for path in files:
        for run in runs:
            require_place(path, run_id=run, output=output, replace=may_exist)
        require_writable(path, output=output)


def _device(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise NwbCompactError("--device cuda", found="no CUDA device", expected="one", next_step="use --device cpu or auto")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def _with_layer(
    backbone: Backbone | None, fitted: Sequence[SessionData], cache: Path, device: str, quiet: bool
) -> tuple[Backbone | None, dict[str, str]]:
    """The backbone with its layer, and what each layer was worth if it had to be chosen: only images of the fitting side are looked at."""
    if backbone is None or backbone.layer is not None:
        return backbone, {}
    samples = [sample(session.images, session.responses.mean, session.rows("fit"), session.rows("validation")) for session in fitted]
    backbone, scores = choose_layer(backbone, samples, cache, device=device, quiet=quiet)
    return backbone, {f"layer_validation_r2.{name}": f"{r2:.4f}" for name, r2 in scores.items()}


def _facts(
    sessions: Sequence[SessionData], n_fitted: int, pool: ImagePool, knows: Backbone | Sequence[FileTeacher] | None, device: str
) -> dict[str, str]:
    """Inputs and machine: part of the provenance, and of what names the work folder."""
    inputs = {
        f"{'fitted' if number < n_fitted else 'lent'}.{number}": f"{session.file_path.name} sha256:{input_hash(session.responses)}"
        for number, session in enumerate(sessions)
    }
    return inputs | {
        "units_fitted": str(sum(len(session.responses.unit_name) for session in sessions[:n_fitted])),
        "lesson_images": f"{len(pool)} sha256:{pool.sha256}",
        **{f"lesson_images_left_out.{reason}": str(n) for reason, n in pool.skipped.items()},
        **_known(knows),
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
        "threads": str(torch.get_num_threads()),
        "architecture": ARCHITECTURE,
    }


def _known(knows: Backbone | Sequence[FileTeacher] | None) -> dict[str, str]:
    """What the teacher stands on."""
    if knows is None:
        return {"backbone_sha256": "trained here"}
    if isinstance(knows, Backbone):
        return {"backbone_sha256": knows.sha256, **({"layer": knows.layer} if knows.layer else {})}
    return {f"teacher_from_file.{number}": f"run {one.run_id} sha256:{one.sha256}" for number, one in enumerate(knows)}


def _from_file(taught_by: str, fitted: Sequence[SessionData]) -> list[FileTeacher]:
    """FILE[:RUN]; a colon that is part of a path that exists, or of an address, is no run."""
    file_path, _, run = taught_by.rpartition(":")
    is_named = bool(file_path) and "/" not in run and not Path(taught_by).exists()
    file_path, run_id = (file_path, run) if is_named else (taught_by, None)
    teaching = teaching_run(file_path, run_id)
    return [
        teacher_of(
            teaching, session.responses.unit_name, session_id=session.session_id,
            scored=[session.responses.image_sha256[row] for row in session.rows("scored")],
        )
        for session in fitted
    ]


if __name__ == "__main__":
    from nwb_compact.cli import main

    sys.argv[1:1] = ["fit"]
    main(prog_name="nwb-compact")
