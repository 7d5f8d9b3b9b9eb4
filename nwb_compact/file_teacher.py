"""A teacher taken from a file: networks of an earlier run, or published ones, that answer for the units of a session that is fitted."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float32, UInt8

from nwb_compact.address import located
from nwb_compact.errors import NwbCompactError, counted
from nwb_compact.nwb_results import read_results
from nwb_compact.nwb_session import open_session
from nwb_compact.progress import Advance, silent
from nwb_compact.results import Results, StudentWeights
from nwb_compact.student import IMAGE_PX, predict_all

ANSWERED_AT_ONCE = 512
"""Images between two steps of the progress; does not change the answers."""


@dataclass(frozen=True, eq=False)
class FileTeacher:
    """One network for each unit of a session, in its order; what networks share is computed once for all of them."""

    run_id: str
    networks: tuple[StudentWeights, ...]
    meaning: str | None = None
    """What the run says of its answers, where they are not expected counts."""

    @property
    def sha256(self) -> str:
        """Of all that decides its answers, so that a fit is not resumed with another teacher."""
        digest = sha256()
        for one in self.networks:
            for name in sorted(one.arrays):
                digest.update(f"{name} {one.arrays[name].shape} ".encode() + np.ascontiguousarray(one.arrays[name], "<f4").tobytes())
        return digest.hexdigest()

    def predict(
        self, images: UInt8[np.ndarray, "image height width 3"], advance: Advance = silent
    ) -> Float32[np.ndarray, "image unit"]:
        """Its answers, in the units of the run it was taken from.

        Parameters
        ----------
        images
            RGB, 112 x 112 px.
        advance
            Is told how many images are done.

        Raises
        ------
        NwbCompactError
            If the images have another size.
        """
        if images.shape[1:3] != (IMAGE_PX, IMAGE_PX):
            found, expected = f"{images.shape[1]} x {images.shape[2]} px", f"{IMAGE_PX} x {IMAGE_PX} px, which its networks take"
            raise NwbCompactError("images for the teacher", found=found, expected=expected, next_step="resize them first (images.as_rgb)")
        answers = np.empty((len(images), len(self.networks)), np.float32)
        for start in range(0, len(images), ANSWERED_AT_ONCE):
            part = slice(start, start + ANSWERED_AT_ONCE)
            answers[part] = predict_all(self.networks, images[part])
            advance(len(answers[part]))
        return answers


@dataclass(frozen=True, eq=False)
class TeachingRun:
    """A run whose networks can teach. It is read once for all sessions: what its networks share is one object, and computed once."""

    where: str
    """File and run, for messages."""
    session_id: str | None
    results: Results


def teaching_run(file_path: str | Path, run_id: str | None = None) -> TeachingRun:
    """A run of a file.

    Parameters
    ----------
    file_path
        A session file with results.
    run_id
        Which run; None takes the last.

    Raises
    ------
    NwbCompactError
        If the file has no such run.

    Examples
    --------
    >>> from nwb_compact.nwb_results import example_file
    >>> teaching_run(example_file()).session_id
    'example'
    """
    runs = read_results(located(file_path), run_id)
    if not runs:
        next_step = "fit that file first, or name another"
        raise NwbCompactError(file_path, found="no run", expected="one whose networks can teach", next_step=next_step)
    with open_session(file_path) as session:
        return TeachingRun(f"{file_path}: run {runs[-1].run_id}", session.about.session_id, runs[-1])


def teacher_of(
    run: TeachingRun, unit_names: Sequence[str], *, session_id: str | None = None, scored: Collection[str] = ()
) -> FileTeacher:
    """The networks of a run that are of these units, in this order.

    A unit U of session S is the file's unit U if the file is of session S too, or its unit `S-U`, as files name them that hold units of
    several sessions. Names alone do not tell: many sources number the units of every session from 0.

    Parameters
    ----------
    run
        From `teaching_run`.
    unit_names
        Units of the session that is fitted.
    session_id
        Of that session; None where it has none, and then names must be the same.
    scored
        SHA-256 of the images on which the units will be scored.

    Raises
    ------
    NwbCompactError
        If the run lacks a unit, or it was fitted on images that will be scored, by their hash.

    Examples
    --------
    >>> from nwb_compact.nwb_results import example_file
    >>> teacher_of(teaching_run(example_file()), ["unit-2"], session_id="example").run_id
    'example'
    """
    results = run.results
    row_of = {name: row for name in unit_names if (row := _row(name, session_id, run)) is not None}
    if missing := [name for name in unit_names if name not in row_of]:
        _refuse_other_units(run.where, missing, len(unit_names), session_id)
    learned_from = {image for image, side in zip(results.image_sha256, results.side, strict=True) if side in ("fit", "validation")}
    if seen := len(learned_from & set(scored)):
        next_step = "split the images as that run did (--split), or take another teacher"
        found = f"{counted(seen, 'image')} to be scored among those that it was fitted on"
        raise NwbCompactError(run.where, found=found, expected="none: what was learned cannot be tested", next_step=next_step)
    networks = tuple(results.students[row_of[name]] for name in unit_names)
    return FileTeacher(results.run_id, networks, results.provenance.get("answers"))


def _row(name: str, session_id: str | None, run: TeachingRun) -> int | None:
    """Row of a unit in the run; None where the run has no network of it."""
    results = run.results
    may_be_same = session_id is None or run.session_id is None or session_id == run.session_id
    known = ([name] if may_be_same else []) + ([] if session_id is None else [f"{session_id}-{name}"])
    rows = [results.unit_name.index(one) for one in known if one in results.unit_name]
    return next((row for row in rows if results.students[row].arrays), None)


def _refuse_other_units(where: str, missing: Sequence[str], n_wanted: int, session_id: str | None) -> NoReturn:
    some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    of = "" if session_id is None else f" of session {session_id}"
    found = f"networks of {n_wanted - len(missing)} of the {counted(n_wanted, 'unit')}{of} (none of {some})"
    next_step = "take a teacher of this session, or one whose units are named SESSION-UNIT"
    raise NwbCompactError(where, found=found, expected="one of each: a teacher of other units cannot teach these", next_step=next_step)
