"""What the stimulus program says was shown, and when on its own clock."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.stimulus.log_table import read_columns

UNIT_S = {"s": 1, "ms": 1000, "us": 1_000_000}
"""How many of a unit make a second."""
NO_VALUE = ("", "nan", "na", "n/a", "none", "null")
"""How programs write that there is no value, in any case."""
NO = {"0", "-0", "false", "no", "incorrect", *NO_VALUE}
"""How programs write, in any case, that a presentation does not count."""
NO_CODE = -1
"""Code of a row that has none."""
RESET_STEPS = 5
"""A fall of more than this many typical steps between onsets is a clock that started again, a smaller one rows that changed places."""


@dataclass(frozen=True, eq=False)
class StimulusLog:
    """One row a presentation, in the order shown."""

    image: tuple[str, ...]
    """As written: a file name, or a number."""
    onset_s: Float[np.ndarray, "presentation"]
    """On the stimulus clock, rising; NaN where the log has none."""
    offset_s: Float[np.ndarray, "presentation"] | None
    """On the stimulus clock; NaN where the log has none, None where it has no such column."""
    is_valid: Bool[np.ndarray, "presentation"]
    """False where the log says so, and where it has no onset."""
    code: Integer[np.ndarray, "presentation"] | None
    """The digital word sent at the onset, `NO_CODE` where none was; None where the log has no such column."""

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, eq=False)
class ShownOrder:
    """What a log without times tells: one row a presentation, in the order shown."""

    image: tuple[str, ...]
    """As in `StimulusLog`."""
    is_valid: Bool[np.ndarray, "presentation"]
    """False where the log says so."""


def read_order(settings: Stimuli) -> ShownOrder:
    """The log that `settings.log` names, where `settings.columns` names no onsets.

    Raises
    ------
    NwbCompactError
        If there is no such log or column, it has no rows, or as `validity`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "log.csv")
    ...     _ = file.write_text("image\\nb.png\\na.png")
    ...     read_order(Stimuli.model_validate({"log": file, "columns": {"onset": None}})).image
    ('b.png', 'a.png')
    """
    named = settings.columns
    file_path, column = _columns(settings, named.image, named.is_valid)
    return ShownOrder(column[named.image], _column_of_validity(file_path, column, settings))


def onset_column(settings: Stimuli) -> str:
    """The name of the column of onsets; raises where `settings` say that there is none."""
    if settings.columns.onset is None:
        expected, next_step = "a column of onsets: only a matrix of counts (convert counts) can do without", "name the column"
        raise NwbCompactError("stimuli.columns.onset", found="null", expected=expected, next_step=next_step)
    return settings.columns.onset


def read_log(settings: Stimuli) -> StimulusLog:
    """The log that `settings.log` names, with the columns that `settings.columns` names.

    A row without an onset stays, as an invalid one, though it cannot be placed: how many are left out is for others to say.

    Raises
    ------
    NwbCompactError
        If there is no such log or column, it has no rows, a time or code is no number, onsets do not rise, an image goes off before it
        comes on, or as `validity`. Rows are counted from 1, without the header.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "log.csv")
    ...     _ = file.write_text("image;onset\\na.png;250\\nb.png;\\na.png;750")
    ...     log = read_log(Stimuli(log=file, onset_unit="ms"))
    >>> log.image, log.onset_s, log.is_valid
    (('a.png', 'b.png', 'a.png'), array([0.25,  nan, 0.75]), array([ True, False,  True]))
    """
    named, onset = settings.columns, onset_column(settings)
    file_path, column = _columns(settings, named.image, onset, named.offset, named.is_valid, named.code)
    _require_rising(f"{file_path}: {onset}", _seconds(file_path, column, onset, settings))
    return log_of(column, settings, file_path)


def log_of(column: Mapping[str, tuple[str, ...]], settings: Stimuli, where: object) -> StimulusLog:
    """The log in these columns, wherever they come from; rows stay in their order, and whether that is the order of time is not asked.

    Parameters
    ----------
    column
        A text a row, under the names that `settings.columns` gives.
    settings
        Says what the columns mean.
    where
        What an error calls the table.

    Raises
    ------
    NwbCompactError
        If a time or code is no number, an image goes off before it comes on, or as `validity`.

    Examples
    --------
    >>> log_of({"image": ("b", "a"), "onset": ("2.5", "1")}, Stimuli(), "trials").onset_s
    array([2.5, 1. ])
    """
    named, onset = settings.columns, onset_column(settings)
    onset_s = _seconds(where, column, onset, settings)
    offset_s = None if named.offset is None else _seconds(where, column, named.offset, settings)
    if offset_s is not None and (offset_s < onset_s).any():
        found = f"an image that goes off before it comes on in row {np.flatnonzero(offset_s < onset_s)[0] + 1}"
        next_step = "name the right column, or correct that row"
        raise NwbCompactError(f"{where}: {named.offset}", found=found, expected="offsets after onsets", next_step=next_step)
    is_valid = _column_of_validity(where, column, settings)
    code = None if named.code is None else _codes(f"{where}: {named.code}", column[named.code])
    return StimulusLog(column[named.image], onset_s, offset_s, is_valid & np.isfinite(onset_s), code)


def validity(values: Sequence[str], settings: Stimuli, where: object) -> Bool[np.ndarray, "presentation"]:
    """Which presentations count, from a column that says so.

    Where a lab gives `settings.valid_values` nothing else means yes: MonkeyLogic writes 0 for a correct trial and other numbers for
    errors. Where it does not, the column must hold yes and no as anyone would read them; a missing value then means no.

    Parameters
    ----------
    values
        The column, as text.
    settings
        Says which values mean yes.
    where
        What an error calls the column.

    Raises
    ------
    NwbCompactError
        If a value may mean anything, or no row is valid.

    Examples
    --------
    >>> validity(["1", "False", "1.0", ""], Stimuli(), "log.csv: ok")
    array([ True, False,  True, False])
    >>> validity(["0", "-1"], Stimuli(valid_values=("0",)), "log.csv: error")
    array([ True, False])
    """
    yes = {plain(value) for value in settings.valid_values}
    column = [plain(value) for value in values]
    unclear = [] if "valid_values" in settings.model_fields_set else list(dict.fromkeys(one for one in column if one not in yes | NO))
    is_valid = np.array([value in yes for value in column], bool)
    if is_valid.any() and not unclear:
        return is_valid
    found = f"no valid row (values: {_some(values)})"
    expected, next_step = f"some of {', '.join(settings.valid_values)}", "set stimuli.valid_values"
    if unclear:
        found = f"values that are neither yes nor no: {_some([value for value in values if plain(value) in unclear])}"
        expected = "1 or 0, true or false, yes or no, correct or incorrect"
        next_step = "set stimuli.valid_values to those that mean yes, or name the right column"
    raise NwbCompactError(where, found=found, expected=expected, next_step=next_step)


def _some(values: Sequence[str], most: int = 5) -> str:
    """The values, each once, in the order in which they come."""
    once = list(dict.fromkeys(values))
    return ", ".join(map(repr, once[:most])) + (f" and {len(once) - most} more" if len(once) > most else "")


def _columns(settings: Stimuli, *names: str | None) -> tuple[Path, Mapping[str, tuple[str, ...]]]:
    """The log's place, and the columns that have a name."""
    if settings.log is None:
        raise NwbCompactError("stimuli.log", found="nothing", expected="a log", next_step="name it in session.yaml")
    return settings.log, read_columns(settings.log, [name for name in names if name])


