"""The method, from session files to results in them; also `python -m nwb_compact.fit`.

`fit_sessions` reads like the methods section: read, split, teacher, lessons, students, scores. What takes long leaves a checkpoint in a
work folder beside the file, so a fit that was killed goes on where it stopped and ends with the same scores.
"""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from nwb_compact import config
from nwb_compact.backbones import features, frozen_backbone
from nwb_compact.bank import Bank, BankShape
from nwb_compact.check import require_sound
from nwb_compact.config import PRESETS, Fit, configure
from nwb_compact.distill import EPOCHS, Lessons, answers_of, lessons, train_bank
from nwb_compact.errors import NwbCompactError
from nwb_compact.images import as_rgb, read_images
from nwb_compact.nwb_results import run_ids, write_results
from nwb_compact.nwb_session import open_session
from nwb_compact.progress import stage
from nwb_compact.provenance import input_hash, record
from nwb_compact.prune import prune
from nwb_compact.responses import Responses, responses_of, split_images
from nwb_compact.results import Results
from nwb_compact.safe_write import require_writable
from nwb_compact.scoring import Predictions, score_units
from nwb_compact.session import image_sha256
from nwb_compact.student import filters_per_layer, n_parameters
from nwb_compact.teacher import Teacher, TeacherSession, fit_teacher
from nwb_compact.training import derived_seed

SHARED_LAYERS = 2
"""Layers that all students of a bank share while they are first trained (see `bank`)."""


@dataclass(frozen=True, eq=False)
class SessionData:
    """What fitting needs of one file."""

    file_path: Path
    responses: Responses
    images: UInt8[np.ndarray, "image 112 112 3"]
    sides: tuple[str, ...] = ()

    def rows(self, *sides: str) -> np.ndarray:
        """Images that fall on one of the sides."""
        return np.flatnonzero(np.isin(self.sides, sides))


@dataclass(frozen=True)
class World:
    """Where and how loudly a fit works."""

    device: str
    work: Path
    """Folder for checkpoints; gone when the fit is done."""
    quiet: bool = False


def fit_sessions(
    fitted: Sequence[Path], lent: Sequence[Path], settings: Fit, world: World, *, more_images: Sequence[Path] = (), command: str = "",
) -> tuple[Results, ...]:
    """Fit teacher and students to the units of each fitted file. Nothing is written but checkpoints.

    Parameters
    ----------
    fitted
        Session files that are fitted and scored.
    lent
        Session files that only lend images and responses to the teacher.
    settings
        Every number.
    world
        Device, work folder.
    more_images
        Folders, zips or session files whose images students also learn from.
    command
        The command line, for provenance.

    Returns
    -------
    One `Results` a fitted file, in order; their `run_id` is empty until they are written.

    Raises
    ------
    NwbCompactError
        If a file, a split or a backbone cannot be used.
    """
    clock = Clock()
    sessions = _read(fitted, lent, settings)
    seeing = Seeing(settings.teacher.backbone, world)
    with clock("features"):
        inputs = seeing.inputs(sessions)
    with clock("teacher"):
        teacher = _teacher(sessions, inputs, settings, world)
    with clock("lesson_images"):
        lesson_images = _lesson_images(sessions, more_images)
    results = []
    for number, session in enumerate(sessions[: len(fitted)]):
        with clock("lessons"):
            taught = _lessons(teacher, seeing, number, lesson_images, settings, world)
        with clock("students"):
            bank = _students(taught, number, settings, world)
        results.append(_results(session, inputs[number], teacher, taught, bank, number, settings, world))
    facts = _facts(sessions, len(fitted), teacher, len(lesson_images), settings, world) | clock.facts()
    return tuple(replace(found, provenance=record(settings, command, facts | dict(found.provenance))) for found in results)


# Stages, in the order of use --------------------------------------------------------------------------------------------


def _read(fitted: Sequence[Path], lent: Sequence[Path], settings: Fit) -> tuple[SessionData, ...]:
    """Sessions with the side of every image, fitted files first."""
    sessions = []
    for file_path in (*fitted, *lent):
        with open_session(file_path) as session:
            if session.images.pixels is None:
                next_step = "convert the session with its images"
                raise NwbCompactError(file_path, found="hashes instead of images", expected="pixels to fit on", next_step=next_step)
            sessions.append(SessionData(file_path, responses_of(session), as_rgb(session.images.pixels[:])))
    responses = [session.responses for session in sessions]
    sides = split_images(responses[: len(fitted)], responses[len(fitted) :], settings.split, seed=settings.seed)
    return tuple(replace(session, sides=side) for session, side in zip(sessions, (*sides[0], *sides[1]), strict=True))


