"""What `interpret` found as tables of the run that was interpreted: the one writer and the one reader, side by side.

Core NWB types only: a table a finding, columns of numbers, texts or stacked arrays, each with its meaning, and units as references.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from hdmf.common import DynamicTable, DynamicTableRegion
from pynwb import NWBHDF5IO, ProcessingModule

from nwb_compact import contract as c
from nwb_compact.address import located
from nwb_compact.errors import told_as_damage
from nwb_compact.interpretation.tables import UNIT, Column, Table
from nwb_compact.nwb_io import column, export_changed, opened, region, table
from nwb_compact.nwb_results import run_module
from nwb_compact.safe_write import replaced_safely


def write_interpretation(tables: Mapping[str, Table], file_path: str | Path, run_id: str) -> None:
    """Add what was found to a run, in place of what an earlier interpretation of it found.

    Parameters
    ----------
    tables
        By name.
    file_path
        The session file; changed in place and safely.
    run_id
        The run that was interpreted.

    Raises
    ------
    NwbCompactError
        If the file has no such run or cannot be written.

    Examples
    --------
    >>> from nwb_compact.nwb_results import example_file
    >>> file_path = example_file()
    >>> found = Table("dots", {"unit": Column("the unit", np.array([1])), "size_px": Column("diameter, pixels", np.array([8.0]))})
    >>> write_interpretation({"dots": found}, file_path, "example")
    >>> read_interpretation(file_path, "example")["dots"]["size_px"]
    array([8.])
    """
    file_path = Path(file_path)
    with replaced_safely(file_path, source=file_path) as temporary:
        _copy_without(file_path, temporary, run_id)
        with NWBHDF5IO(temporary, "a") as io:
            nwbfile = io.read()
            module = run_module(nwbfile, run_id, file_path)
            for name, found in tables.items():
                module.add(_written(name, found, module[c.RUN_UNITS]))
            io.write(nwbfile)


def read_interpretation(file_path: str | Path, run_id: str) -> dict[str, Table]:
    """What was found of a run, by name, in memory; nothing where it was not interpreted.

    Raises
    ------
    NwbCompactError
        If the file cannot be read or has no such run.
    """
    file_path = located(file_path)
    with opened(file_path) as file:
        module = run_module(file.nwbfile, run_id, file_path)
        with told_as_damage(f"{file_path}: {c.RUN_PREFIX}{run_id}", "the tables of an interpretation"):
            return {name.removeprefix(c.INTERPRETATION_PREFIX): _read(part) for name, part in _parts(module).items()}


def _copy_without(source: Path, target: Path, run_id: str) -> None:
    """Copy the file; object by object and without an earlier interpretation where there is one, which frees its room."""
    with opened(source, locking=False) as file:
        module = run_module(file.nwbfile, run_id, source)
        if _parts(module):
            for name in _parts(module):
                module.data_interfaces.pop(name)
            export_changed(file, target)
            return
    shutil.copyfile(source, target)


def _parts(module: ProcessingModule) -> dict[str, DynamicTable]:
    return {name: held for name, held in module.data_interfaces.items()
            if name.startswith(c.INTERPRETATION_PREFIX) and isinstance(held, DynamicTable)}


def _written(name: str, found: Table, units: DynamicTable) -> DynamicTable:
    columns = [
        region(UNIT, held.meaning, held.values, units) if key == UNIT else column(key, held.meaning, _storable(held.values))
        for key, held in found.columns.items()
    ]
    return table(c.INTERPRETATION_PREFIX + name, found.description, len(found), *columns)


def _storable(values: np.ndarray) -> np.ndarray | list[str]:
    """Texts as a list, which pynwb stores as such; hdmf cannot guess the type of an empty one."""
    if values.dtype.kind != "U":
        return values
    return [str(value) for value in values] if len(values) else np.empty(0, "S1")


def _read(part: DynamicTable) -> Table:
    held = {name: part[name] for name in part.colnames}
    columns = {name: Column(str(one.description), _loaded(one)) for name, one in held.items()}
    return Table(str(part.description), columns)


def _loaded(held: object) -> np.ndarray:
    values = np.asarray(held.data[:])  # type: ignore[attr-defined]
    if isinstance(held, DynamicTableRegion):
        return values.astype(np.int64)
    return np.array([str(value) for value in values]) if values.dtype.kind in "OS" else values
