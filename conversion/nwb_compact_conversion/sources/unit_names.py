"""Names of units: where a file gives them, and that each is there once."""

from collections.abc import Sequence
from pathlib import Path

from nwb_compact.errors import NwbCompactError, nearest
from nwb_compact_conversion.sources.array_files import Variables


def told_names(file_path: Path, variables: Variables, wanted: str | None) -> tuple[str, ...] | None:
    """The names in the variable `wanted`, texts or numbers; None where none is wanted.

    Raises
    ------
    NwbCompactError
        If there is no such variable.

    Examples
    --------
    >>> import numpy as np
    >>> told_names(Path("a.npz"), Variables({"channel": np.array([3.0, 5.0])}), "channel")
    ('3', '5')
    """
    if wanted is None:
        return None
    if wanted in variables.text:
        return variables.text[wanted]
    if wanted in variables.numbers:
        return tuple(f"{number:g}" for number in variables.numbers[wanted].ravel())
    found = variables.unread.get(wanted, f"no variable '{wanted}'")
    expected = f"the names of the units ({nearest(wanted, [*variables.text, *variables.numbers])})"
    raise NwbCompactError(file_path, found=found, expected=expected, next_step="correct responses.unit_names")


def require_names(where: object, names: Sequence[str]) -> None:
    """Raise `NwbCompactError` where a unit has no name or shares it with another."""
    next_step = "give every unit a name of its own"
    if not all(names):
        found = f"unit {list(names).index('') + 1} of {len(names)} without a name"
        raise NwbCompactError(where, found=found, expected="a name for every unit", next_step=next_step)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NwbCompactError(where, found=f"unit '{twice[0]}' twice", expected="each unit once", next_step=next_step)
