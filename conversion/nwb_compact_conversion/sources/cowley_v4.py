"""One session of the published macaque V4 data of Cowley, Stan, Pillow & Smith (Nature 2026), as a `Session`.

The files are those of `data_V4_responses` in github.com/cowleygroup/V4_compact_models. They give JPEG images, spike
counts (single repeats for some sessions, repeat averages for all) and one line of facts a session; no times, no unit
properties, no sex or age. What they do not give is not filled in.
"""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Num

from nwb_compact import __version__
from nwb_compact.errors import NwbCompactError
from nwb_compact.session import (
    About,
    Images,
    MeanResponses,
    ResponseUnits,
    Session,
    Subject,
    Units,
    image_sha256,
)
from nwb_compact_conversion.metadata import TIME_NOT_GIVEN
from nwb_compact_conversion.sources.counts import ORDERED, long_form
from nwb_compact_conversion.sources.cowley_v4_files import (
    REPOSITORY,
    NumberedImages,
    SourceFiles,
    check_numbers,
    check_units,
    find_files,
    read_numbered_images,
    read_responses,
)
from nwb_compact_conversion.sources.cowley_v4_sessions import SESSIONS, Listed
from nwb_compact_conversion.sources.source_files import file_sha256

LICENCE = "GPL-3.0"
DOI = "doi:10.1038/s41586-026-10150-1"
SPECIES = "Macaca mulatta"
COUNTED = "100 ms bins; the source gives the length of the bin and not its onset"


def read_cowley_v4(data: Path, session: str) -> Session:
    """One published V4 session.

    Parameters
    ----------
    data
        Folder that holds `images`, `responses_repeat_averaged` and `responses_raw`, or a clone of the public repository.
    session
        Its id, a date as YYMMDD, for example 190923.

    Returns
    -------
    Session
        Images uint8 (image height width 3), in the order of their numbers. Where raw repeats exist: presentations without
        times and counts (presentation unit); else `mean_responses` (image unit), spikes in 100 ms.

    Raises
    ------
    NwbCompactError
        If a file is missing, damaged, or does not fit the others or the published list.

    Notes
    -----
    Cowley, Stan, Pillow & Smith, Nature 2026, data of Extended Data Table 1. A picture shown under two numbers (300 of
    190925) keeps both rows: the responses are separate measurements, and equal hashes tell that the picture is one.

    Examples
    --------
    >>> read_cowley_v4(Path("no-such-folder"), "190923")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-folder: found no such folder, expected the published V4 data.
    Next: give the folder that holds images/ and responses_repeat_averaged/
    """
    files = find_files(data, session)
    start = _start(files, session)
    raw, mean = read_responses(files)
    n_units, n_images = mean.shape
    listed = SESSIONS.get(session)
    check_units(files.responses, n_units, session, listed)
    found = read_numbered_images(files.images)
    check_numbers(files.images, found, files.responses, n_images)
    units = Units(tuple(f"neuron{unit}" for unit in range(n_units)))
    response_units = ResponseUnits(np.arange(n_units, dtype=np.uint32), None, None)
    about, images = _about(files, session, start, listed, found), _images(found, files.images, listed)
    subject = None if listed is None else Subject(subject_id=listed.animal, species=SPECIES)
    if raw is None:
        return Session(about, subject, images, None, units, response_units, None, _mean_responses(mean, listed))
    description = f"Spike counts in {COUNTED}. {ORDERED}"
    presentations, counts = long_form(np.moveaxis(raw, 0, 2), description)
    return Session(about, subject, images, presentations, units, response_units, counts, None)


def _start(files: SourceFiles, session: str) -> datetime:
    try:
        if len(session) != 6 or not session.isdecimal():
            raise ValueError
        return datetime.strptime(session, "%y%m%d").replace(tzinfo=UTC)
    except ValueError:
        next_step = "name the session's files by its date: NWB requires one and the id is its only source"
        raise NwbCompactError(files.images, found=f"session id '{session}'", expected="a date as YYMMDD", next_step=next_step) from None


def _images(found: NumberedImages, file_path: Path, listed: Listed | None) -> Images:
    n = len(found.number)
    return Images(
        name=found.name,
        sha256=tuple(image_sha256(pixels) for pixels in found.pixels),
        pixels=found.pixels,
        kind=None if listed is None or listed.kind is None else (listed.kind,) * n,
        source=(f"{REPOSITORY}, {file_path.name}",) * n,
        licence=(LICENCE,) * n,
    )


def _mean_responses(mean: Num[np.ndarray, "unit image"], listed: Listed | None) -> MeanResponses:
    repeats = None if listed is None else np.full(mean.shape[1], float(listed.n_repeats))
    told = "the source does not list the number of repeats" if listed is None else (
        f"n_repeats is the one figure the source lists for the whole session (about {listed.n_repeats}), not counted image by image"
    )
    return MeanResponses(np.ascontiguousarray(mean.T, dtype=np.float64), repeats, f"Mean spike counts over repeats in {COUNTED}; {told}.")


def _about(files: SourceFiles, session: str, start: datetime, listed: Listed | None, images: NumberedImages) -> About:
    height, width = images.pixels.shape[1:3]
    return About(
        identifier=f"cowley-v4-{session}",
        session_description=f"Responses of neurons in macaque V4 to images, published session {session}. {TIME_NOT_GIVEN}",
        session_start_time=start,
        session_id=session,
        keywords=("macaque", "V4", "visual cortex", "images"),
        related_publications=(DOI,),
        experiment_description=f"Spike counts in {COUNTED}. Images are JPEG files of {height} x {width} px (height x width).",
        notes=_notes(session, listed),
        source_script=_record(files, session),
    )


def _notes(session: str, listed: Listed | None) -> str:
    if listed is None:
        return f"Session {session} is not in the published list, so animal, number of units and repeats are not known."
    kinds = ", ".join(f"{kind} {n}" for kind, n in listed.kinds)
    return (
        f"Listed by the source: animal {listed.animal}, {listed.role} session of the study, {listed.n_units} units, "
        f"about {listed.n_repeats} repeats an image, {listed.n_images} images ({kinds}). "
        "Units are numbered from 0 in the order of the source, as in the published compact models. No times of presentations are given."
    )


def _record(files: SourceFiles, session: str) -> str:
    lines = ["program: nwb-compact", f"version: {__version__}", "command: convert cowley-v4", f"session: {session}"]
    lines += [f"source: {REPOSITORY}", f"licence: {LICENCE}", f"pillow: {version('pillow')}"]
    present = [path for path in (files.images, files.raw, files.averaged) if path is not None]
    return "\n".join(lines + [f"file: {path.relative_to(files.root).as_posix()} sha256:{file_sha256(path)}" for path in present])
