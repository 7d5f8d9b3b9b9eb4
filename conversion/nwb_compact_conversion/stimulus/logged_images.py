"""Which image each value of a stimulus log means.

A log that names files leaves no doubt. One that counts them relies on an order, so whatever in the file names speaks against it is heard.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import PurePosixPath

from nwb_compact.errors import NwbCompactError, counted
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.stimulus.stimulus_log import plain

COUNTING_SHARE = 0.9
"""Numbers in file names count images where this share of them differs: a year does not, nor a number within categories."""


def rows_of_images(where: str, logged: Sequence[str], names: Sequence[str], settings: Stimuli) -> dict[str, int]:
    """Row of the image that each value of a log means; a blank is one past the last image.

    A value is a file name, with or without ending and folder; else a number, counted from `settings.first_number` in the order of the
    names. Numbers in the names must then not say otherwise. Values of `settings.blank` are blanks unless they are such a file name.

    Parameters
    ----------
    where
        What an error calls the log.
    logged
        The values, one a presentation.
    names
        File names in natural order.
    settings
        Also names the place of the images in errors.

    Raises
    ------
    NwbCompactError
        If a value means no image or may mean two, or the count contradicts the numbers in the file names.

    Examples
    --------
    >>> rows_of_images("log.csv", ["b", "1", "1", "none"], ["a.png", "b.png"], Stimuli(blank=("none",)))
    {'1': 0, 'b': 1, 'none': 2}
    """
    values = dict.fromkeys(logged)
    numbers = {value: int(plain(value)) for value in values if re.fullmatch(r"[0-9]{1,18}", plain(value))}
    by_name = _by_name(where, [value for value in values if value not in numbers], names)
    blank = {plain(value) for value in settings.blank}
    blanks = {value: len(names) for value in values if plain(value) in blank and value not in by_name}
    shown = {number for value, number in numbers.items() if value not in blanks}
    row_of_number = _by_number(where, shown, names, settings.first_number)
    by_number = {value: row_of_number[number] for value, number in numbers.items() if number in row_of_number}
    known = by_number | by_name | blanks
    absent = [value for value in values if value not in known]
    if absent:
        n_rows = sum(value not in known for value in logged)
        some = ", ".join(map(repr, absent[:3])) + ", ..." * (len(absent) > 3)
        verb = "is" if len(absent) == 1 else "are"
        found = f"{counted(len(absent), 'image')} that {verb} not there ({some}; {counted(n_rows, 'row')})"
        expected = f"images of {settings.images or 'stimuli.images'} (from {names[0]!r} to {names[-1]!r})"
        next_step = "add them or correct the log; values that mean that nothing was shown belong under stimuli.blank"
        raise NwbCompactError(where, found=found, expected=expected, next_step=next_step)
    return known


def _by_name(where: str, values: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    # macOS writes accents as letters of their own, most others do not: NFC makes them one.
    whole = {unicodedata.normalize("NFC", name): row for row, name in enumerate(names)}
    without_ending = defaultdict(list)
    for name, row in whole.items():
        without_ending[PurePosixPath(name).stem].append(row)
    rows: dict[str, int] = {}
    for value in values:
        name = unicodedata.normalize("NFC", re.split(r"[\\/]", value)[-1])
        meant = [whole[name]] if name in whole else without_ending.get(name, [])
        if len(meant) > 1:
            raise _ambiguous(where, value, [names[row] for row in meant])
        if meant:
            rows[value] = meant[0]
    return rows


def _by_number(where: str, numbers: set[int], names: Sequence[str], first_number: int) -> Mapping[int, int]:
    """Row of each number that has one: by position, or by name where files are called 1.png or 001.png and only that fits.

    Refused where numbers in the file names say otherwise, be it of one image only: if a file is missing or the count begins elsewhere,
    every later image would be taken for its neighbour.
    """
    whole = defaultdict(list)
    for row, name in enumerate(names):
        if re.fullmatch("[0-9]{1,18}", stem := PurePosixPath(name).stem):
            whole[int(stem)].append(row)
    named = {number: whole[number] for number in sorted(numbers & set(whole))}
    for number, rows in named.items():
        if len(rows) > 1:
            raise _ambiguous(where, str(number), [names[row] for row in rows])
    position = _positions(numbers, len(names), first_number)
    if len(named) == len(numbers) > len(position):
        return {number: rows[0] for number, rows in named.items()}
    carried = _carried_numbers(names)
    wrong = [number for number, row in position.items() if number not in carried[row]]
    if not wrong or numbers.isdisjoint(set[int]().union(*carried)):
        return position
    found = f"image number {wrong[0]}, which is {names[position[wrong[0]]]!r} when counted from {first_number}"
    fitting = [first for first in (0, 1) if _agrees(_positions(numbers, len(names), first), carried, len(numbers))]
    next_step = "write file names in the log" if not fitting else f"set stimuli.first_number: {fitting[0]}, or write file names in the log"
    raise NwbCompactError(where, found=found, expected="the number that is in the file name", next_step=next_step)


def _positions(numbers: set[int], n_names: int, first_number: int) -> dict[int, int]:
    return {number: number - first_number for number in sorted(numbers) if 0 <= number - first_number < n_names}


def _agrees(position: Mapping[int, int], carried: Sequence[set[int]], n_numbers: int) -> bool:
    return len(position) == n_numbers and all(number in carried[row] for number, row in position.items())


def _carried_numbers(names: Sequence[str]) -> list[set[int]]:
    """The numbers in each file name that count images: at a place where most names have one and hardly any recurs."""
    found = [[int(digits) for digits in re.findall("[0-9]{1,18}", PurePosixPath(name).stem)] for name in names]
    places = [[number for number in place if number is not None] for place in zip_longest(*found)]
    counts = [2 * len(place) > len(names) and len(set(place)) >= COUNTING_SHARE * len(place) for place in places]
    return [{number for number, is_count in zip(numbers, counts, strict=False) if is_count} for numbers in found]


def _ambiguous(where: str, value: str, names: Sequence[str]) -> NwbCompactError:
    found, next_step = f"{value!r}, which may be {' or '.join(map(repr, names))}", "write the ending in the log, or rename one"
    return NwbCompactError(where, found=found, expected="one image of that name", next_step=next_step)
