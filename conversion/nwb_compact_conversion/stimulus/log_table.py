"""Columns of a table that a stimulus program wrote, as text: CSV and its relatives, JSON lines, MATLAB files.

Every cell is text until it is known what it means: "007" may be the name of an image, and a number of MATLAB the same as one of a CSV.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nwb_compact.errors import NwbCompactError, nearest, one_line
from nwb_compact_conversion.sources.array_files import Variables, read_variables
from nwb_compact_conversion.text_table import columns_of, read_rows, read_text

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".mat")
EXPECTED = "a log as .csv, .tsv, .jsonl or .mat"
Columns = Mapping[str, Sequence[str]]


def read_columns(file_path: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The columns of these names, a text a row; empty where the row has no value (also nan in numbers, null in JSON).

    Numbers of JSON and MATLAB are written without needless decimals: 5, not 5.0. In a MATLAB file a column is a variable, or a field of
    a structure or structure array: its name, or in full `structure.field`. Rows of a CSV that are empty altogether are no rows.

    Raises
    ------
    NwbCompactError
        If the file is missing, of another format, damaged, in an unknown encoding or without rows, a column is missing, there twice or
        of another length than the others.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "log.jsonl")
    ...     _ = file.write_text('{"image": 7, "onset": 0.5}\\n{"image": "a.png", "onset": null}')
    ...     read_columns(file, ["image", "onset"])
    {'image': ('7', 'a.png'), 'onset': ('0.5', '')}
    """
    if not file_path.is_file():
        raise NwbCompactError(file_path, found="no such file", expected=EXPECTED, next_step="correct stimuli.log")
    suffix = file_path.suffix.lower()
    if suffix not in SUFFIXES:
        found, next_step = f"a file that ends in {suffix or 'nothing'}", "save the log in one of these formats"
        raise NwbCompactError(file_path, found=found, expected=EXPECTED, next_step=next_step)
    if suffix == ".mat":
        picked = _of_matlab(file_path, names)
    else:
        table = (_json_lines if suffix == ".jsonl" else _separated)(file_path)
        picked = {name: tuple(table[_known(file_path, name, list(table))]) for name in names}
    lengths = {name: len(column) for name, column in picked.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} rows of {name!r}" for name, length in lengths.items())
        raise NwbCompactError(file_path, found=found, expected="columns of equal length", next_step="save the log again")
    if not max(lengths.values()):
        raise _empty(file_path)
    return picked


def _known(file_path: Path, name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    expected = f"a column {name!r} ({nearest(name, list(known))})"
    next_step = "correct stimuli.columns (null where the log has no such column)"
    raise NwbCompactError(file_path, found=f"columns {', '.join(known) or 'none'}", expected=expected, next_step=next_step)


def _empty(file_path: Path) -> NwbCompactError:
    return NwbCompactError(file_path, found="no row", expected="a row for each presentation", next_step="name the log of this session")


# Text -------------------------------------------------------------------------------------------------------------------


def _separated(file_path: Path) -> Columns:
    if not (columns := columns_of(file_path, read_rows(file_path, EXPECTED))):
        raise _empty(file_path)
    return columns


def _json_lines(file_path: Path) -> Columns:
    rows: list[dict[str, object]] = []
    for number, line in enumerate(read_text(file_path, EXPECTED).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row = f"what is no JSON ({one_line(error)})"
        if not isinstance(row, dict):
            found, expected = f"{str(row)[:100]} in line {number}", 'an object a line, such as {"image": 1}'
            raise NwbCompactError(file_path, found=found, expected=expected, next_step="correct that line")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [as_text(row.get(name)) for row in rows] for name in names}


def as_text(value: object) -> str:
    """A value of a table as text: empty where there is none, whole numbers without decimals, all others in full.

    Examples
    --------
    >>> as_text(5.0), as_text(0.1), as_text(float("nan")), as_text(True), as_text(" a.png ")
    ('5', '0.1', '', 'true', 'a.png')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value).strip() if isinstance(value, str) else json.dumps(value)
    if isinstance(value, float) and np.isnan(value):
        return ""
    return str(int(value)) if float(value).is_integer() else repr(value)


# MATLAB -----------------------------------------------------------------------------------------------------------------


def _of_matlab(file_path: Path, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    read = read_variables(file_path)
    found = [*read.numbers, *read.vectors, *read.text, *read.unread]
    return {name: _column(file_path, read, _in_full(file_path, name, found)) for name in names}


def _in_full(file_path: Path, name: str, found: Sequence[str]) -> str:
    """A field may be named without its structure where only one structure has it."""
    ends = [one for one in found if one == name or one.endswith(f".{name}")]
    if not ends:
        return _known(file_path, name, found)
    if len(ends) > 1 and name not in ends:
        next_step = "name it in full under stimuli.columns"
        raise NwbCompactError(file_path, found=f"{name!r} in several places ({', '.join(ends)})", expected="one", next_step=next_step)
    return name if name in ends else ends[0]


def _column(file_path: Path, read: Variables, name: str) -> tuple[str, ...]:
    if name in read.text:
        return tuple(value.strip() for value in read.text[name])
    values = read.numbers.get(name)
    if values is not None and sum(size > 1 for size in values.shape) <= 1:
        return tuple(as_text(float(value)) for value in values.ravel())
    cells = read.vectors.get(name)
    if cells is not None and all(cell.size <= 1 for cell in cells):
        return tuple(as_text(float(cell[0])) if cell.size else "" for cell in cells)
    found = read.unread.get(name) or (f"numbers of shape {values.shape}" if values is not None else "several numbers a row")
    next_step = "save a vector of numbers or a cell array of texts; a table by table2struct(log, 'ToScalar', true)"
    raise NwbCompactError(f"{file_path}: {name}", found=found, expected="one value a presentation", next_step=next_step)
