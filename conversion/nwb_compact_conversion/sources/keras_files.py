"""Networks that Keras saved, as plain arrays: pickled lists of weights (.npy) and .keras archives. Nothing in a file is run.

A pickle is a program, and loading one of an unknown file can do anything. The few things of which a list of arrays consists are therefore
read as inert stand-ins, out of which the arrays are then made here; a pickle that asks for anything else is refused.
"""

import json
import pickle
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import h5py
import numpy as np

from nwb_compact.errors import NwbCompactError, one_line
from nwb_compact.hdf5_links import require_within
from nwb_compact_conversion.sources.source_files import FETCH_AGAIN, npy_header

STORED_AS = {
    "Conv2D": "conv2d", "SeparableConv2D": "separable_conv2d", "DepthwiseConv2D": "depthwise_conv2d",
    "BatchNormalization": "batch_normalization",
}
"""Group in the archive's weights of the first layer of a class; the second has _1 behind it, and so on, in the order of the layers."""
NUMBERS = ("f2", "f4", "f8")
"""Types of weights: IEEE floats."""


@dataclass(frozen=True, eq=False)
class KerasLayer:
    """One layer of a .keras archive."""

    kind: str
    """Its class, for example SeparableConv2D."""
    config: dict[str, Any]
    """As Keras wrote it: name, strides, padding, epsilon, ..."""
    weights: tuple[np.ndarray, ...]
    """In the order in which Keras keeps them; none for a layer that has none."""


def read_weight_list(file_path: Path) -> tuple[np.ndarray, ...]:
    """The arrays of what `numpy.save` made of `model.get_weights()`: an .npy file that holds a pickled list of arrays.

    Raises
    ------
    NwbCompactError
        If the file is missing, cut, no list of arrays of floats, or its pickle asks for anything but arrays.

    Examples
    --------
    >>> read_weight_list(Path("none.npy"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: none.npy: found no such file, expected a list of weights in .npy format.
    Next: download the file again
    """
    expected = "a list of weights in .npy format"
    try:
        with file_path.open("rb") as file:
            _, dtype = npy_header(file)
            if not dtype.hasobject:
                raise NwbCompactError(file_path, found=f"one array of type {dtype}", expected=expected, next_step=FETCH_AGAIN)
            listed = _Inert(file).load()
            return tuple(_array(one) for one in _elements(listed))
    except FileNotFoundError as error:
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step=FETCH_AGAIN) from error
    except NwbCompactError:
        raise
    except Exception as error:  # what a hostile or cut pickle makes the machine raise has no end
        found = f"unreadable content ({one_line(error)})"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=FETCH_AGAIN) from error


def read_keras(file_path: Path) -> tuple[KerasLayer, ...]:
    """The layers of a .keras archive (Keras 3): a zip of config.json and model.weights.h5.

    Raises
    ------
    NwbCompactError
        If it is missing, no such zip, or lacks weights of a layer.

    Examples
    --------
    >>> read_keras(Path("none.keras"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: none.keras: found no such file, expected a .keras archive. Next: download the file again
    """
    expected = "a .keras archive"
    try:
        with ZipFile(file_path) as zipped:
            config = json.loads(zipped.read("config.json"))
            stored = BytesIO(zipped.read("model.weights.h5"))
        with h5py.File(stored, "r") as weights:
            require_within(weights, file_path)
            return _layers(config["config"]["layers"], weights)
    except NwbCompactError:
        raise
    except FileNotFoundError as error:
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step=FETCH_AGAIN) from error
    except BadZipFile as error:
        raise NwbCompactError(file_path, found="no zip, or a cut one", expected=expected, next_step=FETCH_AGAIN) from error
    except Exception as error:  # a hostile archive makes zipfile, json and h5py raise anything
        found = f"an archive that cannot be read ({one_line(error)})"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=FETCH_AGAIN) from error


def _layers(configs: list[dict[str, Any]], weights: h5py.File) -> tuple[KerasLayer, ...]:
    seen: Counter[str] = Counter()
    layers = []
    for one in configs:
        kind = str(one["class_name"])
        number = seen[kind]
        seen[kind] += 1
        arrays: tuple[np.ndarray, ...] = ()
        if kind in STORED_AS:
            place = f"layers/{STORED_AS[kind]}{f'_{number}' if number else ''}/vars"
            if place not in weights:
                raise ValueError(f"no weights at {place}")
            arrays = tuple(np.asarray(weights[place][key][()], np.float32) for key in sorted(weights[place], key=int))
        layers.append(KerasLayer(kind, one["config"], arrays))
    return tuple(layers)


# Pickled arrays -------------------------------------------------------------------------------------------------------


class _Type:
    """Stands in for `numpy.dtype`: keeps its code and byte order."""

    def __init__(self, code: str, *_: object):
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = "<" if state[1] == "|" else state[1]


class _Array:
    """Stands in for `numpy.ndarray`: keeps its shape, type, order of axes and bytes (or list of elements)."""

    state: tuple[Any, ...]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _reconstruct(*_: object) -> _Array:
    """Stands in for the function with which numpy's pickles begin an array; the array itself comes with its state."""
    return _Array()


class _Inert(pickle.Unpickler):
    """Knows the three names that a pickled array needs, and gives a stand-in for each."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Type,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs and which is not given: it could run code")
        return known[module, name]


def _elements(listed: object) -> list[object]:
    """Of an array of objects, or of a plain list."""
    elements = listed.state[4] if isinstance(listed, _Array) else listed
    if not isinstance(elements, list):
        raise ValueError("no list of arrays")
    return elements


def _array(one: object) -> np.ndarray:
    if not isinstance(one, _Array):
        raise ValueError(f"a {type(one).__name__} where an array was expected")
    _, shape, kind, fortran_order, content = one.state
    if kind.code not in NUMBERS or not isinstance(content, bytes):
        raise ValueError(f"an array of type '{kind.code}', and not of floats")
    dtype = np.dtype(kind.order + kind.code)
    if prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{len(content)} bytes for an array of shape {shape}")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C").astype(np.float32)
