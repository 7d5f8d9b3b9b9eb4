"""Accurate and compact models of every recorded visual neuron, from NWB and back into NWB."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nwb_compact.exported import Exported

__version__ = "0.1.0"


def load(file_path: str | Path) -> "Exported":
    """The model in a file that `nwb-compact export` wrote; see `exported.load`.

    Examples
    --------
    >>> load("unit-1.pickle")
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: unit-1.pickle: found a name that ends in '.pickle', expected .onnx or .safetensors or .npz.
    Next: use one of: .npz, .onnx, .safetensors
    """
    from nwb_compact import exported  # only now: to import nwb_compact costs nothing

    return exported.load(file_path)
