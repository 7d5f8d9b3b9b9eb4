"""Matrices of spike counts, as labs keep them once spikes are counted: axes named, values checked, repeats in long form."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Num

from nwb_compact import __version__
from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.session import MeanResponses, Presentations, ResponseUnits, SpikeCounts, Units
from nwb_compact_conversion.session_yaml import Responses
from nwb_compact_conversion.sources.array_files import HEADER, Variables, read_variables
from nwb_compact_conversion.sources.spike_time_arrays import holds_spike_times, units_of_spike_times
from nwb_compact_conversion.sources.unit_names import require_names, told_names

AXES = (("presentation", "unit"), ("image", "unit"), ("image", "repeat", "unit"))
"""What an array of counts can be, in the order that axes have everywhere in this program."""

ORDERED = "Rows are ordered by image, then repeat: the order in which images were shown is not given."


@dataclass(frozen=True, eq=False)
class Counted:
    """What a file of counts or spike times holds."""

    files: tuple[Path, ...]
    reader: str
    units: Units
    """With spike times where the file holds those; then there are no values."""
    values: Float[np.ndarray, "..."] | None = None
    """Counts or means, NaN where missing."""
    axes: tuple[str, ...] = ()
    """What their axes are, one of `AXES`."""


def read_counts(file_path: Path, responses: Responses, *, n_images: int | None = None, n_presentations: int | None = None) -> Counted:
    """Counts or spike times from a .npz, .npy, .csv, .tsv or .mat file.

    Parameters
    ----------
    file_path
        The file; MATLAB's of every version.
    responses
        Which array of the file (`variable`), what it holds, what its axes are, which names its units have.
    n_images
        Images of the session, where they are known.
    n_presentations
        Rows of the stimulus log, None without one. Then the array has no axis of presentations.

    Raises
    ------
    NwbCompactError
        If the file is damaged; if there are several arrays and none is named; if the axes are not told and the sizes leave several
        possibilities, or none; if an axis has another length than the images, the log or the names; if a value is no count.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "counts.npy")
    ...     np.save(file, np.zeros((3, 8)))
    ...     counted = read_counts(file, Responses(), n_images=8)
    >>> counted.axes, counted.values.shape, counted.units.name
    (('image', 'unit'), (8, 3), ('unit-1', 'unit-2', 'unit-3'))
    """
    variables = read_variables(file_path)
    reader = f"nwb_compact {__version__} read_counts"
    if holds_spike_times(variables, responses):
        return Counted((file_path,), reader, units_of_spike_times(file_path, variables, responses))
    name, array = _array(file_path, variables, responses)
    where = f"{file_path}: {name}"
    names = told_names(file_path, variables, responses.unit_names)
    sizes = {"image": n_images, "presentation": n_presentations, "unit": None if names is None else len(names)}
    array = _with_last_axes(array, file_path, responses)
    order = _order(where, array.shape, responses.axes, sizes)
    if names is None and order[-1] == "unit" and len(variables.text.get(HEADER, ())) == array.shape[-1]:
        names = variables.text[HEADER]
    axes = next(axes for axes in AXES if set(axes) == set(order))
    values = np.ascontiguousarray(array.transpose([order.index(axis) for axis in axes]))
    _require_counts(where, values, axes)
    names = names or tuple(f"unit-{number + 1}" for number in range(values.shape[-1]))
    require_names(file_path, names)
    return Counted((file_path,), reader, Units(names), values, axes)


def responses_of(
    counted: Counted, shown: Presentations | None, description: str
) -> tuple[Presentations | None, SpikeCounts | MeanResponses]:
    """The responses of a session, and its presentations where there are any.

    Parameters
    ----------
    counted
        Counts, not spike times.
    shown
        The rows of the stimulus log; needed where an axis counts presentations.
    description
        How the spikes were counted, as far as somebody said.

    Returns
    -------
    tuple
        One row a presentation: of the log, where a row that is NaN for all units is not counted; without a log by image, then
        repeat, without times. Or, where an image has one value a unit and not all are whole numbers, means over repeats.

    Examples
    --------
    >>> values = np.array([[[1.0, 2.0], [3.0, np.nan]]])  # one image, two repeats of which unit 2 lacks one
    >>> counted = Counted((), "", Units(("a", "b")), values[:, :1], ("image", "repeat", "unit"))
    >>> shown, counts = responses_of(counted, None, "spike counts")
    >>> shown.repeat.tolist(), counts.count.tolist()
    ([0], [[1, 2]])
    """
    values = counted.values
    assert values is not None
    if counted.axes == AXES[0]:
        kept = np.flatnonzero(~np.isnan(values).all(axis=1))
        return shown, SpikeCounts(kept.astype(np.uint32), _unsigned(values[kept]), description)
    if counted.axes == AXES[1]:
        if _are_means(values, counted.axes):
            return None, MeanResponses(values, None, f"{description}; means over repeats")
        values = values[:, np.newaxis]
    return long_form(values, f"{description}. {ORDERED}")


def told_windows(responses: Responses, n_units: int) -> tuple[ResponseUnits, str]:
    """In which window somebody counted, for each unit and in words; the default of the settings is none that anybody counted in.

    Examples
    --------
    >>> told_windows(Responses(), 2)[1]
    'spikes; the source does not say in which window after image onset'
    >>> told_windows(Responses(window_s=(0.05, 0.15)), 2)[0].window_stop_s
    array([0.15, 0.15])
    """
    rows = np.arange(n_units, dtype=np.uint32)
    if "window_s" not in responses.model_fields_set:
        return ResponseUnits(rows, None, None), "spikes; the source does not say in which window after image onset"
    start_s, stop_s = responses.window_s
    windows = ResponseUnits(rows, np.full(n_units, start_s), np.full(n_units, stop_s))
    return windows, f"spikes; from {1e3 * start_s:g} to {1e3 * stop_s:g} ms after image onset"


def long_form(values: Num[np.ndarray, "image repeat unit"], description: str) -> tuple[Presentations, SpikeCounts]:
    """One row a presentation, ordered by image, then repeat, without times; repeats that are NaN are no presentations.

    Examples
    --------
    >>> shown, counts = long_form(np.array([[[4.0], [np.nan]], [[0.0], [5.0]]]), "spike counts")
    >>> shown.image_index.tolist(), shown.repeat.tolist(), counts.count.ravel().tolist()
    ([0, 1, 1], [0, 0, 1], [4, 0, 5])
    """
    is_there = ~np.isnan(values[:, :, 0])
    image, repeat = np.nonzero(is_there)
    # Counted anew, since a repeat that is missing was not shown.
    number = np.cumsum(is_there, axis=1)[image, repeat] - 1
    shown = Presentations(image.astype(np.uint32), number.astype(np.uint16), np.ones(len(image), dtype=np.bool_))
    return shown, SpikeCounts(np.arange(len(image), dtype=np.uint32), _unsigned(values[image, repeat]), description)


# Which array, and which axes --------------------------------------------------------------------------------------------


def _array(file_path: Path, variables: Variables, responses: Responses) -> tuple[str, np.ndarray]:
    tables = {name: values for name, values in variables.numbers.items() if name != responses.unit_names}
    wanted = responses.variable
    if wanted is not None:
        if wanted not in tables:
            known = [*tables, *variables.vectors]
            found = f"{variables.unread[wanted]}" if wanted in variables.unread else f"no array '{wanted}'"
            expected = f"an array of numbers ({nearest(wanted, known)})" if known else "an array of numbers"
            raise NwbCompactError(f"{file_path}: {wanted}", found=found, expected=expected, next_step="correct responses.variable")
        return wanted, tables[wanted]
    # A scalar or a vector beside the counts is a parameter or a list.
    tables = {name: values for name, values in tables.items() if sum(size > 1 for size in values.shape) > 1} or tables
    if len(tables) != 1:
        there = [f"{name} {values.shape}" for name, values in tables.items()] + [f"{name}: {why}" for name, why in variables.unread.items()]
        there += [f"{name}: text" for name in variables.text]
        found = f"{len(tables) or 'no'} arrays of numbers ({', '.join(there) or 'nothing'})"
        next_step = "name it with responses.variable; of spike times, an array a unit, set responses.holds: spike times"
        raise NwbCompactError(file_path, found=found, expected="one array of counts", next_step=next_step)
    return next(iter(tables.items()))


def _with_last_axes(array: np.ndarray, file_path: Path, responses: Responses) -> np.ndarray:
    """MATLAB drops axes of length 1 at the end, for example of units where there is one."""
    if file_path.suffix.lower() == ".mat" and responses.axes is not None and array.ndim == 2:
        return array.reshape(*array.shape, *(1,) * (len(responses.axes) - 2))
    return array


def _order(where: str, shape: tuple[int, ...], told: tuple[str, ...] | None, sizes: Mapping[str, int | None]) -> tuple[str, ...]:
    """What the axes are, in the order of the array."""
    if told is not None:
        _require_fit(where, shape, told, sizes)
        return told
    has_log = sizes["presentation"] is not None
    possible = [order for axes in AXES if ("presentation" in axes) == has_log for order in permutations(axes) if len(order) == len(shape)]
    fitting = [order for order in possible if not _misfits(shape, order, sizes)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{size} {axis}s" for axis, size in sizes.items() if size is not None) or "no images to compare with"
    may = " or ".join(f"[{', '.join(order)}]" for order in fitting or possible[:2]) or "two or three axes"
    found = f"an array of shape {shape} with {known}"
    expected = f"one way to read it, not {may}" if fitting else f"sizes that fit {may}"
    raise NwbCompactError(where, found=found, expected=expected, next_step="say which with responses.axes")


def _require_fit(where: str, shape: tuple[int, ...], told: tuple[str, ...], sizes: Mapping[str, int | None]) -> None:
    next_step, said = "correct responses.axes", f"[{', '.join(told)}]"
    if not any(sorted(told) == sorted(axes) for axes in AXES):
        expected = " or ".join(f"[{', '.join(axes)}]" for axes in AXES) + ", in any order"
        raise NwbCompactError(where, found=f"axes {said}", expected=expected, next_step=next_step)
    if len(told) != len(shape):
        raise NwbCompactError(where, found=f"an array of shape {shape}", expected=f"{len(told)} axes, {said}", next_step=next_step)
    has_log = sizes["presentation"] is not None
    if has_log != ("presentation" in told):
        found = f"axes {said} {'and a stimulus log' if has_log else 'and no stimulus log'}"
        expected = "axes [presentation, unit], one row of the log each" if has_log else "a log that says what was shown"
        next_step = "leave out stimuli.log, or give counts by presentation" if has_log else "give stimuli.log, or counts by image"
        raise NwbCompactError(where, found=found, expected=expected, next_step=next_step)
    for axis in _misfits(shape, told, sizes):
        of = {"presentation": "as in the stimulus log", "image": "as there are images", "unit": "as there are names"}[axis]
        found = f"{shape[told.index(axis)]} {axis}s (shape {shape} as {said})"
        raise NwbCompactError(where, found=found, expected=f"{sizes[axis]} {of}", next_step="correct responses.axes or the files")


def _misfits(shape: tuple[int, ...], order: tuple[str, ...], sizes: Mapping[str, int | None]) -> list[str]:
    return [axis for axis, size in zip(order, shape, strict=True) if sizes.get(axis) not in (None, size)]


# Values -----------------------------------------------------------------------------------------------------------------


def _are_means(values: Float[np.ndarray, "..."], axes: tuple[str, ...]) -> bool:
    """Whether values of an image and a unit are averages over repeats, and not counts of one."""
    return axes == AXES[1] and not bool(_whole(values[~np.isnan(values)]).all())


def _require_counts(where: str, values: Float[np.ndarray, "..."], axes: tuple[str, ...]) -> None:
    next_step = "correct the file, or responses.axes and responses.variable"
    missing = np.isnan(values)
    is_mean = _are_means(values, axes)
    good = missing | (np.isfinite(values) & (values >= 0) if is_mean else _whole(values))
    expected = "a mean of at least 0" if is_mean else "whole counts of at least 0, or NaN where missing"
    _require(where, values, good, axes, expected, next_step)
    if not is_mean:
        together, expected = missing == missing.all(axis=-1, keepdims=True), "all units to miss the same, since they were recorded together"
        _require(where, values, together, axes, expected, "count what is missing, or leave the unit out")
    if missing.all():
        raise NwbCompactError(where, found="no value that is not NaN", expected="counts", next_step=next_step)


def _require(where: str, values: np.ndarray, good: Bool[np.ndarray, "..."], axes: tuple[str, ...], expected: str, next_step: str) -> None:
    if good.all():
        return
    bad = np.argwhere(~good)
    at = ", ".join(f"{axis} {index + 1}" for axis, index in zip(axes, bad[0], strict=True))
    found = f"{values[tuple(bad[0])]:g} at {at}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")
    raise NwbCompactError(where, found=found, expected=expected, next_step=next_step)


def _whole(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values == np.floor(values)) & (values <= np.iinfo(np.uint32).max)


def _unsigned(values: Num[np.ndarray, "counted unit"]) -> np.ndarray:
    return np.ascontiguousarray(values).astype(np.uint16 if values.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32)
