"""Spike times as arrays: one vector a unit, or one row a spike with its unit and its time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact.session import Units
from nwb_compact_conversion.session_yaml import Responses
from nwb_compact_conversion.sources.array_files import COLUMNS, HEADER, Variables
from nwb_compact_conversion.sources.unit_names import require_names, told_names

UNIT_COLUMNS = ("unit", "units", "unit_id", c.UNIT_NAME, "neuron", "cluster", "cluster_id", "spike_clusters", "spike_units")
TIME_COLUMNS = ("time", "times", "time_s", "spike_time", c.SPIKE_TIMES, "time_ms", "sample", "samples")
"""Names under which one row a spike is recognised, in any case."""
NEXT = "see responses.holds, responses.variable and responses.unit_names"


def holds_spike_times(variables: Variables, responses: Responses) -> bool:
    """Whether a file holds spike times: as the settings say, else where there are vectors of units or columns of units and times.

    Examples
    --------
    >>> two = {"unit": np.array([1.0, 2.0]), "time": np.array([0.5, 0.6])}
    >>> holds_spike_times(Variables(two), Responses()), holds_spike_times(Variables({"counts": np.ones((2, 2))}), Responses())
    (True, False)
    """
    if responses.holds is not None:
        return responses.holds == "spike times"
    if responses.variable is not None:
        return responses.variable in variables.vectors
    return bool(variables.vectors) or _columns(variables) is not None


def units_of_spike_times(file_path: Path, variables: Variables, responses: Responses) -> Units:
    """The units of a file of spike times.

    These are a cell array or structure array of MATLAB, one vector a unit; an .npz with one vector a unit under its name; or one
    row a spike: columns of a CSV, two vectors, or an array of two columns, first the unit, then the time. Units of vectors keep
    their order, others come by their number or name. Times that are not in order are put in order.

    Raises
    ------
    NwbCompactError
        If none of these is there, a name is there twice, a time is negative or no number, or times in seconds are all whole.

    Examples
    --------
    >>> cells = Variables(vectors={"spikes": (np.array([0.25, 0.1]), np.array([]))})
    >>> [train.tolist() for train in units_of_spike_times(Path("a.mat"), cells, Responses()).spike_times_s]
    [[0.1, 0.25], []]
    """
    trains = _trains(file_path, variables, responses)
    names = tuple(trains)
    if told := told_names(file_path, variables, responses.unit_names):
        if len(told) != len(names):
            expected = f"{len(names)}, one for each unit with spike times"
            raise NwbCompactError(file_path, found=f"{len(told)} unit names", expected=expected, next_step="correct responses.unit_names")
        names = told
    require_names(file_path, names)
    factor, resolution_s = _second(file_path, responses)
    spikes = tuple(np.sort(train) * factor for train in trains.values())
    _require_times(file_path, names, spikes, responses)
    return Units(names, spikes, resolution_s=resolution_s)


def _trains(file_path: Path, variables: Variables, responses: Responses) -> Mapping[str, Float[np.ndarray, "_"]]:
    """Times of each unit, by a name that the file or its order gives."""
    wanted = responses.variable
    if wanted is None and (columns := _columns(variables)) is not None:
        return _by_unit(*columns)
    vectors = variables.vectors if wanted is None else {name: one for name, one in variables.vectors.items() if name == wanted}
    if len(vectors) == 1:
        return {f"unit-{number + 1}": train for number, train in enumerate(next(iter(vectors.values())))}
    if vectors:
        raise NwbCompactError(file_path, found=f"several lists of vectors: {', '.join(vectors)}", expected="one", next_step=NEXT)
    numbers = {name: one for name, one in variables.numbers.items() if name != responses.unit_names and wanted in (None, name)}
    tables = [one for one in numbers.values() if one.ndim == 2 and one.shape[1] == 2]
    if len(numbers) == 1 and tables:
        return _by_unit(tables[0][:, 0], tables[0][:, 1])
    if wanted is None and numbers and file_path.suffix.lower() == ".npz" and all(one.ndim == 1 for one in numbers.values()):
        return numbers
    there = [f"{name} {one.shape}" for name, one in numbers.items()] + [f"{name} ({why})" for name, why in variables.unread.items()]
    found = ", ".join(there) or f"no '{wanted}' ({nearest(str(wanted), [*variables.numbers, *variables.vectors])})"
    expected = "one vector a unit, columns unit and time, or an array of two columns"
    raise NwbCompactError(file_path, found=found, expected=expected, next_step=NEXT)


def _columns(variables: Variables) -> tuple[np.ndarray, np.ndarray] | None:
    """Unit and time of every spike, where there are two lists under such names."""
    named = {name.lower(): np.array(values) for name, values in variables.text.items()}
    named |= {name.lower(): values.ravel() for name, values in variables.numbers.items() if sum(size > 1 for size in values.shape) <= 1}
    if COLUMNS in variables.numbers and HEADER in variables.text:
        header = variables.text[HEADER]
        named |= {name.lower(): values for name, values in zip(header, variables.numbers[COLUMNS].T, strict=True)}
    unit, time = (next((named[name] for name in names if name in named), None) for names in (UNIT_COLUMNS, TIME_COLUMNS))
    if unit is None or time is None or len(unit) != len(time) or time.dtype.kind != "f":
        return None
    return unit, time


def _by_unit(unit: np.ndarray, time: np.ndarray) -> dict[str, Float[np.ndarray, "_"]]:
    ids, index = np.unique(unit, return_inverse=True)
    trains = np.split(time[np.argsort(index, kind="stable")], np.cumsum(np.bincount(index))[:-1])
    names = [f"{one:g}" if ids.dtype.kind == "f" else str(one) for one in ids]
    return dict(zip(names, trains, strict=True))


def _second(file_path: Path, responses: Responses) -> tuple[float, float | None]:
    """What a stored time is multiplied with, and the smallest difference of two times where it is known."""
    sample_s = None if responses.sampling_frequency_hz is None else 1 / responses.sampling_frequency_hz
    if responses.time_unit != "samples":
        return {"s": 1.0, "ms": 1e-3}[responses.time_unit], sample_s
    if sample_s is None:
        found, next_step = "spike times in samples", "give responses.sampling_frequency_hz"
        raise NwbCompactError(file_path, found=found, expected="samples a second", next_step=next_step)
    return sample_s, sample_s


def _require_times(file_path: Path, names: tuple[str, ...], spikes: tuple[np.ndarray, ...], responses: Responses) -> None:
    for name, train in zip(names, spikes, strict=True):
        bad = train[~(np.isfinite(train) & (train >= 0))]
        if len(bad):
            found = f"a spike at {bad[0]:g} s of unit '{name}'"
            expected = "times from the start of the recording, from 0 on"
            raise NwbCompactError(file_path, found=found, expected=expected, next_step="correct that time")
    together = np.concatenate([*spikes, np.zeros(0)])
    if not len(together):
        raise NwbCompactError(file_path, found="no spike", expected="at least one", next_step=NEXT)
    if responses.time_unit == "s" and len(together) > 1 and together.max() > 1 and np.array_equal(together, np.floor(together)):
        found, expected = f"whole numbers only, up to {together.max():g}", "spike times in seconds"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step="give responses.time_unit: ms or samples")
