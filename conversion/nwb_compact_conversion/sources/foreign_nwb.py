"""An NWB file of another program, with units and presentations under its own names, as `session.yaml` maps them.

Seen so far: tables of intervals (Allen Institute: natural_scenes_presentations; DiCarlo lab: trials), IndexSeries, and units in /units
or in a processing module. All times of an NWB file are on one clock, so such a session needs no alignment.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.nwb_io import opened
from nwb_compact.nwb_session import in_memory
from nwb_compact.nwb_units import read_device, read_electrodes, read_units
from nwb_compact.session import About, Images, Subject, Units
from nwb_compact_conversion.recorded import Recorded
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.sources.foreign_images import NUMBERED, FileImages, read_file_images
from nwb_compact_conversion.sources.reading import read_by, reading
from nwb_compact_conversion.sources.unit_names import require_names
from nwb_compact_conversion.stimulus.presentations import BLANK
from nwb_compact_conversion.stimulus.stimulus_log import NO_CODE, NO_VALUE, StimulusLog, onset_column, plain


def with_blank(stimuli: Stimuli) -> Stimuli:
    """The settings under which the log of `read_foreign_nwb` is joined with images: `BLANK` then means that nothing was shown."""
    return stimuli.model_copy(update={"blank": (*stimuli.blank, BLANK)})


def read_foreign_nwb(file_path: Path, stimuli: Stimuli) -> tuple[Recorded, StimulusLog, Images | None, About, Subject | None]:
    """Units, log, images, session and animal of an NWB file.

    Parameters
    ----------
    file_path
        The file.
    stimuli
        `table` and `columns` name the log, `templates` the images in the file. Where `images` names a folder none are read from
        the file. What the file leaves no choice about needs no name.

    Returns
    -------
    tuple
        Recorded units, with scalar columns as properties and their electrodes; the log in the order of its onsets, whose images
        are names of the images in the file or what the column says; those images, None where `stimuli.images` names others;
        and what the file says of session and animal. A row whose image is NaN, negative or empty showed nothing: it stays, as
        an invalid one of the image `BLANK`; see `with_blank`.

    Raises
    ------
    NwbCompactError
        If the file is damaged or lacks a table, column, units or spike times that are asked for (the message lists what is
        there), has a unit twice, images that are not 8 bits or numbers in the log that count none of them.

    Examples
    --------
    >>> read_foreign_nwb(Path("no-such-file.nwb"), Stimuli())
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-file.nwb: found no file, expected an NWB file. Next: correct the path
    """
    with reading(file_path, "a whole NWB file"), opened(file_path) as file:
        nwbfile = file.nwbfile
        shown = _log_of(nwbfile, stimuli, file_path)
        images = None
        if stimuli.images is None:
            images = read_file_images(nwbfile, stimuli, file_path, getattr(shown, "indexed_images", None))
        log = _log(shown, images, stimuli, f"{file_path}: {shown.name}")
        recorded = Recorded(
            files=(file_path,),
            reader=read_by("pynwb", "NWBHDF5IO"),
            start_time=nwbfile.timestamps_reference_time,
            device=read_device(nwbfile),
            units=_units(nwbfile, file_path),
            electrodes=read_electrodes(nwbfile, file_path),
        )
        # All times count from the reference time. An identifier belongs to one file, and so does the record of how it was made.
        about = replace(
            in_memory(About, nwbfile),
            identifier=f"{nwbfile.identifier}-nwb-compact",
            session_start_time=nwbfile.timestamps_reference_time,
            source_script=None,
        )
        subject = None if nwbfile.subject is None else in_memory(Subject, nwbfile.subject)
        return recorded, log, None if images is None else images.images, about, subject


# Units ------------------------------------------------------------------------------------------------------------------


def _units(nwbfile: Any, file_path: Path) -> Units:
    tables = [nwbfile.units] if nwbfile.units is not None else [
        one for module in nwbfile.processing.values() for one in module.data_interfaces.values() if one.neurodata_type == "Units"
    ]
    if not tables or not len(tables[0]):
        found, next_step = "no unit", "convert a file that has /units"
        raise NwbCompactError(file_path, found=found, expected="units with spike times", next_step=next_step)
    rows = tables[0]
    if c.SPIKE_TIMES not in rows.colnames:
        found = f"units without spike times (columns {', '.join(rows.colnames)})"
        raise NwbCompactError(file_path, found=found, expected="spike times", next_step="convert a file that has them, or counts")
    column = next((name for name in (c.UNIT_NAME, "unit_id", "name") if name in rows.colnames), None)
    names = tuple(str(one) for one in (rows.id if column is None else rows[column])[:])
    require_names(file_path, names)
    units = read_units(rows, file_path, names)
    assert units.spike_times_s is not None
    spikes = tuple(np.sort(np.asarray(train, np.float64)) for train in units.spike_times_s)
    for name, train in zip(names, spikes, strict=True):
        if not np.isfinite(train).all():
            found = f"spike times of unit '{name}' that are no numbers"
            raise NwbCompactError(file_path, found=found, expected="seconds", next_step="correct or remove that unit")
    return replace(units, spike_times_s=spikes)


# What was shown ---------------------------------------------------------------------------------------------------------


def _log_of(nwbfile: Any, stimuli: Stimuli, file_path: Path) -> Any:
    """The table or IndexSeries that says what was shown when."""
    there = dict(nwbfile.intervals or {}) | {one.name: one for one in nwbfile.stimulus.values() if one.neurodata_type == "IndexSeries"}
    there |= {name: one for name in ("trials", "epochs") if (one := getattr(nwbfile, name)) is not None}
    there.pop("invalid_times", None)
    wanted = stimuli.table
    if wanted in there:
        return there[wanted]
    if wanted is None and len(there) == 1:
        return next(iter(there.values()))
    found = f"{'no' if not there else len(there)} tables" if wanted is None else f"no table '{wanted}'"
    expected = "one that says what was shown when" if wanted is None else f"a table of intervals or IndexSeries{_near(wanted, there)}"
    found += f" (there: {', '.join(there) or 'none'})"
    raise NwbCompactError(file_path, found=found, expected=expected, next_step="name the right one as stimuli.table")


def _log(shown: Any, images: FileImages | None, stimuli: Stimuli, where: str) -> StimulusLog:
    columns = _of_series(shown) if shown.neurodata_type == "IndexSeries" else _of_table(shown, stimuli, where)
    onset_s = columns["onset"].astype(np.float64)
    image, is_shown = _names(columns["image"], images, stimuli, where, from_0=shown.neurodata_type == "IndexSeries")
    is_valid = is_shown & np.isfinite(onset_s)
    if "is_valid" in columns:
        is_valid &= _truth(columns["is_valid"], stimuli)
    if not is_valid.any():
        next_step = "correct stimuli.columns, stimuli.blank or stimuli.valid_values"
        raise NwbCompactError(where, found=f"no valid row of {len(onset_s)}", expected="presentations", next_step=next_step)
    order = np.argsort(onset_s, kind="stable")
    offset_s = columns["offset"].astype(np.float64)[order] if "offset" in columns else None
    code = _codes(columns["code"])[order] if "code" in columns else None
    return StimulusLog(tuple(image[row] for row in order), onset_s[order], offset_s, is_valid[order], code)


def _of_series(series: Any) -> dict[str, np.ndarray]:
    image = np.asarray(series.data[:])
    times = series.starting_time + np.arange(len(image)) / series.rate if series.timestamps is None else np.asarray(series.timestamps[:])
    return {"image": image, "onset": times}


def _of_table(rows: Any, stimuli: Stimuli, where: str) -> dict[str, np.ndarray]:
    named, told = stimuli.columns, stimuli.columns.model_fields_set
    wanted = {
        "image": named.image,
        "onset": onset_column(stimuli) if "onset" in told else c.START_TIME,
        "offset": named.offset or c.STOP_TIME,
        "is_valid": named.is_valid,
        "code": named.code,
    }
    for key, name in wanted.items():
        if name is not None and name not in rows.colnames:
            found, expected = f"no column '{name}' (there: {', '.join(rows.colnames)})", f"a column of it{_near(name, rows.colnames)}"
            raise NwbCompactError(where, found=found, expected=expected, next_step=f"name the right one as stimuli.columns.{key}")
    return {key: np.asarray(rows[name].data[:]) for key, name in wanted.items() if name is not None}


def _names(
    values: np.ndarray, images: FileImages | None, stimuli: Stimuli, where: str, *, from_0: bool
) -> tuple[list[str], Bool[np.ndarray, "presentation"]]:
    """What each row showed, by the name of an image in the file where they are there; and whether it showed anything."""
    nothing = {plain(word) for word in stimuli.blank} | set(NO_VALUE)
    texts = [plain(str(value)) for value in values]
    is_shown = np.array([not (text in nothing or _is_negative(text)) for text in texts], bool)
    shown = {text for text, is_one in zip(texts, is_shown, strict=True) if is_one}
    said = {text: str(value) for text, value in zip(texts, values, strict=True)}
    if all(text.isdecimal() for text in shown):
        if images is not None:
            said = _by_number(shown, images, 0 if from_0 else images.first_number, where)
        else:
            # An IndexSeries counts from 0; the images in a folder are counted as every log counts them.
            said = {text: str(int(text) + from_0 * stimuli.first_number) for text in shown}
    return [said[text] if is_one else BLANK for text, is_one in zip(texts, is_shown, strict=True)], is_shown


def _by_number(shown: set[str], images: FileImages, first: int, where: str) -> dict[str, str]:
    """Names of the images that numbers mean: those that are called so, if all are, else by the order of the images."""
    called = {name.removeprefix(NUMBERED).rsplit(".", 1)[0]: name for name in images.images.name}
    if shown <= set(called):
        return called
    if not images.is_ordered:
        next_step = "name a column with the names of the images, or give the images as stimuli.images"
        raise NwbCompactError(where, found="numbers of images without order_of_images", expected="their order", next_step=next_step)
    last = first + len(images.images) - 1
    outside = sorted(int(text) for text in shown if not first <= int(text) <= last)
    if outside:
        found = f"image number {outside[0]}" + (f" and {len(outside) - 1} other numbers" if len(outside) > 1 else "")
        expected = f"{first} to {last}, for the {len(images.images)} images in the file"
        raise NwbCompactError(where, found=found, expected=expected, next_step="correct stimuli.first_number, columns.image or templates")
    return {text: images.images.name[int(text) - first] for text in shown}


def _near(name: str, known: Iterable[str]) -> str:
    return f" ({nearest(name, list(known))})" if known else ""


def _is_negative(text: str) -> bool:
    return text.startswith("-") and text[1:].replace(".", "", 1).isdecimal()


def _truth(values: np.ndarray, stimuli: Stimuli) -> Bool[np.ndarray, "presentation"]:
    if values.dtype.kind in "biuf":
        return np.asarray(np.nan_to_num(values.astype(np.float64)) != 0)
    yes = {plain(value) for value in stimuli.valid_values}
    return np.array([plain(str(value)) in yes for value in values], bool)


def _codes(values: np.ndarray) -> Integer[np.ndarray, "presentation"]:
    numbers: Float[np.ndarray, "presentation"] = values.astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, NO_CODE).astype(np.int64)