class Seeing:
    """What the teacher sees of an image: the image itself for `conv`, else the frozen backbone's features, kept in the work folder."""

    def __init__(self, backbone: str, world: World):
        self.network: nn.Module | None = frozen_backbone(backbone)
        self.world = world

    def inputs(self, sessions: Sequence[SessionData]) -> list[np.ndarray]:
        """One array a session."""
        return [self.of(session.images, f"features_{number}") for number, session in enumerate(sessions)]

    def of(self, images: UInt8[np.ndarray, "image 112 112 3"], name: str) -> np.ndarray:
        """Images or their features; `name` is the stage, kept for resuming."""
        if self.network is None:
            return images
        network = self.network

        def compute() -> np.ndarray:
            with stage(f"{name.replace('_', ' ')}", len(images), quiet=self.world.quiet) as advance:
                return features(network, images, device=self.world.device, advance=advance)

        return _kept(self.world.work / f"{name}.npy", compute)


def _teacher(sessions: Sequence[SessionData], inputs: Sequence[np.ndarray], settings: Fit, world: World) -> Teacher:
    training = [
        TeacherSession(what, session.responses.mean, session.rows("fit"), session.rows("validation"))
        for session, what in zip(sessions, inputs, strict=True)
    ]
    total = settings.teacher.members * settings.teacher.epochs
    with stage("teacher", total, quiet=world.quiet) as advance:
        return fit_teacher(training, settings.teacher, seed=settings.seed, device=world.device, checkpoints=world.work, advance=advance)


def _lesson_images(sessions: Sequence[SessionData], more_images: Sequence[Path]) -> UInt8[np.ndarray, "lesson 112 112 3"]:
    """Images students may learn from: the fitting side of every session and the user's own, each once, none of the scored side."""
    scored = {image for s in sessions for image, side in zip(s.responses.image_sha256, s.sides, strict=True) if side == "scored"}
    scored_pixels = {image_sha256(s.images[row]) for s in sessions for row in s.rows("scored")}
    chosen: dict[str, np.ndarray] = {}
    for session in sessions:
        for row in session.rows("fit", "validation"):
            chosen.setdefault(session.responses.image_sha256[row], session.images[row])
    for place in more_images:
        for image, pixels in _more_images(place):
            if image not in scored and image not in scored_pixels:
                chosen.setdefault(image, pixels)
    return np.stack(list(chosen.values()))


def _more_images(place: Path) -> Iterator[tuple[str, np.ndarray]]:
    if place.suffix.lower() == ".nwb":
        with open_session(place) as session:
            if session.images.pixels is None:
                expected = "a session with pixels"
                raise NwbCompactError(place, found="hashes instead of images", expected=expected, next_step="name another file")
            yield from zip(session.images.sha256, as_rgb(session.images.pixels[:]), strict=True)
    else:
        for pixels in read_images(place):
            yield image_sha256(pixels), pixels


def _lessons(teacher: Teacher, seeing: Seeing, number: int, images: np.ndarray, settings: Fit, world: World) -> Lessons:
    """The teacher's answers to every view of every lesson image."""
    asked = iter(range(settings.distill.views))

    def answers(views: np.ndarray) -> np.ndarray:
        question = next(asked)
        path = world.work / f"answers_{number}_{question}.npy"
        return _kept(path, lambda: teacher.predict(seeing.of(views, f"view_{question}"), number))

    seed = derived_seed(settings.seed, "views")
    with stage("lessons", settings.distill.views, quiet=world.quiet) as advance:
        return lessons(images, answers, settings.distill, seed=seed, advance=advance)


def _students(taught: Lessons, number: int, settings: Fit, world: World) -> Bank:
    """A bank of all units' students: trained together, pruned each its own way, retrained."""
    seed = derived_seed(settings.seed, "students", number)
    torch.manual_seed(seed)
    widths = (*settings.student.early_filters, *settings.student.late_filters)
    whole = Bank(BankShape(taught.answer.shape[1], widths, SHARED_LAYERS))
    kept: dict[str, Any] = {"device": world.device}
    distill = settings.distill
    with stage("students", EPOCHS, quiet=world.quiet) as advance:
        train_bank(
            whole, taught, distill, images_seen=distill.images_seen, learning_rate=distill.learning_rate, seed=seed,
            checkpoint=world.work / f"students_{number}.pt", advance=advance, **kept,
        )
    with stage("pruning", 1, quiet=world.quiet) as advance:
        pruned = prune(whole, taught, settings.prune, seed=derived_seed(seed, "prune"), device=world.device)
        advance()
    with stage("students, pruned", EPOCHS, quiet=world.quiet) as advance:
        return train_bank(
            pruned, taught, distill, images_seen=settings.prune.images_seen, learning_rate=settings.prune.learning_rate,
            seed=derived_seed(seed, "pruned"), checkpoint=world.work / f"pruned_{number}.pt", advance=advance, **kept,
        )


