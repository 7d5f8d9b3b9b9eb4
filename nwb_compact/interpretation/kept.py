"""Tables on disk while an interpretation runs, so that one that was stopped goes on where it stopped."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nwb_compact.interpretation.tables import Column, Table, Tables
from nwb_compact.unfinished import written_whole


def kept(path: Path, make: Callable[[], Tables]) -> dict[str, Table]:
    """Tables that are made once, and read from the disk if they are there already.

    Parameters
    ----------
    path
        A file that ends in .npz; it holds plain arrays, no pickles.
    make
        Tables by name.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "dots.npz"
    >>> made = {"dots": Table("dots", {"size_px": Column("diameter, pixels", np.array([4.0, 8.0]))})}
    >>> kept(path, lambda: made)["dots"]["size_px"], kept(path, lambda: {})["dots"].columns["size_px"].meaning
    (array([4., 8.]), 'diameter, pixels')
    """
    if not path.exists():
        made = make()
        arrays: dict[str, np.ndarray] = {}
        for name, table in made.items():
            arrays[f"{name}|"] = np.array([table.description])
            for key, column in table.columns.items():
                arrays[f"{name}|{key}"], arrays[f"{name}|{key}|meaning"] = column.values, np.array([column.meaning])
        with written_whole(path) as beside, beside.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # its keywords are names of arrays
    with np.load(path, allow_pickle=False) as stored:
        return _tables({name: stored[name] for name in stored.files})


def _tables(arrays: Mapping[str, np.ndarray]) -> dict[str, Table]:
    columns: dict[str, dict[str, Column]] = {}
    descriptions = {}
    for name, values in arrays.items():
        table, *key = name.split("|")
        if key == [""]:
            columns[table], descriptions[table] = {}, str(values[0])
        elif len(key) == 1:
            columns[table][key[0]] = Column(str(arrays[f"{name}|meaning"][0]), values)
    return {table: Table(descriptions[table], held) for table, held in columns.items()}
