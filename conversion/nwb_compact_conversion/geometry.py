"""Where electrodes are: Utah .cmp maps, CSV tables, and probes saved by probeinterface."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.reading import existing_file, reading
from nwb_compact_conversion.text_table import read_known_columns

UTAH_PITCH_UM = 400.0
"""Distance of neighbouring electrodes of a Utah array, micrometres (Maynard, Nordhausen & Normann 1997)."""
BANK_SIZE = 32
"""Electrodes of one connector bank of a Blackrock front end: bank A is channels 1 to 32, B 33 to 64, and so on."""
EXPECTED = "a Utah map (.cmp), a table (.csv) or a probeinterface file (.json)"
NEXT = "correct the file that device.geometry names"


@dataclass(frozen=True)
class Contact:
    """One electrode of a geometry file."""

    known_as: tuple[str, ...]
    """Names or numbers by which its channel may be called in the recording; `#7` is the eighth channel."""
    x_um: float
    y_um: float
    array: str | None = None
    location: str | None = None


def read_contacts(file_path: Path) -> tuple[Contact, ...]:
    """The contacts of a geometry file.

    Parameters
    ----------
    file_path
        A .cmp has columns col, row, bank, elec and perhaps label, rows counted upwards, at a pitch of 400 micrometres; a contact is
        known by its label and by its channel number. A .csv has columns channel, x_um, y_um and perhaps array and location. A .json
        is what `probeinterface.write_probeinterface` saved; a contact is known by its device channel index, else by its id.

    Raises
    ------
    NwbCompactError
        If the file is absent, has unknown columns or values that are no numbers, or gives a channel twice.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "array.cmp")
    ...     _ = file.write_text("//made by Blackrock\\nCerebus mapping\\n//col row bank elec label\\n0 0 A 1 elec1\\n3 1 B 2 elec34\\n")
    ...     read_contacts(file)[1]
    Contact(known_as=('elec34', '34'), x_um=1200.0, y_um=400.0, array=None, location=None)
    """
    existing_file(file_path, EXPECTED, tuple(_READERS))
    with reading(file_path, EXPECTED):
        contacts = tuple(_READERS[file_path.suffix.lower()](file_path))
    if not contacts:
        raise NwbCompactError(file_path, found="no electrode", expected="at least one", next_step=NEXT)
    seen: set[str] = set()
    for contact in contacts:
        if twice := seen & set(contact.known_as):
            raise NwbCompactError(file_path, found=f"channel {min(twice)!r} twice", expected="each once", next_step=NEXT)
        seen |= set(contact.known_as)
    return contacts


def _utah(file_path: Path) -> Iterator[Contact]:
    lines = [(number, line.split()) for number, line in enumerate(file_path.read_text("latin-1").splitlines(), 1)]
    rows = [(number, words) for number, words in lines if words and not words[0].startswith("//")]
    # The first line that is no comment may be a description of the array.
    for number, words in rows if rows and _is_row(rows[0][1]) else rows[1:]:
        if not _is_row(words):
            found, expected = f"{' '.join(words)!r} in line {number}", "column, row, bank (a letter), electrode and perhaps a label"
            raise NwbCompactError(file_path, found=found, expected=expected, next_step=NEXT)
        column, row, bank, electrode = int(words[0]), int(words[1]), words[2].upper(), int(words[3])
        channel = str(BANK_SIZE * (ord(bank) - ord("A")) + electrode)
        known_as = (words[4], channel) if len(words) > 4 and words[4] != channel else (channel,)
        yield Contact(known_as, UTAH_PITCH_UM * column, UTAH_PITCH_UM * row)


def _is_row(words: list[str]) -> bool:
    numbers = all(word.isdecimal() for word in (words[:2] + words[3:4]))
    return len(words) >= 4 and numbers and len(words[2]) == 1 and words[2].isalpha()


def _table(file_path: Path) -> Iterator[Contact]:
    needed = ["channel", "x_um", "y_um"]
    table = read_known_columns(file_path, needed, ["array", "location"], expected=f"columns {', '.join(needed)}", next_step=NEXT)
    nothing = ("",) * len(table["channel"])
    columns = [table[name] for name in needed] + [table.get(name, nothing) for name in ("array", "location")]
    for number, (channel, x, y, array, location) in enumerate(zip(*columns, strict=True), 1):
        x_um, y_um = _number(file_path, number, "x_um", x), _number(file_path, number, "y_um", y)
        yield Contact((channel,), x_um, y_um, array or None, location or None)


def _number(file_path: Path, row: int, column: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        found, expected = f"{value!r} as {column} in row {row}", "a number of micrometres, with a decimal point"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=NEXT)
    return number


def _probes(file_path: Path) -> Iterator[Contact]:
    from probeinterface import read_probeinterface

    group = read_probeinterface(file_path)
    for number, probe in enumerate(group.probes):
        name = str(probe.annotations.get("name") or getattr(probe, "name", None) or f"probe {number}")
        shanks = None if probe.shank_ids is None or len(set(probe.shank_ids)) < 2 else probe.shank_ids
        for index, (x, y) in enumerate(probe.contact_positions[:, :2]):
            wired = None if probe.device_channel_indices is None else int(probe.device_channel_indices[index])
            if wired == -1:
                continue
            known = str(probe.contact_ids[index]) if probe.contact_ids is not None else f"#{index}"
            array = name if shanks is None else f"{name} shank {shanks[index]}"
            yield Contact((known if wired is None else f"#{wired}",), float(x), float(y), array)


_READERS: dict[str, Callable[[Path], Iterator[Contact]]] = {".cmp": _utah, ".csv": _table, ".json": _probes}