def _results(
    session: SessionData, inputs: np.ndarray, teacher: Teacher, taught: Lessons, bank: Bank, number: int, settings: Fit, world: World
) -> Results:
    students = bank.cut(taught.scale, taught.offset)
    filters = np.stack([filters_per_layer(student) for student in students])
    predictions = Predictions(
        teacher=teacher.predict(inputs, number),
        student=answers_of(bank, taught, session.images, world.device),
        teacher_parameters=teacher.n_parameters,
        student_parameters=np.array([n_parameters(student) for student in students]),
        student_filters=filters.sum(axis=1),
    )
    seed = derived_seed(settings.seed, "scores")
    scores, reason = score_units(session.responses, session.sides, predictions, n_bootstraps=settings.bootstraps, seed=seed)
    return Results(
        run_id="", unit_name=session.responses.unit_name, scores=scores, reason=reason, image_sha256=session.responses.image_sha256,
        side=session.sides, teacher_prediction=predictions.teacher, student_prediction=predictions.student, filters_per_layer=filters,
        students=students, provenance={"input_sha256": input_hash(session.responses)},
    )


# What a run leaves behind -----------------------------------------------------------------------------------------------


class Clock:
    """Seconds of each stage, for provenance."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the seconds that pass inside to stage `name`."""
        start = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def facts(self) -> dict[str, str]:
        """One row a stage."""
        return {f"seconds.{name}": f"{seconds:.1f}" for name, seconds in self.seconds.items()}


def _facts(sessions: Sequence[SessionData], n_fitted: int, teacher: Teacher, n_lessons: int, settings: Fit, world: World) -> dict[str, str]:
    inputs = {
        f"{'fitted' if number < n_fitted else 'lent'}.{number}": f"{session.file_path.name} sha256:{input_hash(session.responses)}"
        for number, session in enumerate(sessions)
    }
    return {
        "device": world.device if world.device == "cpu" else torch.cuda.get_device_name(),
        "threads": str(torch.get_num_threads()),
        "teacher_parameters": str(teacher.n_parameters),
        "teacher_validation_r2": " ".join(f"{score:.4f}" for score in teacher.validation_r2),
        "lesson_images": str(n_lessons),
    } | inputs


