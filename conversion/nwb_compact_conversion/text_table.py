"""Tables as text: separated by commas, semicolons (as Excel does where a comma is the decimal sign) or tabs, in UTF-8 or UTF-16."""

import codecs
import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from nwb_compact.errors import NwbCompactError, counted, nearest, one_line

SEPARATORS = "\t;,"


def read_known_columns(
    file_path: Path, needed: Sequence[str], optional: Sequence[str] = (), *, expected: str, next_step: str
) -> dict[str, tuple[str, ...]]:
    """The columns of a table that has these and no others, a text a row; optional ones only where the table has them.

    Raises
    ------
    NwbCompactError
        As `read_rows` and `columns_of`, or if a column is missing or unknown. `expected` and `next_step` are what it says of the file.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "events.csv")
    ...     _ = file.write_text("time_s;code\\n0.5;7\\n")
    ...     read_known_columns(file, ["time_s", "code"], ["channel"], expected="a table", next_step="correct it")
    {'time_s': ('0.5',), 'code': ('7',)}
    """
    columns, known = columns_of(file_path, read_rows(file_path, expected)), [*needed, *optional]
    if missing := [name for name in needed if name not in columns]:
        found = f"no column {missing[0]!r} among {', '.join(map(repr, columns)) or 'none'}"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=next_step)
    if unknown := [name for name in columns if name not in known]:
        expected = f"a known column ({nearest(unknown[0], known)})"
        raise NwbCompactError(file_path, found=f"unknown column {unknown[0]!r}", expected=expected, next_step=next_step)
    return columns


def columns_of(file_path: Path, rows: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The columns of rows whose first is a header. Unnamed columns, such as the index that pandas writes, and empty rows are left out.

    Raises
    ------
    NwbCompactError
        If a column is there twice, or a row has more or fewer cells than the header; rows are counted from 1, without the header.

    Examples
    --------
    >>> columns_of(Path("log.csv"), [["", "image"], ["0", "a.png"], ["1", "b.png"], ["", ""]])
    {'image': ('a.png', 'b.png')}
    """
    header, *rows = [row for row in rows if any(row)] or [[]]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        found = f"more than one column {', '.join(map(repr, twice))}"
        raise NwbCompactError(file_path, found=found, expected="each column once", next_step="rename one of them")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            found, expected = f"{counted(len(row), 'cell')} in row {number}", f"{len(header)} as in the header"
            raise NwbCompactError(file_path, found=found, expected=expected, next_step="correct that row")
    return {name: tuple(row[column] for row in rows) for column, name in enumerate(header) if name}


def read_rows(file_path: Path, expected: str) -> list[list[str]]:
    """The cells of each line that has any, without the blanks around them, separated by what parts the first line into most cells.

    Raises
    ------
    NwbCompactError
        As `read_text`, or if quotes are not closed.
    """
    text = read_text(file_path, expected)
    try:
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(SEPARATORS, key=lambda one: len(next(csv.reader([first], delimiter=one), [])))
        rows = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
        return [[cell.strip() for cell in row] for row in rows if row]
    except csv.Error as error:
        found = f"a damaged table ({one_line(error)})"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step="save it again") from error


def read_text(file_path: Path, expected: str) -> str:
    """The text of a file.

    Raises
    ------
    NwbCompactError
        If it cannot be read, or is no text in UTF-8 or, where it says so, UTF-16.
    """
    try:
        content = file_path.read_bytes()
        # Excel's "Unicode text" is UTF-16 and says so.
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"bytes that are no text in UTF-8 ({one_line(error)})"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step="save it as UTF-8") from error
    except OSError as error:
        raise NwbCompactError(file_path, found=one_line(error), expected=expected, next_step="correct the path") from error