def _column_of_validity(where: object, columns: Mapping[str, tuple[str, ...]], settings: Stimuli) -> Bool[np.ndarray, "presentation"]:
    """All rows count where no column says otherwise."""
    named = settings.columns
    if named.is_valid is None:
        return np.ones(len(columns[named.image]), bool)
    return validity(columns[named.is_valid], settings, f"{where}: {named.is_valid}")


def _seconds(where: object, columns: Mapping[str, tuple[str, ...]], name: str, settings: Stimuli) -> Float[np.ndarray, "presentation"]:
    return _numbers(f"{where}: {name}", columns[name], f"in {settings.onset_unit}") / UNIT_S[settings.onset_unit]


def plain(text: str) -> str:
    """A value as it is compared with another: in any case, a whole number without decimals.

    Examples
    --------
    >>> plain("True"), plain("1.0"), plain("1.5")
    ('true', '1', '1.5')
    """
    number = text.strip().casefold()
    whole, _, decimals = number.partition(".")
    return whole if whole.removeprefix("-").isdecimal() and not decimals.strip("0") else number


def _numbers(where: str, column: Sequence[str], expected: str) -> Float[np.ndarray, "presentation"]:
    numbers = np.full(len(column), np.nan)
    for row, text in enumerate(column):
        if text.casefold() in NO_VALUE:
            continue
        with suppress(ValueError):
            numbers[row] = float(text)
        if not np.isfinite(numbers[row]):
            found, next_step = f"{text!r} in row {row + 1}", "correct that row, or name the right column"
            raise NwbCompactError(where, found=found, expected=f"a number, {expected}", next_step=next_step)
    return numbers


def _require_rising(where: str, onset_s: Float[np.ndarray, "presentation"]) -> None:
    rows = np.flatnonzero(np.isfinite(onset_s))
    if not len(rows):
        raise NwbCompactError(where, found="no onset in any row", expected="onsets", next_step="name the right column")
    steps = np.diff(onset_s[rows])
    if (steps > 0).all():
        return
    wrong = int(np.flatnonzero(steps <= 0)[0])
    row, fall = rows[wrong + 1] + 1, -steps[wrong]
    if (steps > 0).any() and fall > RESET_STEPS * np.median(steps[steps > 0]):
        found = f"a clock reset at row {row} (the onset falls by {fall:.6g} s)"
        next_step = "split the log and the recording there, and convert each part as a session"
    else:
        found = f"an onset in row {row} that is {f'{fall:.6g} s before' if fall else 'the same as'} the one above it"
        next_step = "sort the log in the order shown, one row a presentation"
    raise NwbCompactError(where, found=found, expected="onsets that rise from row to row", next_step=next_step)


def _codes(where: str, column: Sequence[str]) -> Integer[np.ndarray, "presentation"]:
    numbers = _numbers(where, column, "the digital word that was sent")
    broken = np.flatnonzero(np.isfinite(numbers) & ((numbers != np.round(numbers)) | (numbers < 0) | (numbers >= 2**53)))
    if len(broken):
        found = f"{column[broken[0]]!r} in row {broken[0] + 1}"
        raise NwbCompactError(where, found=found, expected="a whole number from 0 on", next_step="name the right column")
    return np.where(np.isfinite(numbers), numbers, NO_CODE).astype(np.int64)
