"""Findings as tables: named columns of equal length, each with its meaning, so that a file that holds them explains itself.

What `interpret` finds out is of many kinds, and each kind is one `Table`: the room that computes it names its columns, the file keeps
them (`nwb_interpretation`), and a figure asks for them by name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

UNIT = "unit"
"""A column of this name holds rows of the run's units; in a file it points at them."""


@dataclass(frozen=True, eq=False)
class Column:
    """One number, text or array a row, and what it means, with its unit of measurement."""

    meaning: str
    values: Shaped[np.ndarray, "row *more"]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length.

    Examples
    --------
    >>> sizes = Table("dots", {"size_px": Column("diameter, pixels", np.array([4.0, 8.0]))})
    >>> len(sizes), sizes["size_px"]
    (2, array([4., 8.]))
    """

    description: str
    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        lengths = {name: len(column.values) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of one length were expected, found {lengths}")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values) if self.columns else 0

    def __getitem__(self, name: str) -> Shaped[np.ndarray, "row *more"]:
        return self.columns[name].values


Tables = Mapping[str, Table]
"""By name."""


def stacked(tables: Iterable[Table]) -> Table:
    """Rows of tables that have the same columns, one below the other, under the description and meanings of the first.

    Examples
    --------
    >>> one = Table("dots", {"size_px": Column("diameter, pixels", np.array([4.0]))})
    >>> stacked([one, one])["size_px"]
    array([4., 4.])
    """
    parts = list(tables)
    first = parts[0]
    columns = {
        name: Column(column.meaning, np.concatenate([part[name] for part in parts])) for name, column in first.columns.items()
    }
    return Table(first.description, columns)