def _kept(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is computed once and kept in the work folder."""
    if path.exists():
        return np.load(path)
    value = compute()
    beside = path.with_suffix(".part")
    with beside.open("wb") as stream:
        np.save(stream, value)
    beside.replace(path)
    return value


# The command ------------------------------------------------------------------------------------------------------------


class _FitCommand(click.Command):
    """Lets `--train` take several files, as `--train a.nwb b.nwb`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        listing = False
        for word in args:
            if word == "--train":
                listing = True
            elif word.startswith("-"):
                listing = False
                spread.append(word)
            else:
                spread += ["--train", word] if listing else [word]
        return super().parse_args(ctx, spread)


@click.command("fit", cls=_FitCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--train", multiple=True, type=click.Path(path_type=Path), metavar="FILE ...", help="Files that only lend images.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="standard", show_default=True, help="Sizes and lengths.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings (docs/configuration.md).")
@click.option("--backbone", help="conv, or torch:MODULE:FACTORY.")
@click.option("--members", type=click.IntRange(1), help="Networks in the teacher's ensemble.")
@click.option("--split", type=click.Choice(["first-half", "column", "random"]), help="Which images are scored.")
@click.option("--images", multiple=True, type=click.Path(path_type=Path), help="Folder, zip or session file of more images to distil on.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to compute.")
@click.option("--seed", type=click.IntRange(0), help="Source of all randomness.")
@click.option("--output", type=click.Path(path_type=Path), help="Write a new self-contained file instead of into FILE.")
@click.option("--run-id", help="Name of the run; the date and time by default.")
@click.option("--replace", "replaces", is_flag=True, help="Replace the run of that name.")
@click.option("--resume", is_flag=True, help="Go on with the same fit where it was stopped.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    files: tuple[Path, ...], train: tuple[Path, ...], preset: str, config_file: Path | None, images: tuple[Path, ...], output: Path | None,
    run_id: str | None, replaces: bool, resume: bool, quiet: bool, **changes: Any,
) -> None:
    """Fit a teacher and compact students to every unit of FILES and write the results into them."""
    if output is not None and len(files) > 1:
        raise click.UsageError("--output takes one FILE")
    if replaces and run_id is None:
        raise click.UsageError("--replace needs --run-id")
    settings = _settings(preset, config_file, changes)
    _require_all(files, train, output, run_id, replaces)
    device = _device(settings.device)
    work = _work_folder(files, train, images, settings, output, resume=resume)
    run_id = _run_id(work, run_id)
    asked = shlex.join(["nwb-compact", "fit", *sys.argv[sys.argv.index("fit") + 1 :]]) if "fit" in sys.argv else "nwb-compact fit"
    found = fit_sessions(files, train, settings, World(device, work, quiet), more_images=images, command=asked)
    for file_path, results in zip(files, found, strict=True):
        if resume and run_id in run_ids(file_path) and not replaces:
            continue  # the fit was killed between the files
        written = write_results(replace(results, run_id=run_id), file_path, output=output, replace=replaces)
        medians = {name: np.nanmedian(results.scores[name]) for name in ("teacher_r2", "student_r2", "student_parameters")}
        click.echo(
            f"{written}: run {run_id}, {len(results.unit_name)} units, median r2 teacher {medians['teacher_r2']:.3f}, "
            f"student {medians['student_r2']:.3f} with {medians['student_parameters']:.0f} parameters"
        )
    shutil.rmtree(work, ignore_errors=True)
    if not any(work.parent.iterdir()):
        work.parent.rmdir()


def _settings(preset: str, config_file: Path | None, changes: dict[str, Any]) -> Fit:
    given = {name: value for name, value in changes.items() if value is not None}
    nested: dict[str, Any] = {name: given[name] for name in ("seed", "device") if name in given}
    nested["teacher"] = {name: given[name] for name in ("backbone", "members") if name in given}
    nested["split"] = {"method": given["split"]} if "split" in given else {}
    return configure(preset, config_file, nested)


def _require_all(files: Sequence[Path], train: Sequence[Path], output: Path | None, run_id: str | None, replaces: bool) -> None:
    """Find what would stop the fit at its end before it starts."""
    repeated = [path for path in (*files, *train) if (*files, *train).count(path) > 1]
    if repeated:
        raise NwbCompactError(repeated[0], found="a file named twice", expected="each file once", next_step="name it once")
    for file_path in (*files, *train):
        require_sound(file_path)
    for file_path in files:
        require_writable(file_path, output=output)
        if run_id is not None and run_id in run_ids(file_path) and not replaces:
            next_step = "choose another, or add --replace"
            raise NwbCompactError(file_path, found=f"run '{run_id}'", expected="a new --run-id", next_step=next_step)


def _device(asked: str) -> str:
    if asked == "cuda" and not torch.cuda.is_available():
        raise NwbCompactError("--device cuda", found="no CUDA device", expected="one", next_step="use --device cpu or auto")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def _work_folder(
    files: Sequence[Path], train: Sequence[Path], images: Sequence[Path], settings: Fit, output: Path | None, *, resume: bool
) -> Path:
    """A folder beside the file, named by everything that decides the scores; emptied unless the fit is resumed."""
    names = [str(path.resolve()) for path in (*files, *train, *images)]
    key = sha256(json.dumps([names, len(files), config.settings(settings)]).encode()).hexdigest()[:12]
    first = (output or files[0]).resolve()
    work = first.with_name(f".{first.stem}.nwb-compact") / key
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    elif not work.exists():
        expected = f"{work}, left by a fit with the same files and settings"
        raise NwbCompactError("--resume", found="no stopped fit", expected=expected, next_step="leave --resume out")
    work.mkdir(parents=True, exist_ok=True)
    return work


def _run_id(work: Path, asked: str | None) -> str:
    """The run's name, kept for resuming."""
    path = work / "run_id"
    if asked is None and path.exists():
        return path.read_text(encoding="utf-8")
    name = asked or datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    path.write_text(name, encoding="utf-8")
    return name


if __name__ == "__main__":
    from nwb_compact.cli import main

    sys.argv[1:1] = ["fit"]
    main(prog_name="nwb-compact")
