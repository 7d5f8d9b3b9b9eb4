"""The published compact models of Cowley, Stan, Pillow & Smith (Nature 2026): which neurons they are of, and where their files lie."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.cowley_v4_files import REPOSITORY
from nwb_compact_conversion.sources.cowley_v4_sessions import SESSIONS

TEST_SESSIONS = ("190923", "201025", "210225", "211022")
"""Sessions of the 219 neurons, in the order in which the shared models answer for them (data_shared_compact_models/readme.txt)."""
UNITS = tuple((session, number) for session in TEST_SESSIONS for number in range(SESSIONS[session].n_units))
"""Session and number in it of every neuron, in that order."""
COMPACT_FOLDERS = ("compact_models", "data_compact_models/model_weights_npy")
SHARED_FOLDERS = ("shared_models", "data_shared_compact_models/from_ensemble_model")
"""Where a folder of the models alone, or a clone of the repository, holds them."""


@dataclass(frozen=True)
class ModelFiles:
    """The published models that a folder holds."""

    compact: Mapping[str, Path]
    """By name of the unit, in the order of `UNITS`."""
    shared: Mapping[int, Path]
    """By number of filters in the first three layers, ascending."""


def find_models(data: Path) -> ModelFiles:
    """The published models in a folder or clone.

    Raises
    ------
    NwbCompactError
        If there is no such folder or no model in it, or one is of a neuron that the study does not have.
    """
    next_step = f"give a clone of {REPOSITORY}"
    if not data.is_dir():
        raise NwbCompactError(data, found="no such folder", expected="the published V4 models and data", next_step=next_step)
    compact: dict[str, Path] = {}
    for path, (session, number) in _named(data, COMPACT_FOLDERS, r"compact_model_(\d+)_neuron(\d+)\.npy"):
        if (session, int(number)) not in UNITS:
            expected = "neurons of " + ", ".join(f"{one} (0 to {SESSIONS[one].n_units - 1})" for one in TEST_SESSIONS)
            raise NwbCompactError(path, found=f"neuron {number} of session {session}", expected=expected, next_step="remove that file")
        compact[unit_name(session, int(number))] = path
    shared = {int(filters): path for path, (filters,) in
              _named(data, SHARED_FOLDERS, r"(?:from_ensemble_model|shared_compact_model)_(\d+)filters\.keras")}
    if not compact and not shared:
        expected = f"compact_model_SESSION_neuronN.npy in {' or '.join(COMPACT_FOLDERS)}, or .keras files in {' or '.join(SHARED_FOLDERS)}"
        raise NwbCompactError(data, found="no published model", expected=expected, next_step=next_step)
    ordered = {name: compact[name] for name in (unit_name(*unit) for unit in UNITS) if name in compact}
    return ModelFiles(ordered, dict(sorted(shared.items())))


def unit_name(session: str, number: int) -> str:
    """Name of a neuron among those of several sessions: its session, a dash, and its name there.

    Examples
    --------
    >>> unit_name("190923", 0)
    '190923-neuron0'
    """
    return f"{session}-neuron{number}"


def _named(data: Path, folders: Sequence[str], pattern: str) -> list[tuple[Path, tuple[str, ...]]]:
    found = [(path, re.fullmatch(pattern, path.name)) for folder in folders for path in sorted((data / folder).glob("*"))]
    return [(path, match.groups()) for path, match in found if match]
