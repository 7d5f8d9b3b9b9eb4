"""What is wrong with a session file: one short check for each thing that can be.

The file is read as bare HDF5, since a file with a fault is often one that pynwb cannot read. Each check stands on its own
and is silent about what it needs but another check reports as missing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from nwb_compact import contract as c
from nwb_compact.errors import Fault, NwbCompactError, one_line
from nwb_compact.nwb_images import lazy_pixels
from nwb_compact.session import image_sha256

FEWEST_IMAGES = 20
"""Different images with a usable response that a fit needs at the very least."""
HASHED_BYTES = 100_000_000
"""Pixels whose hashes are compared, taken evenly over the session: all of most sessions, and about two seconds."""
HASHED_AT_ONCE = 256
CONVERT = "convert the session again; docs/nwb_layout.md says what a file holds"


def session_faults(hdf5: h5py.File, where: str) -> tuple[Fault, ...]:
    """Every fault of an open file that is meant to hold a session.

    Examples
    --------
    >>> with h5py.File("bare.h5", "w", driver="core", backing_store=False) as hdf5:
    ...     print(*session_faults(hdf5, "bare.h5"))
    bare.h5: found an HDF5 file without nwb_version, expected an NWB file. Next: convert the session to NWB
    """
    if "nwb_version" not in hdf5.attrs:
        return (Fault(where, "an HDF5 file without nwb_version", "an NWB file", "convert the session to NWB"),)
    ecephys = f"processing/{c.ECEPHYS}"
    parts = _Parts(
        where=where,
        hdf5=hdf5,
        images=_table(hdf5, f"stimulus/presentation/{c.IMAGE_TABLE}"),
        presentations=_table(hdf5, f"intervals/{c.PRESENTATIONS}", f"stimulus/presentation/{c.PRESENTATIONS}"),
        units=_table(hdf5, "units", f"{ecephys}/{c.NEURONS}"),
        response_units=_table(hdf5, f"{ecephys}/{c.RESPONSE_UNITS}"),
        counts=_table(hdf5, f"{ecephys}/{c.SPIKE_COUNTS}"),
        means=_table(hdf5, f"{ecephys}/{c.MEAN_RESPONSES}"),
    )
    return tuple(dict.fromkeys(fault for one in CHECKS for fault in _guarded(one, parts)))  # a server that fails does so in every check


@dataclass(frozen=True)
class _Table:
    """One table of the file."""

    group: h5py.Group

    @property
    def columns(self) -> list[str]:
        return [str(name) for name in self.group.attrs.get("colnames", ())]

    def __len__(self) -> int:
        return len(self.group["id"]) if "id" in self.group else 0

    def get(self, name: str) -> np.ndarray | None:
        """A whole column, None where it is absent."""
        if name not in self.group:
            return None
        data = self.group[name]
        return np.asarray(data.asstr()[()] if h5py.check_string_dtype(data.dtype) else data[()])


@dataclass(frozen=True)
class _Parts:
    """The file and the tables of a session, None where one is absent."""

    where: str
    hdf5: h5py.File
    images: _Table | None
    presentations: _Table | None
    units: _Table | None
    response_units: _Table | None
    counts: _Table | None
    means: _Table | None

    def fault(self, part: str, found: str, expected: str, next_step: str = CONVERT, *, stops_only_fits: bool = False) -> Fault:
        return Fault(f"{self.where}: {part}", found, expected, next_step, stops_only_fits)


def _table(hdf5: h5py.File, *paths: str) -> _Table | None:
    """The first of the paths that is a table."""
    found = (hdf5.get(path) for path in paths)
    return next((_Table(group) for group in found if isinstance(group, h5py.Group) and "colnames" in group.attrs), None)


def _guarded(check: Callable[[_Parts], Iterator[Fault]], parts: _Parts) -> Iterator[Fault]:
    try:
        yield from check(parts)
    except NwbCompactError as error:
        yield from error.faults
    except Exception as error:  # hostile files make h5py and numpy raise anything
        found = f"something that cannot be read ({type(error).__name__}: {one_line(error)})"
        yield parts.fault(check.__name__.strip("_").replace("_", " "), found, "a whole session file")


def _tables(parts: _Parts) -> Iterator[Fault]:
    needed = {c.IMAGE_TABLE: parts.images, "units": parts.units, c.RESPONSE_UNITS: parts.response_units}
    if parts.counts is not None:
        needed[c.PRESENTATIONS] = parts.presentations
    there: list[str] = []
    parts.hdf5.visititems(lambda name, item: there.append(name) if "colnames" in item.attrs else None)
    for name, table in needed.items():
        if table is None:
            yield parts.fault(name, f"no such table (there: {', '.join(there) or 'none'})", "the table")
    if parts.counts is None and parts.means is None:
        yield parts.fault("responses", f"neither {c.SPIKE_COUNTS} nor {c.MEAN_RESPONSES}", "one of them in processing/ecephys")


def _columns(parts: _Parts) -> Iterator[Fault]:
    needed = (
        (parts.images, (c.NAME, c.SHA256)),
        (parts.presentations, (c.IMAGE_INDEX, c.REPEAT, c.IS_VALID)),
        (parts.units, (c.UNIT_NAME,)),
        (parts.response_units, (c.UNIT,)),
        (parts.counts, (c.PRESENTATION, c.COUNT)),
        (parts.means, (c.MEAN,)),
        (_table(parts.hdf5, f"intervals/{c.PRESENTATIONS}"), (c.START_TIME, c.STOP_TIME)),
        (_table(parts.hdf5, "units"), (c.SPIKE_TIMES,)),
    )
    for table, names in needed:
        missing = [name for name in names if table is not None and (name not in table.columns or name not in table.group)]
        if table is not None and missing:
            found = f"columns {', '.join(name for name in table.columns if name in table.group) or 'none'}"
            yield parts.fault(table.group.name, found, f"also {', '.join(missing)}")


def _lengths(parts: _Parts) -> Iterator[Fault]:
    for table in (parts.images, parts.presentations, parts.units, parts.response_units, parts.counts, parts.means):
        if table is None:
            continue
        # Of a ragged column the index has one entry a row.
        rows = {name: f"{name}_index" if f"{name}_index" in table.group else name for name in table.columns}
        lengths = {name: len(table.group[row]) for name, row in rows.items() if row in table.group}
        wrong = {name: length for name, length in lengths.items() if length != len(table)}
        if wrong:
            found = ", ".join(f"{length} rows of {name}" for name, length in wrong.items())
            yield parts.fault(table.group.name, found, f"{len(table)}, as many as the table has")
        if not len(table):
            yield parts.fault(table.group.name, "no row", "at least one")


def _images(parts: _Parts) -> Iterator[Fault]:
    pixels, table = lazy_pixels(parts.hdf5), parts.images
    part = f"/stimulus/templates/{c.IMAGES}"
    if pixels is None:
        next_step = "convert the session with its images; a file of hashes can be shared, not fitted"
        yield parts.fault(part, "hashes only, no pixels", "the images that were shown", next_step, stops_only_fits=True)
    elif pixels.shape[1] != pixels.shape[2]:
        found = f"images of {pixels.shape[1]} x {pixels.shape[2]} px"
        yield parts.fault(part, found, "square images", "crop or pad them before the session is written")
    hashes = None if table is None else table.get(c.SHA256)
    if hashes is None or pixels is None:
        return
    if len(pixels) != len(hashes):
        yield parts.fault(part, f"{len(pixels)} images", f"{len(hashes)}, one a row of {c.IMAGE_TABLE}")
        return
    n_hashed = int(min(max(HASHED_BYTES // max(int(np.prod(pixels.shape[1:])), 1), 50), len(hashes)))
    looked_at = np.linspace(0, len(hashes) - 1, n_hashed).astype(int)
    batches = (looked_at[start : start + HASHED_AT_ONCE] for start in range(0, n_hashed, HASHED_AT_ONCE))
    wrong = [int(row) for rows in batches for row, image in zip(rows, pixels[rows], strict=True) if image_sha256(image) != hashes[row]]
    if wrong:
        found = f"{len(wrong)} of {len(looked_at)} images looked at with other pixels than their {c.SHA256} says (rows {_some(wrong)})"
        yield parts.fault(part, found, "the pixels that were hashed")


def _presentations(parts: _Parts) -> Iterator[Fault]:
    table = parts.presentations
    if table is None:
        return
    if parts.images is not None:
        yield from _rows(parts, table, c.IMAGE_INDEX, len(parts.images), c.IMAGE_TABLE)
    yield from _rows(parts, table, c.REPEAT, None, "")
    start, stop = table.get(c.START_TIME), table.get(c.STOP_TIME)
    if start is None or stop is None or len(start) != len(stop):
        return
    unknown = ~(np.isfinite(start) & np.isfinite(stop))
    if unknown.any():
        yield parts.fault(table.group.name, f"{unknown.sum()} times that are not finite (rows {_some(np.flatnonzero(unknown))})", "seconds")
    backwards = np.flatnonzero(start > stop)
    if len(backwards):
        found = f"{len(backwards)} rows that start after they stop (rows {_some(backwards)})"
        yield parts.fault(table.group.name, found, "start before stop")


def _units(parts: _Parts) -> Iterator[Fault]:
    table = parts.units
    names = None if table is None else table.get(c.UNIT_NAME)
    if table is None or names is None:
        return
    values, how_many = np.unique(names, return_counts=True)
    if (how_many > 1).any():
        twice = ", ".join(map(str, values[how_many > 1][:3]))
        yield parts.fault(table.group.name, f"{(how_many > 1).sum()} unit names that occur more than once ({twice})", "one name a unit")
    spikes = table.get(c.SPIKE_TIMES)
    if spikes is not None and not np.isfinite(spikes).all():
        yield parts.fault(table.group.name, f"{(~np.isfinite(spikes)).sum()} spike times that are not finite", "seconds")


def _response_units(parts: _Parts) -> Iterator[Fault]:
    table = parts.response_units
    if table is None:
        return
    if parts.units is not None:
        yield from _rows(parts, table, c.UNIT, len(parts.units), "the units")
    rows = table.get(c.UNIT)
    if rows is not None and len(np.unique(rows)) < len(rows):
        found = f"{len(rows) - len(np.unique(rows))} rows of a unit that has one already"
        yield parts.fault(table.group.name, found, "one row, so one counting window, a unit")
    start, stop = table.get(c.WINDOW_START), table.get(c.WINDOW_STOP)
    if start is not None and stop is not None and len(start) == len(stop) and not (start < stop).all():
        found = f"{(~(start < stop)).sum()} counting windows that do not start before they stop"
        yield parts.fault(table.group.name, found, f"{c.WINDOW_START} below {c.WINDOW_STOP}")


def _counts(parts: _Parts) -> Iterator[Fault]:
    table = parts.counts
    count = None if table is None else table.get(c.COUNT)
    if table is None or count is None:
        return
    if parts.presentations is not None:
        yield from _rows(parts, table, c.PRESENTATION, len(parts.presentations), c.PRESENTATIONS)
    where = f"{table.group.name}/{c.COUNT}"
    yield from _shape(parts, where, count, len(table))
    yield from _whole_numbers(parts, where, count)
    if count.ndim == 2 and count.size and np.issubdtype(count.dtype, np.number) and not (np.nanmax(count, 0) > np.nanmin(count, 0)).any():
        yield parts.fault(where, "no unit whose count ever changes", "responses that differ between images")


def _means(parts: _Parts) -> Iterator[Fault]:
    table = parts.means
    mean = None if table is None else table.get(c.MEAN)
    if table is None or mean is None:
        return
    where = f"{table.group.name}/{c.MEAN}"
    n_images = len(table) if parts.images is None else len(parts.images)
    yield from _shape(parts, where, mean, n_images)
    if np.isinf(mean).any():
        yield parts.fault(where, f"{np.isinf(mean).sum()} infinite means", "numbers, or NaN where a unit was not held")
    held = np.where(np.isfinite(mean), mean, np.nan)
    if mean.ndim == 2 and not any(np.ptp(unit[~np.isnan(unit)]) > 0 for unit in held.T if not np.isnan(unit).all()):
        yield parts.fault(where, "no unit whose mean ever changes", "responses that differ between images")
    n_repeats = table.get(c.N_REPEATS)
    if n_repeats is None or mean.ndim != 2 or n_repeats.shape != mean.shape[:1]:
        return
    wrong = ~(np.isfinite(n_repeats) & (n_repeats > 0)) & np.isfinite(mean).any(axis=1)
    if wrong.any():
        found = f"{wrong.sum()} images with a mean of no repeats, for example row {np.flatnonzero(wrong)[0]}"
        yield parts.fault(f"{table.group.name}/{c.N_REPEATS}", found, "a number above 0 wherever there is a mean")


def _coverage(parts: _Parts) -> Iterator[Fault]:
    """Whether enough images have a response; one without is no fault, since a fit leaves it out."""
    hashes = None if parts.images is None else parts.images.get(c.SHA256)
    if hashes is None:
        return
    answered = _answered(parts, len(hashes))
    if answered is None:
        return
    different = len(set(hashes[answered]))
    if different < FEWEST_IMAGES:
        found = f"{different} different images with a usable response ({len(hashes)} images in all)"
        next_step = f"fit a session with more images; responses count where {c.IS_VALID} is True"
        yield parts.fault(c.IMAGE_TABLE, found, f"at least {FEWEST_IMAGES}", next_step, stops_only_fits=True)


def _answered(parts: _Parts, n_images: int) -> np.ndarray | None:
    """Which images have a response that a fit uses: a count in a valid presentation, or a mean where there are no counts.

    None where a column that says so is missing. Rows out of range are another check's matter.
    """
    if parts.counts is None:
        mean = None if parts.means is None else parts.means.get(c.MEAN)
        return None if mean is None or len(mean) != n_images else np.isfinite(mean).reshape(n_images, -1).any(1)
    counted = parts.counts.get(c.PRESENTATION)
    image_index, is_valid = (None if parts.presentations is None else parts.presentations.get(name) for name in (c.IMAGE_INDEX, c.IS_VALID))
    if counted is None or image_index is None or is_valid is None or len(is_valid) != len(image_index):
        return None
    counted = counted[(counted >= 0) & (counted < len(image_index))].astype(int)
    shown = image_index[counted[is_valid[counted].astype(bool)]]
    answered = np.zeros(n_images, bool)
    answered[shown[(shown >= 0) & (shown < n_images)].astype(int)] = True
    return answered


CHECKS: Sequence[Callable[[_Parts], Iterator[Fault]]] = (
    _tables, _columns, _lengths, _images, _presentations, _units, _response_units, _counts, _means, _coverage,
)  # fmt: skip


def _rows(parts: _Parts, table: _Table, name: str, n_rows: int | None, target: str) -> Iterator[Fault]:
    """A column of row numbers: whole numbers, and rows that the target has."""
    values = table.get(name)
    if values is None:
        return
    where = f"{table.group.name}/{name}"
    yield from _whole_numbers(parts, where, values)
    if n_rows is None or not np.issubdtype(values.dtype, np.number):
        return
    beyond = np.flatnonzero(values >= n_rows)
    if len(beyond):
        found = f"{len(beyond)} rows beyond the end of {target} (rows {_some(beyond)}; highest {values.max()})"
        yield parts.fault(where, found, f"0 to {n_rows - 1}")


def _whole_numbers(parts: _Parts, where: str, values: np.ndarray) -> Iterator[Fault]:
    if not np.issubdtype(values.dtype, np.number):
        yield parts.fault(where, f"{values.dtype} values", "whole numbers from 0 on")
        return
    if (values < 0).any():
        yield parts.fault(where, f"{(values < 0).sum()} negative numbers", "whole numbers from 0 on")
    if np.issubdtype(values.dtype, np.integer):
        return
    if np.isnan(values).any():
        yield parts.fault(where, f"{np.isnan(values).sum()} NaN", "a row only where there is a value")
    held = values[np.isfinite(values)]
    if (held != np.round(held)).any():
        yield parts.fault(where, f"{(held != np.round(held)).sum()} numbers that are not whole", "whole numbers from 0 on")
    elif len(held):
        yield parts.fault(where, f"whole numbers stored as {values.dtype}", "an unsigned integer type")


def _shape(parts: _Parts, where: str, values: np.ndarray, n_rows: int) -> Iterator[Fault]:
    expected = (n_rows, len(parts.response_units) if parts.response_units is not None else values.shape[-1])
    if values.shape != expected:
        yield parts.fault(where, f"shape {values.shape}", f"{expected}, one column a row of {c.RESPONSE_UNITS}")


def _some(rows: Sequence[object] | np.ndarray) -> str:
    first = ", ".join(str(row) for row in rows[:3])
    return first if len(rows) <= 3 else f"{first}, ..."
