"""What was shown, as an NWB file of another program says: its table of intervals or IndexSeries as text, read as any stimulus log."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.session import BLANK, Images
from nwb_compact_conversion.session_yaml import LogColumns, Stimuli
from nwb_compact_conversion.sources.foreign_images import NUMBERED, FileImages, read_file_images
from nwb_compact_conversion.stimulus.log_table import as_text
from nwb_compact_conversion.stimulus.logged_images import rows_of_images
from nwb_compact_conversion.stimulus.stimulus_log import NO_VALUE, StimulusLog, log_of, onset_column, plain

Columns = dict[str, tuple[str, ...]]


def read_foreign_log(nwbfile: Any, stimuli: Stimuli, file_path: Path) -> tuple[StimulusLog, Images | None]:
    """The log in the order of its onsets, and the images of the file; see `foreign_nwb.read_foreign_nwb`.

    Raises
    ------
    NwbCompactError
        If there is no such table, column or set of images, no row is valid, or as `log_of` and `read_file_images`.
    """
    shown = _log_of(nwbfile, stimuli, file_path)
    where = f"{file_path}: {shown.name}"
    if stimuli.onset_unit != "s":
        next_step = "leave it out; a column in another unit has to be corrected in the file"
        raise NwbCompactError("stimuli.onset_unit", found=stimuli.onset_unit, expected="s, as all times of NWB are", next_step=next_step)
    is_series = shown.neurodata_type == "IndexSeries"
    columns, told = _of_series(shown, stimuli) if is_series else _of_table(shown, stimuli, where)
    images = None
    if stimuli.images is None:
        images = read_file_images(nwbfile, stimuli, file_path, shown.indexed_images if is_series else None)
    log = log_of(columns, told, where)
    is_shown = _is_shown(log.image, stimuli)
    is_valid = log.is_valid & is_shown
    if not is_valid.any():
        next_step = "correct stimuli.columns, stimuli.blank or stimuli.valid_values"
        raise NwbCompactError(where, found=f"no valid row of {len(log)}", expected="presentations", next_step=next_step)
    values = [text for text, is_one in zip(log.image, is_shown, strict=True) if is_one]
    meant = _meant(values, images, stimuli, where, is_series)
    image = [meant[text] if is_one else BLANK for text, is_one in zip(log.image, is_shown, strict=True)]
    order = np.argsort(log.onset_s, kind="stable")
    further = {name: values[order] for name in ("offset_s", "code") if (values := getattr(log, name)) is not None}
    log = replace(log, image=tuple(image[row] for row in order), onset_s=log.onset_s[order], is_valid=is_valid[order], **further)
    return log, None if images is None else images.images


# The table --------------------------------------------------------------------------------------------------------------


def _log_of(nwbfile: Any, stimuli: Stimuli, file_path: Path) -> Any:
    """The table or IndexSeries that says what was shown when."""
    there = dict(nwbfile.intervals or {}) | {one.name: one for one in nwbfile.stimulus.values() if one.neurodata_type == "IndexSeries"}
    there |= {name: one for name in ("trials", "epochs") if (one := getattr(nwbfile, name)) is not None}
    there.pop("invalid_times", None)  # they show nothing; the units' reader cuts them out
    wanted = stimuli.table
    if wanted in there:
        return there[wanted]
    if wanted is None and len(there) == 1:
        return next(iter(there.values()))
    found = f"{'no' if not there else len(there)} tables" if wanted is None else f"no table '{wanted}'"
    expected = "one that says what was shown when" if wanted is None else f"a table of intervals or IndexSeries{_near(wanted, there)}"
    found += f" (there: {', '.join(there) or 'none'})"
    raise NwbCompactError(file_path, found=found, expected=expected, next_step="name the right one as stimuli.table")


def _of_series(series: Any, stimuli: Stimuli) -> tuple[Columns, Stimuli]:
    image = np.asarray(series.data[:])
    times = series.starting_time + np.arange(len(image)) / series.rate if series.timestamps is None else np.asarray(series.timestamps[:])
    return {"image": _texts(image), "onset": _texts(times)}, stimuli.model_copy(update={"columns": LogColumns()})


def _of_table(rows: Any, stimuli: Stimuli, where: str) -> tuple[Columns, Stimuli]:
    """The columns as text, and the settings with the names that NWB gives to onsets and offsets."""
    named = stimuli.columns
    onset = onset_column(stimuli) if "onset" in named.model_fields_set else c.START_TIME
    named = named.model_copy(update={"onset": onset, "offset": named.offset or c.STOP_TIME})
    columns = {}
    for key, name in named.model_dump(exclude_none=True).items():
        if name not in rows.colnames:
            found, expected = f"no column '{name}' (there: {', '.join(rows.colnames)})", f"a column of it{_near(name, rows.colnames)}"
            raise NwbCompactError(where, found=found, expected=expected, next_step=f"name the right one as stimuli.columns.{key}")
        values = np.asarray(rows[name].data[:])
        if f"{name}_index" in {one.name for one in rows.columns} or values.ndim != 1:
            found, next_step = "several values a row", "name another column, or make a table with a row for each presentation"
            raise NwbCompactError(f"{where}: {name}", found=found, expected="one value a presentation", next_step=next_step)
        texts = _texts(values)
        # The words that mark onsets are whole numbers from 0 on; programs write -1 for none.
        columns[name] = tuple("" if _is_negative(text) else text for text in texts) if key == "code" else texts
    return columns, stimuli.model_copy(update={"columns": named})


def _texts(values: np.ndarray) -> tuple[str, ...]:
    return tuple(as_text(value) for value in values.tolist())


# Its images -------------------------------------------------------------------------------------------------------------


def _is_shown(texts: Sequence[str], stimuli: Stimuli) -> Bool[np.ndarray, "presentation"]:
    nothing = {plain(word) for word in stimuli.blank} | set(NO_VALUE)
    return np.array([not (plain(text) in nothing or _is_negative(text)) for text in texts], bool)


def _meant(values: Sequence[str], images: FileImages | None, stimuli: Stimuli, where: str, is_series: bool) -> dict[str, str]:
    """The name of the image in the file that each value means; without images in the file what a log would say of those elsewhere."""
    if images is None:
        # An IndexSeries counts from 0; the images in a folder are counted as every log counts them.
        return {value: str(int(value) + stimuli.first_number) if is_series else value for value in values}
    numbers = {value: int(plain(value)) for value in values if plain(value).isdecimal()}
    names, in_file = images.images.name, stimuli.model_copy(update={"images": Path(images.where), "blank": ()})
    rows = rows_of_images(where, [value for value in values if value not in numbers], names, in_file)
    return {value: names[row] for value, row in rows.items()} | _by_number(numbers, images, stimuli, where, is_series)


def _by_number(numbers: dict[str, int], images: FileImages, stimuli: Stimuli, where: str, is_series: bool) -> dict[str, str]:
    """Names of the images that numbers mean: those that are called so, if all are, else by their order in the file.

    An index of an IndexSeries always is a place in that order.
    """
    names, first = images.images.name, 0 if is_series else images.first_number
    stems = {name: stem for name in names if (stem := name.removeprefix(NUMBERED).rsplit(".", 1)[0]).isdecimal()}
    there = Counter(map(int, stems.values()))
    called = {int(stem): name for name, stem in stems.items() if there[int(stem)] == 1}
    if not is_series and all(number in called for number in numbers.values()):
        return {value: called[number] for value, number in numbers.items()}
    if not images.is_ordered:
        next_step = "name a column with the names of the images, or give the images as stimuli.images"
        raise NwbCompactError(where, found="numbers of images without order_of_images", expected="their order", next_step=next_step)
    last = first + len(names) - 1
    outside = sorted(number for number in numbers.values() if not first <= number <= last)
    if outside:
        found = f"image number {outside[0]}" + (f" and {len(outside) - 1} other numbers" if len(outside) > 1 else "")
        expected = f"{first} to {last}, for the {len(names)} images in the file"
        raise NwbCompactError(where, found=found, expected=expected, next_step="correct stimuli.first_number, columns.image or templates")
    if not is_series and "first_number" not in stimuli.model_fields_set:
        _require_agreement(where, list(numbers), names, stimuli.model_copy(update={"first_number": first, "blank": ()}))
    return {value: names[number - first] for value, number in numbers.items()}


def _require_agreement(where: str, values: Sequence[str], names: Sequence[str], stimuli: Stimuli) -> None:
    """Nobody said where the count begins: then numbers in the names of the images must not say otherwise."""
    try:
        rows_of_images(where, values, names, stimuli)
    except NwbCompactError as error:
        fault, next_step = error.fault, "set stimuli.first_number to the number of the file's first image, or name a column with names"
        raise NwbCompactError(where, found=fault.found, expected=fault.expected, next_step=next_step) from error


def _is_negative(text: str) -> bool:
    return text.startswith("-") and text[1:].replace(".", "", 1).isdecimal()


def _near(name: str, known: Iterable[str]) -> str:
    return f" ({nearest(name, list(known))})" if known else ""
